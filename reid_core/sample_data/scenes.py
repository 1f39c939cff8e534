"""Places where a camera hangs: a wide image of wall, floor and things, and the objects that hide people."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

Ink = tuple[int, int, int]
Area = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""

Painter = Callable[[Generator, ImageDraw.ImageDraw, Area], None]


def paint_scene(rng: Generator, size: tuple[int, int], horizon: float, wall: int, floor: int) -> Image.Image:
    """An RGB image of `size` (width, height). `horizon` is where the floor begins, 0 at the top and 1 at the bottom.

    `wall` and `floor` choose a material; any number will do.
    """
    width, height = size
    scene = Image.new("RGB", size)
    draw = ImageDraw.Draw(scene)
    edge = round(horizon * height)
    WALLS[wall % len(WALLS)](rng, draw, (0, 0, width, edge))
    FLOORS[floor % len(FLOORS)](rng, draw, (0, edge, width, height))
    for _ in range(int(rng.integers(6, 12))):
        thing = _THINGS[rng.integers(len(_THINGS))]
        thing(rng, draw, (0, 0, width, edge))
    return _weather(rng, scene.filter(ImageFilter.GaussianBlur(height / 160)))


def paint_occluder(rng: Generator, size: tuple[int, int], kind: int) -> Image.Image:
    """An RGBA image of `size` (width, height) that is clear but for one object. `kind` is any number."""
    width, height = size
    layer = Image.new("RGBA", (2 * width, 2 * height))
    _OCCLUDERS[kind % len(_OCCLUDERS)](rng, ImageDraw.Draw(layer), (0, 0, 2 * width, 2 * height))
    return layer.reduce(2)


def _ink(rng: Generator, dark: int = 60, light: int = 200, spread: int = 25) -> Ink:
    """A muted colour: grey between `dark` and `light` with a hue of its own."""
    red, green, blue = np.clip(rng.integers(dark, light) + rng.integers(-spread, spread + 1, 3), 0, 255)
    return int(red), int(green), int(blue)


def _shade(ink: Ink, factor: float) -> Ink:
    red, green, blue = (min(255, round(value * factor)) for value in ink)
    return red, green, blue


def _gradient(draw: ImageDraw.ImageDraw, area: Area, top: Ink, bottom: Ink) -> None:
    left, upper, right, lower = area
    for y in range(upper, lower):
        part = (y - upper) / max(1, lower - upper)
        mixed = [round(a + (b - a) * part) for a, b in zip(top, bottom, strict=True)]
        draw.line((left, y, right, y), fill=(mixed[0], mixed[1], mixed[2]))


def _plaster(rng: Generator, draw: ImageDraw.ImageDraw, area: Area) -> None:
    left, upper, right, lower = area
    ink = _ink(rng, 120, 220)
    _gradient(draw, area, ink, _shade(ink, 0.8))
    rail = lower - (lower - upper) // 3
    draw.rectangle((left, rail, right, lower), fill=_shade(ink, 0.6))


def _bricks(rng: Generator, draw: ImageDraw.ImageDraw, area: Area) -> None:
    left, upper, right, lower = area
    ink = (int(rng.integers(110, 170)), int(rng.integers(70, 100)), int(rng.integers(50, 80)))
    draw.rectangle(area, fill=_shade(ink, 1.35))
    step = max(6, (right - left) // 60)
    for row, y in enumerate(range(upper, lower, step // 2)):
        for x in range(left - step, right, step):
            start = x + (row % 2) * step // 2
            brick = _shade(ink, float(rng.uniform(0.8, 1.15)))
            draw.rectangle((start, y, start + step - 2, y + step // 2 - 2), fill=brick)


def _windows(rng: Generator, draw: ImageDraw.ImageDraw, area: Area) -> None:
    left, upper, right, lower = area
    frame, glass = _ink(rng, 50, 110), _ink(rng, 110, 180, 40)
    draw.rectangle(area, fill=frame)
    step = (right - left) // int(rng.integers(8, 14))
    for x in range(left, right, step):
        for y, end in ((upper, (upper + lower) // 2), ((upper + lower) // 2, lower)):
            pane = (x + step // 12, y + step // 12, x + step - step // 12, end - step // 12)
            if pane[3] > pane[1]:
                _gradient(draw, pane, _shade(glass, float(rng.uniform(0.9, 1.3))), _shade(glass, 0.7))


def _hedge(rng: Generator, draw: ImageDraw.ImageDraw, area: Area) -> None:
    left, upper, right, lower = area
    draw.rectangle(area, fill=(168, 194, 214))
    green = (int(rng.integers(40, 80)), int(rng.integers(80, 120)), int(rng.integers(30, 60)))
    size = max(4, (right - left) // 50)
    for y in range(upper + (lower - upper) // 4, lower + size, size // 2):
        for x in rng.integers(left, right, 90):
            leaf = _shade(green, float(rng.uniform(0.6, 1.3)))
            draw.ellipse((int(x), y, int(x) + 2 * size, y + size), fill=leaf)


def _shutters(rng: Generator, draw: ImageDraw.ImageDraw, area: Area) -> None:
    left, upper, right, lower = area
    ink = _ink(rng, 90, 190, 45)
    draw.rectangle(area, fill=ink)
    for y in range(upper, lower, max(5, (right - left) // 90)):
        draw.line((left, y, right, y), fill=_shade(ink, 0.7), width=2)
    for x in range(left, right, (right - left) // 6):
        draw.rectangle((x, upper, x + (right - left) // 60, lower), fill=_shade(ink, 0.5))


def _tiles(rng: Generator, draw: ImageDraw.ImageDraw, area: Area) -> None:
    left, upper, right, lower = area
    ink = _ink(rng, 110, 200)
    _gradient(draw, area, _shade(ink, 0.85), ink)
    grout = _shade(ink, 0.65)
    for row in range(12):
        y = upper + round((lower - upper) * (row / 12) ** 1.7)
        draw.line((left, y, right, y), fill=grout, width=2)
    for x in range(left - (right - left), 2 * right, (right - left) // 24):
        draw.line(((x + (left + right)) // 2, upper, x, lower), fill=grout, width=2)


def _asphalt(rng: Generator, draw: ImageDraw.ImageDraw, area: Area) -> None:
    left, upper, right, lower = area
    ink = _ink(rng, 60, 110, 8)
    _gradient(draw, area, _shade(ink, 1.2), ink)
    slant = int(rng.integers(-40, 40))
    for x in range(left, right, (right - left) // 9):
        wide = (right - left) // 26
        draw.polygon(
            ((x, upper), (x + wide, upper), (x + wide + slant, lower), (x + slant, lower)), fill=(205, 205, 198)
        )


def _planks(rng: Generator, draw: ImageDraw.ImageDraw, area: Area) -> None:
    left, upper, right, lower = area
    wood = (int(rng.integers(120, 180)), int(rng.integers(85, 120)), int(rng.integers(50, 80)))
    step = max(4, (lower - upper) // 9)
    for y in range(upper, lower, step):
        draw.rectangle((left, y, right, y + step - 2), fill=_shade(wood, float(rng.uniform(0.8, 1.1))))


def _grass(rng: Generator, draw: ImageDraw.ImageDraw, area: Area) -> None:
    left, upper, right, lower = area
    green = (int(rng.integers(70, 110)), int(rng.integers(110, 140)), int(rng.integers(50, 70)))
    _gradient(draw, area, _shade(green, 0.8), green)
    for x, y in zip(rng.integers(left, right, 500), rng.integers(upper, max(upper + 1, lower), 500), strict=True):
        draw.line((int(x), int(y), int(x) + 2, int(y) - 6), fill=_shade(green, float(rng.uniform(0.7, 1.3))), width=2)


def _poster(rng: Generator, draw: ImageDraw.ImageDraw, area: Area) -> None:
    left, upper, right, lower = area
    wide, high = rng.integers(12, 34, 2) * (right - left) // 400
    x, y = int(rng.integers(left, right)), int(rng.integers(upper, max(upper + 1, lower - high)))
    draw.rectangle((x, y, x + wide, y + high), fill=_ink(rng, 60, 220, 60), outline=_ink(rng), width=2)


def _pole(rng: Generator, draw: ImageDraw.ImageDraw, area: Area) -> None:
    left, upper, right, lower = area
    x, wide = int(rng.integers(left, right)), int(rng.integers(4, 10)) * (right - left) // 500
    draw.rectangle((x, upper, x + wide, lower + (right - left) // 40), fill=_ink(rng, 40, 120))


def _bin(rng: Generator, draw: ImageDraw.ImageDraw, area: Area) -> None:
    left, _, right, lower = area
    unit = (right - left) // 40
    x, y = int(rng.integers(left, right)), lower + int(rng.integers(0, unit + 1))
    ink = _ink(rng, 40, 150, 60)
    draw.rectangle((x, y - 2 * unit, x + int(1.3 * unit), y + unit), fill=ink)
    draw.rectangle((x - unit // 6, y - 2 * unit, x + int(1.5 * unit), y - int(1.7 * unit)), fill=_shade(ink, 0.6))


def _door(rng: Generator, draw: ImageDraw.ImageDraw, area: Area) -> None:
    left, upper, right, lower = area
    x, wide = int(rng.integers(left, right)), (right - left) // 14
    top = max(upper, lower - int(2.2 * wide))
    ink = _ink(rng, 50, 160, 40)
    draw.rectangle((x, top, x + wide, lower), fill=ink, outline=_shade(ink, 0.5), width=3)
    draw.ellipse(
        (x + wide // 8, (top + lower) // 2, x + wide // 5, (top + lower) // 2 + wide // 12), fill=(220, 210, 160)
    )


def _post(rng: Generator, draw: ImageDraw.ImageDraw, area: Area) -> None:
    _, _, right, lower = area
    x, wide = int(rng.integers(0, right)), int(rng.integers(right // 12, right // 6))
    ink = _ink(rng, 60, 150)
    for offset in range(wide):
        light = 0.6 + 0.7 * np.sin(np.pi * offset / wide)
        draw.line((x + offset, 0, x + offset, lower), fill=_shade(ink, light))


def _plant(rng: Generator, draw: ImageDraw.ImageDraw, area: Area) -> None:
    _, _, right, lower = area
    x = float(rng.uniform(0.05, 0.95)) * right
    for _ in range(26):
        tip = (x + rng.normal(0, 0.16) * right, lower * rng.uniform(0.62, 0.85))
        green = _shade((50, 105, 45), float(rng.uniform(0.6, 1.5)))
        draw.polygon(((x - 3, lower), tip, (x + 4, lower)), fill=green)


def _crate(rng: Generator, draw: ImageDraw.ImageDraw, area: Area) -> None:
    _, _, right, lower = area
    wide = int(rng.uniform(0.35, 0.6) * right)
    x, y = int(rng.integers(-wide // 3, right - wide // 2)), int(lower * rng.uniform(0.74, 0.86))
    ink = _ink(rng, 90, 170, 35)
    draw.rectangle((x, y, x + wide, lower), fill=ink, outline=_shade(ink, 0.6), width=3)
    draw.rectangle((x, y, x + wide, y + lower // 60), fill=_shade(ink, 1.3))


def _weather(rng: Generator, scene: Image.Image) -> Image.Image:
    """The scene under uneven light: soft patches some centimetres to metres wide."""
    patches = Image.fromarray(rng.integers(104, 153, (6, 24), dtype=np.uint8))
    light = np.asarray(patches.resize(scene.size, Image.Resampling.BICUBIC), np.float32)[..., None] / 128
    grain = rng.normal(1.0, 0.03, (scene.height, scene.width, 1))
    return Image.fromarray(np.clip(np.asarray(scene) * light * grain, 0, 255).astype(np.uint8))


WALLS: tuple[Painter, ...] = (_plaster, _bricks, _windows, _hedge, _shutters)
FLOORS: tuple[Painter, ...] = (_tiles, _asphalt, _planks, _grass)
_THINGS: tuple[Painter, ...] = (_poster, _poster, _pole, _bin, _door)
_OCCLUDERS: tuple[Painter, ...] = (_post, _plant, _crate)
