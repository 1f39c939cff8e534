"""Cloth: two colours and the pattern that says where the second one goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]
"""Red, green, blue in 0..1, as shown on a screen."""

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]
Pattern = Callable[[Plane, Plane], Mask]
"""From metres below the upper end and radians from the front (both one value a pixel) to where the accent goes."""


@dataclass(frozen=True, slots=True)
class Cloth:
    """The cloth on a part of a figure; `pattern` is a key of `PATTERNS`."""

    colour: Colour
    accent: Colour = (0.0, 0.0, 0.0)
    pattern: str = "plain"


def paint(cloth: Cloth, below: Plane, longitude: Plane) -> NDArray[np.float32]:
    """The cloth's colour at every point of a surface. `below` and `longitude`: (N,); returns (N, 3) in 0..1."""
    accent = PATTERNS[cloth.pattern](below, longitude)
    colours = np.array([cloth.colour, cloth.accent], np.float32)
    return colours[accent.astype(np.intp)]


def _plain(below: Plane, longitude: Plane) -> Mask:
    return np.zeros(below.shape, bool)


def _hoops(below: Plane, longitude: Plane) -> Mask:
    return np.asarray(below % 0.15 > 0.085)


def _stripes(below: Plane, longitude: Plane) -> Mask:
    return np.asarray(longitude % (np.pi / 4) > np.pi / 7)


def _checks(below: Plane, longitude: Plane) -> Mask:
    return np.asarray((below % 0.2 > 0.1) ^ (longitude % (np.pi / 3) > np.pi / 6))


def _halves(below: Plane, longitude: Plane) -> Mask:
    return np.asarray(below > 0.24)


def _sash(below: Plane, longitude: Plane) -> Mask:
    return np.asarray((below > 0.1) & (below < 0.24))


def _logo(below: Plane, longitude: Plane) -> Mask:
    return np.asarray((np.abs(longitude) < 0.6) & (below > 0.1) & (below < 0.27))


def _open(below: Plane, longitude: Plane) -> Mask:
    return np.asarray(np.abs(longitude) < 0.35)


def _seam(below: Plane, longitude: Plane) -> Mask:
    return np.asarray(np.abs(np.abs(longitude) - np.pi / 2) < 0.3)


def _hairline(below: Plane, longitude: Plane) -> Mask:
    """Hair (the accent) on a head: the crown, and everything behind the ears."""
    return np.asarray((below < 0.045) | (np.abs(longitude) > 1.25))


PATTERNS: dict[str, Pattern] = {
    "plain": _plain,
    "hoops": _hoops,
    "stripes": _stripes,
    "checks": _checks,
    "halves": _halves,
    "sash": _sash,
    "logo": _logo,
    "open": _open,
    "seam": _seam,
    "hairline": _hairline,
}
