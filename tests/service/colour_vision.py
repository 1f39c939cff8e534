"""What people with red-green blindness see: colours as they look to them, and how far apart those lie.

Machado, Oliveira and Fernandes 2009, "A Physiologically-based Model for Simulation of Color Vision Deficiency", the
matrices of severity 1.0, for linear RGB.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import ImageColor

VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}

_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = np.array([0.95047, 1.0, 1.08883])

AT_A_GLANCE = 11.0
"""Distance in CIE L*a*b* from which two colours are told apart at a glance; 2.3 is seen just so, side by side."""

PLAIN = 33.0
"""A third of the distance of black from white, for two colours that say the opposite of each other."""


def as_seen(colours: ArrayLike, vision: str) -> NDArray[np.float64]:
    """(..., 3) sRGB components from 0 to 255 as they look to people of that vision."""
    srgb = np.asarray(colours, np.float64) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ VISIONS[vision].T, 0, 1)
    return np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055) * 255


def lab(colours: ArrayLike) -> NDArray[np.float64]:
    """(..., 3) CIE L*a*b* of sRGB components from 0 to 255 (D65)."""
    srgb = np.asarray(colours, np.float64) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    ratio = linear @ _TO_XYZ.T / _WHITE
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def too_close(colours: Iterable[str], least: float = AT_A_GLANCE) -> list[tuple[str, str, str, float]]:
    """(vision, colour, colour, distance) of every two colours that some people cannot tell apart."""
    found = []
    for vision in VISIONS:
        for one, other in combinations(sorted(set(colours)), 2):
            seen = [lab(as_seen(ImageColor.getrgb(colour)[:3], vision)) for colour in (one, other)]
            distance = float(np.linalg.norm(seen[0] - seen[1]))
            if distance < least:
                found.append((vision, one, other, round(distance, 1)))
    return found
