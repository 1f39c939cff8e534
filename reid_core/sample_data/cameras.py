"""Cameras: where each one stands, what it does to colours, and the image it takes of a person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from reid_core.sample_data.figure import dress
from reid_core.sample_data.people import Person
from reid_core.sample_data.render import Box, View, bound, project, render
from reid_core.sample_data.scenes import paint_occluder, paint_scene
from reid_core.sample_data.skeleton import strike_pose

Floats = NDArray[np.float32]
GOLDEN_ANGLE = 2.4
"""Radians; multiples of it spread around the circle however many there are, so cameras differ from each other."""


@dataclass(frozen=True, slots=True)
class Look:
    """The colours of a camera. `gains` per channel; `blur` in pixels; `noise` in grey levels."""

    gains: tuple[float, float, float]
    gamma: float
    contrast: float
    saturation: float
    haze: float
    blur: float
    noise: float
    quality: int


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera of a world. Angles in radians; `size` is the crop's (height, width) in pixels."""

    size: tuple[int, int]
    heading: float
    elevation: float
    distance: float
    squeeze: float
    light: NDArray[np.float64]
    look: Look
    scene: Image.Image
    occluder: int
    occlusion: float
    looseness: float


def install_cameras(rng: Generator, count: int, size: tuple[int, int]) -> list[Camera]:
    """The cameras of a world: no two alike, and each the same however many there are."""
    bearing, cast = rng.uniform(0, 2 * np.pi, 2)
    wall, floor = (int(material) for material in rng.integers(0, 60, 2))
    cameras = []
    for number, own in enumerate(rng.spawn(count)):
        turn = GOLDEN_ANGLE * number
        look = _make_look(own, cast + turn)
        cameras.append(_install(own, look, bearing + turn, (wall + number, floor + number), size))
    return cameras


def photograph(camera: Camera, person: Person, walk: Generator, moment: Generator) -> Image.Image:
    """One crop of the person. `walk` settles which way they pass this camera, `moment` all that changes meanwhile."""
    facing = _face(camera, walk) + float(moment.normal(0.0, 0.15))
    shapes = project(dress(person, strike_pose(moment)), View(facing, camera.elevation, camera.distance))
    body = bound(shapes)
    box = _frame(camera, body, moment)
    colour, covered = render(shapes, box, camera.size, facing, camera.light)
    place = _look_behind(camera, moment) * _shadow(camera.size, box, body)
    image = colour * _folds(camera.size, moment) + place * (1.0 - covered)
    if moment.random() < camera.occlusion:
        image = _occlude(camera, image, moment)
    return _develop(camera.look, image, moment)


def _install(rng: Generator, look: Look, heading: float, materials: tuple[int, int], size: tuple[int, int]) -> Camera:
    elevation = float(rng.uniform(0.05, 0.5))
    lamp = rng.uniform(0.1, 0.9) * np.pi
    light = np.array([np.cos(lamp), 0.6, 0.9])
    return Camera(
        size=size,
        heading=heading,
        elevation=elevation,
        distance=float(rng.uniform(3.5, 9.0)),
        squeeze=float(rng.uniform(0.85, 1.12)),
        light=light / np.linalg.norm(light),
        look=look,
        scene=paint_scene(rng, (size[1] * 6, round(size[0] * 1.2)), 0.75 - elevation, *materials),
        occluder=int(rng.integers(3)),
        occlusion=float(rng.uniform(0.05, 0.2)),
        looseness=float(rng.uniform(0.02, 0.06)),
    )


def _make_look(rng: Generator, cast: float) -> Look:
    warmth, tint = 0.22 * np.cos(cast), 0.14 * np.sin(cast)
    exposure = rng.uniform(0.75, 1.25)
    return Look(
        gains=(float(exposure * (1 + warmth)), float(exposure * (1 + tint)), float(exposure * (1 - warmth))),
        gamma=float(rng.uniform(0.8, 1.3)),
        contrast=float(rng.uniform(0.75, 1.1)),
        saturation=float(rng.uniform(0.6, 1.1)),
        haze=float(rng.uniform(0.0, 0.12)),
        blur=float(rng.uniform(0.0, 0.9)),
        noise=float(rng.uniform(2.0, 9.0)),
        quality=int(rng.integers(45, 91)),
    )


def _face(camera: Camera, walk: Generator) -> float:
    """Most people follow the camera's path one way, some come back along it."""
    back = np.pi if walk.random() < 0.2 else 0.0
    return camera.heading + back + float(walk.normal(0.0, 0.3))


def _frame(camera: Camera, body: Box, moment: Generator) -> Box:
    """The detector's box: the figure with some room, never quite in its middle."""
    tall = (body.top - body.bottom) * float(moment.uniform(1.02, 1.02 + 4 * camera.looseness))
    wide = tall * camera.size[1] / camera.size[0] / camera.squeeze
    x, y = (body.left + body.right) / 2, (body.bottom + body.top) / 2
    x += wide * float(moment.normal(0.0, camera.looseness))
    y += tall * float(moment.normal(0.0, 0.6 * camera.looseness))
    return Box(x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2)


def _look_behind(camera: Camera, moment: Generator) -> Floats:
    """The part of the scene behind the person, (H, W, 3) in 0..1."""
    height, width = camera.size
    zoom = float(moment.uniform(0.9, 1.1))
    left = float(moment.uniform(0, camera.scene.width - width * zoom))
    top = float(moment.uniform(0, camera.scene.height - height * zoom))
    window = (left, top, left + width * zoom, top + height * zoom)
    view = camera.scene.resize((width, height), Image.Resampling.BILINEAR, box=window)
    return np.asarray(view, np.float32) / np.float32(255)


def _shadow(size: tuple[int, int], box: Box, body: Box) -> Floats:
    """Computes the light that the floor around the feet keeps, (H, W, 1) in 0..1."""
    x = np.linspace(box.left, box.right, size[1]) - (body.left + body.right) / 2
    y = np.linspace(box.top, box.bottom, size[0]) - body.bottom
    distance = (x[None, :] / 0.3) ** 2 + ((y[:, None] - 0.05) / 0.08) ** 2
    return np.asarray(1.0 - 0.5 * np.exp(-distance), np.float32)[..., None]


def _folds(size: tuple[int, int], moment: Generator) -> Floats:
    """Soft folds of cloth, (H, W, 1) around 1."""
    coarse = Image.fromarray(moment.normal(1.0, 0.1, (20, 10)).astype(np.float32))
    return np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC), np.float32)[..., None]


def _occlude(camera: Camera, image: Floats, moment: Generator) -> Floats:
    layer = np.asarray(paint_occluder(moment, camera.size[::-1], camera.occluder), np.float32) / np.float32(255)
    opacity = layer[..., 3:]
    return image + (layer[..., :3] - image) * opacity


def _develop(look: Look, image: Floats, moment: Generator) -> Image.Image:
    """The image as the camera delivers it, before JPEG."""
    exposed = np.clip(image * np.array(look.gains, np.float32), 0.0, 1.2) ** look.gamma
    grey = exposed.mean(axis=2, keepdims=True)
    toned = (grey + look.saturation * (exposed - grey) - 0.5) * look.contrast + 0.5 + look.haze
    developed = Image.fromarray(np.clip(toned * 255, 0, 255).astype(np.uint8))
    blurred = np.asarray(developed.filter(ImageFilter.GaussianBlur(look.blur)), np.float32)
    grain = look.noise * moment.standard_normal(blurred.shape, dtype=np.float32)
    return Image.fromarray(np.clip(blurred + grain, 0, 255).astype(np.uint8))
