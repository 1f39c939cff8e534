"""Every Pillow mode as 8-bit RGB, as a person sees the image: one rule for each, the table of docs/images.md."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from reid_core.errors import ImageError

PADDING_COLOUR = (124, 116, 104)
"""The colour that transparent pixels get: ImageNet's mean, which networks see as zero and training pads with."""

_WHITE_LEVELS = (255, 4095, 65535)
"""The whites of 8, 12 and 16 bits."""

_CONVERTED = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"})
_TRANSPARENT = {"RGBA": "RGBA", "LA": "RGBA", "PA": "RGBA", "RGBa": "RGBA", "La": "LA"}
"""Modes with an alpha channel -> the next mode on the way to RGBA."""

_NUMBERS = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB.

    Grey values of more than 8 bits and floats are scaled by their range (`scale_grey`), transparent pixels laid over
    `PADDING_COLOUR`, palettes looked up, other colour models converted.

    Raises:
        ImageError: values are no numbers, or the mode is not known.
    """
    if image.mode in _NUMBERS:
        return Image.fromarray(scale_grey(np.asarray(image))).convert("RGB")
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if image.mode in _TRANSPARENT:
        return _lay_over(image.convert(_TRANSPARENT[image.mode]).convert("RGBA"))
    if image.mode not in _CONVERTED:
        raise ImageError(f"Its mode {image.mode} is not known.", hint="Save it again as 8-bit RGB.")
    if image.has_transparency_data:  # a colour or a palette entry that stands for nothing
        return _lay_over(image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def scale_grey(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """(H, W) integers or floats to 0..255, linearly.

    Black is 0 and white the lowest of 1 (floats only), 255, 4095 and 65535 that no value exceeds, so that images of
    one kind are scaled alike. Where a value is negative or above 65535, the lowest becomes black and the highest white.

    Raises:
        ImageError: a value is infinite or no number.
    """
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ImageError("It holds values that are no numbers.", hint="Save it again as 8-bit RGB.")
    levels = (1, *_WHITE_LEVELS) if values.dtype.kind == "f" else _WHITE_LEVELS
    white = next((level for level in levels if high <= level), high)
    black = 0.0
    if low < 0 or high > _WHITE_LEVELS[-1]:
        black, white = low, high if high > low else low + 1
    scaled = (values.astype(np.float32) - black) * (255 / (white - black))
    return np.asarray(np.rint(scaled), np.uint8)


def _lay_over(image: Image.Image) -> Image.Image:
    ground = Image.new("RGBA", image.size, (*PADDING_COLOUR, 255))
    return Image.alpha_composite(ground, image).convert("RGB")


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    """Converts CIELAB exactly: the table behind `Image.convert` is off by up to 39 levels in dark channels."""
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    exact = ImageCms.buildTransform(lab, srgb, "LAB", "RGB", flags=ImageCms.Flags.NOOPTIMIZE)
    return exact.apply(image)
