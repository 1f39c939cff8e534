"""Solid parts drawn as one shaded figure: tapering rods and a depth buffer, in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid_core.sample_data.figure import Part
from reid_core.sample_data.patterns import Cloth, paint

Floats = NDArray[np.float32]
SUPERSAMPLING = 2
AMBIENT, DIFFUSE = 0.5, 0.55


@dataclass(frozen=True, slots=True)
class View:
    """A camera's view of a person. Angles in radians: `facing` is how far they are turned from the camera (positive to
    the image's right), `elevation` how far the camera looks down. `distance` in metres."""

    facing: float
    elevation: float
    distance: float


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of the image plane, in metres; y goes up."""

    left: float
    bottom: float
    right: float
    top: float


@dataclass(frozen=True, slots=True)
class Shape:
    """A part as the camera sees it.

    `start` and `end` are (x, y, z), z towards the camera; `radii` are half widths on the image, `thickness` is the
    size along z over that on the image, `length` is the part's true one. All lengths in metres.
    """

    start: NDArray[np.float32]
    end: NDArray[np.float32]
    radii: tuple[float, float]
    thickness: float
    length: float
    cap: float
    cloth: Cloth
    box: Box


def project(parts: Sequence[Part], view: View) -> list[Shape]:
    """The parts in the image plane, nearer ones larger."""
    turn = _rotation(view)
    return [_project_part(part, turn, view) for part in parts]


def bound(shapes: Sequence[Shape]) -> Box:
    """The smallest box that holds the figure."""
    return Box(
        left=min(shape.box.left for shape in shapes),
        bottom=min(shape.box.bottom for shape in shapes),
        right=max(shape.box.right for shape in shapes),
        top=max(shape.box.top for shape in shapes),
    )


def render(
    shapes: Sequence[Shape], box: Box, size: tuple[int, int], facing: float, light: NDArray[np.float64]
) -> tuple[Floats, Floats]:
    """Draws what lies in `box`, as `size` (height, width) pixels.

    `light` is a unit vector towards the lamp. Returns colour (H, W, 3), already multiplied by coverage, and coverage
    (H, W, 1), both in 0..1.
    """
    height, width = size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING
    canvas = _Canvas(
        xs=np.linspace(box.left, box.right, width, dtype=np.float32),
        ys=np.linspace(box.top, box.bottom, height, dtype=np.float32),
        colour=np.zeros((height, width, 3), np.float32),
        depth=np.full((height, width, 1), -np.inf, np.float32),
    )
    for shape in shapes:
        _draw(shape, canvas, facing, light)
    return _shrink(canvas.colour), _shrink(np.isfinite(canvas.depth).astype(np.float32))


@dataclass(frozen=True, slots=True)
class _Canvas:
    """Pixels being painted: their x (W,), their y (H,), `colour` (H, W, 3) and how near it is, `depth` (H, W, 1)."""

    xs: Floats
    ys: Floats
    colour: Floats
    depth: Floats


@dataclass(frozen=True, slots=True)
class _Surface:
    """The near side of a shape over N pixels: `part` of the way to its end, `z`, the unit `normal` (3, N) and how far
    `sideways` from its middle line (-1..1)."""

    part: Floats
    z: Floats
    normal: Floats
    sideways: Floats


def _rotation(view: View) -> NDArray[np.float64]:
    """(3, 3): turns the person by `facing` about y, then tilts the world by `elevation` about x."""
    cos, sin = np.cos(view.facing), np.sin(view.facing)
    turn = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
    cos, sin = np.cos(view.elevation), np.sin(view.elevation)
    tilt = np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])
    return np.asarray(tilt @ turn)


def _project_part(part: Part, turn: NDArray[np.float64], view: View) -> Shape:
    ends = np.stack([part.start, part.end]) - [0.0, 0.9, 0.0]  # the camera aims at a person's middle
    length = float(np.linalg.norm(ends[1] - ends[0]))
    ends = ends @ turn.T
    near = view.distance / (view.distance - ends[:, 2])
    ends[:, :2] *= near[:, None]
    across = np.hypot(np.cos(view.facing), np.sin(view.facing) * part.depth)
    along = np.hypot(np.sin(view.facing), np.cos(view.facing) * part.depth)
    radii = near * across * part.radii
    low, high = (ends[:, :2] - radii[:, None]).min(axis=0), (ends[:, :2] + radii[:, None]).max(axis=0)
    return Shape(
        start=ends[0].astype(np.float32),
        end=ends[1].astype(np.float32),
        radii=(float(radii[0]), float(radii[1])),
        thickness=float(along / across),
        length=length,
        cap=part.cap,
        cloth=part.cloth,
        box=Box(float(low[0]), float(low[1]), float(high[0]), float(high[1])),
    )


def _draw(shape: Shape, canvas: _Canvas, facing: float, light: NDArray[np.float64]) -> None:
    """Paints the pixels where the shape is nearer than what is there already."""
    columns = slice(*np.searchsorted(canvas.xs, (shape.box.left, shape.box.right)))
    rows = slice(*np.searchsorted(-canvas.ys, (-shape.box.top, -shape.box.bottom)))
    colour, depth = canvas.colour[rows, columns], canvas.depth[rows, columns, 0]
    inside, surface = _meet(shape, canvas.xs[columns], canvas.ys[rows])
    nearer = surface.z > depth[inside]
    inside[inside] = nearer
    longitude = (np.arcsin(surface.sideways[nearer]) - facing + np.pi) % (2 * np.pi) - np.pi
    painted = paint(shape.cloth, surface.part[nearer] * shape.length, longitude.astype(np.float32))
    lit = np.clip(light.astype(np.float32) @ surface.normal[:, nearer], 0.0, 1.0)
    colour[inside] = painted * (AMBIENT + DIFFUSE * lit)[:, None]
    depth[inside] = surface.z[nearer]


def _meet(shape: Shape, xs: Floats, ys: Floats) -> tuple[NDArray[np.bool_], _Surface]:
    """Finds the pixels (H, W) that show the shape, and its surface there."""
    x, y = xs[None, :] - shape.start[0], ys[:, None] - shape.start[1]
    span = shape.end - shape.start
    length = max(float(np.hypot(span[0], span[1])), 1e-4)
    ux, uy = (span[:2] / length) if length > 1e-4 else (0.0, -1.0)
    along, across = x * ux + y * uy, y * ux - x * uy
    part = np.clip(along / length, 0.0, 1.0)
    radius = shape.radii[0] + (shape.radii[1] - shape.radii[0]) * part
    sideways, beyond = across / radius, (along - part * length) / (radius * shape.cap)
    off_axis = sideways**2 + beyond**2
    inside = off_axis < 1.0
    part, radius, sideways, beyond = part[inside], radius[inside], sideways[inside], beyond[inside]
    bulge = np.sqrt(1.0 - off_axis[inside])
    z = shape.start[2] + span[2] * part + shape.thickness * radius * bulge
    normal = np.stack([beyond * ux - sideways * uy, beyond * uy + sideways * ux, bulge])
    return inside, _Surface(part, z, normal, sideways)


def _shrink(image: Floats) -> Floats:
    """The mean over squares of SUPERSAMPLING pixels: smooth edges."""
    steps = range(SUPERSAMPLING)
    total = sum(image[i::SUPERSAMPLING, j::SUPERSAMPLING] for i in steps for j in steps)
    return np.asarray(total / SUPERSAMPLING**2, np.float32)
