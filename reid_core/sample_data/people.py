"""People who do not exist: what tells one from another, whichever camera sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from reid_core.sample_data.patterns import Cloth, Colour

PALETTE: dict[str, Colour] = {
    "red": (0.78, 0.10, 0.12),
    "orange": (0.92, 0.45, 0.08),
    "yellow": (0.93, 0.80, 0.15),
    "green": (0.12, 0.50, 0.20),
    "teal": (0.08, 0.55, 0.58),
    "blue": (0.12, 0.25, 0.75),
    "sky": (0.48, 0.72, 0.92),
    "purple": (0.42, 0.16, 0.55),
    "pink": (0.93, 0.48, 0.65),
    "white": (0.93, 0.93, 0.91),
    "grey": (0.50, 0.51, 0.53),
    "black": (0.08, 0.08, 0.09),
    "beige": (0.80, 0.70, 0.52),
    "brown": (0.38, 0.22, 0.12),
    "navy": (0.09, 0.12, 0.30),
    "olive": (0.36, 0.37, 0.16),
}
TOP_COLOURS = tuple(PALETTE)
BOTTOM_COLOURS = ("black", "navy", "grey", "beige", "blue", "brown", "olive", "white", "red", "teal")
SKINS: tuple[Colour, ...] = (
    (0.95, 0.79, 0.69),
    (0.87, 0.68, 0.54),
    (0.72, 0.52, 0.38),
    (0.52, 0.35, 0.24),
    (0.36, 0.23, 0.16),
)
HAIRS: tuple[Colour, ...] = (
    (0.07, 0.06, 0.06),
    (0.28, 0.17, 0.10),
    (0.50, 0.32, 0.17),
    (0.85, 0.70, 0.40),
    (0.62, 0.60, 0.58),
    (0.58, 0.22, 0.10),
)

TOP_PATTERNS = ("plain", "hoops", "stripes", "checks", "halves", "sash", "logo", "open")


@dataclass(frozen=True, slots=True)
class Build:
    """Body shape: `height` in metres, `girth` and `shoulders` as factors of the average, `legs` as a part of height."""

    height: float
    girth: float
    shoulders: float
    legs: float


@dataclass(frozen=True, slots=True)
class Person:
    """One identity. `sleeves`, `hem`, `legwear`, `hair_style`, `bag` and `hat` name shapes that `figure` draws."""

    build: Build
    skin: Colour
    hair: Colour
    hair_style: str
    top: Cloth
    sleeves: str
    sleeve_cloth: Cloth
    hem: str
    bottom: Cloth
    legwear: str
    shoes: Colour
    bag: str
    bag_side: int
    bag_colour: Colour
    hat: str
    hat_colour: Colour


@dataclass(frozen=True, slots=True)
class Wardrobe:
    """Colours that several people share, so that colour alone does not tell them apart."""

    top: str
    bottom: str
    accent: str


def invent_wardrobe(rng: Generator) -> Wardrobe:
    top = _pick(rng, TOP_COLOURS)
    bottom = _pick(rng, [name for name in BOTTOM_COLOURS if name != top])
    return Wardrobe(top, bottom, _contrast(rng, top))


def invent_person(rng: Generator, wardrobe: Wardrobe) -> Person:
    """A person, in half of the cases in the colours of the `wardrobe`; shapes and patterns are always their own."""
    if rng.random() < 0.5:
        wardrobe = invent_wardrobe(rng)
    top = _invent_top(rng, wardrobe)
    return Person(
        build=_invent_build(rng),
        skin=SKINS[rng.integers(len(SKINS))],
        hair=HAIRS[rng.integers(len(HAIRS))],
        hair_style=_pick(rng, ("short", "short", "long", "long", "bun", "bald")),
        top=top,
        sleeves=_pick(rng, ("long", "long", "short", "none")),
        sleeve_cloth=_invent_sleeve(rng, top),
        hem=_pick(rng, ("hip", "hip", "hip", "coat")),
        bottom=_invent_bottom(rng, wardrobe),
        legwear=_pick(rng, ("trousers", "trousers", "trousers", "shorts", "skirt")),
        shoes=_tint(rng, _pick(rng, ("black", "white", "brown", "red", "blue", "yellow"))),
        bag=_pick(rng, ("none", "backpack", "backpack", "handbag", "satchel")),
        bag_side=int(rng.integers(2)),
        bag_colour=_tint(rng, _pick(rng, TOP_COLOURS)),
        hat=_pick(rng, ("none", "none", "none", "none", "cap", "beanie", "brimmed")),
        hat_colour=_tint(rng, _pick(rng, TOP_COLOURS)),
    )


def _invent_build(rng: Generator) -> Build:
    return Build(
        height=float(rng.uniform(1.52, 1.95)),
        girth=float(rng.uniform(0.85, 1.35)),
        shoulders=float(rng.uniform(0.9, 1.12)),
        legs=float(rng.uniform(0.46, 0.53)),
    )


def _invent_top(rng: Generator, wardrobe: Wardrobe) -> Cloth:
    return Cloth(_tint(rng, wardrobe.top), _tint(rng, wardrobe.accent), _pick(rng, TOP_PATTERNS))


def _invent_sleeve(rng: Generator, top: Cloth) -> Cloth:
    if top.pattern in ("hoops", "checks"):
        return top
    return Cloth(top.accent if rng.random() < 0.25 else top.colour)


def _invent_bottom(rng: Generator, wardrobe: Wardrobe) -> Cloth:
    accent = _contrast(rng, wardrobe.bottom)
    return Cloth(_tint(rng, wardrobe.bottom), _tint(rng, accent), _pick(rng, ("plain", "plain", "plain", "seam")))


def _contrast(rng: Generator, colour: str) -> str:
    """A colour that can be told from `colour` on a small image."""
    far = [name for name in TOP_COLOURS if np.abs(np.subtract(PALETTE[name], PALETTE[colour])).sum() > 0.8]
    return _pick(rng, far)


def _tint(rng: Generator, name: str) -> Colour:
    """The named colour, a little off: no two dyes are the same."""
    red, green, blue = np.clip(np.add(PALETTE[name], rng.normal(0.0, 0.025, 3)), 0.03, 0.97)
    return float(red), float(green), float(blue)


def _pick(rng: Generator, names: tuple[str, ...] | list[str]) -> str:
    return names[rng.integers(len(names))]
