"""Random changes to a training image. Randomness comes from the generator passed in.

Colour, rotation and occlusion change the bytes (`distort`); flip, crop and erasing the normalised image (`augment`).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from reid_core.settings import Augmentation, ColourJitter, Erasing

_ERASING_ATTEMPTS = 100
_WHITE = 255
_TINY = 1e-6


def distort(image: Tensor, augmentation: Augmentation, generator: np.random.Generator) -> Tensor:
    """A (3, H, W) uint8 image with other colours, turned, and with a white square in it; itself if none is asked."""
    if augmentation.rotation:
        image = _rotate(image, generator.uniform(-augmentation.rotation, augmentation.rotation))
    if augmentation.jitter:
        image = _jitter(image, augmentation.jitter, generator)
    if augmentation.occlusion:
        image = _occlude(image, augmentation.occlusion, generator)
    return image


def augment(image: Tensor, augmentation: Augmentation, generator: np.random.Generator) -> Tensor:
    """A changed copy of a normalised (3, H, W) image."""
    if generator.random() < augmentation.flip:
        image = image.flip(2)
    if augmentation.padding:
        image = _padded_crop(image, augmentation.padding, generator)
    if generator.random() < augmentation.erasing.probability:
        image = _erase(image, augmentation.erasing, generator)
    return image


def _padded_crop(image: Tensor, padding: int, generator: np.random.Generator) -> Tensor:
    # Zero is the mean colour here; the strong baseline pads with black before it normalises.
    _, height, width = image.shape
    padded = functional.pad(image, (padding, padding, padding, padding))
    top, left = generator.integers(0, 2 * padding + 1, size=2)
    return padded[:, top : top + height, left : left + width]


def _rotate(image: Tensor, degrees: float) -> Tensor:
    """Turns the image about its middle; what comes in at the corners is black."""
    turned = Image.fromarray(image.permute(1, 2, 0).numpy()).rotate(degrees)
    return torch.from_numpy(np.array(turned)).permute(2, 0, 1)


def _jitter(image: Tensor, jitter: ColourJitter, generator: np.random.Generator) -> Tensor:
    """Changes brightness, contrast, saturation and hue in an order of its own; rounded once, at the end."""
    brightness, contrast, saturation = generator.uniform(jitter.low, jitter.high, 3).tolist()
    hue = float(generator.uniform(-jitter.hue, jitter.hue))
    changes = (
        lambda image: image * brightness,
        lambda image: torch.lerp(_grey(image).mean(), image, contrast),
        lambda image: torch.lerp(_grey(image), image, saturation),
        lambda image: _turn_hue(image, hue),
    )
    changed = image.contiguous().float()
    for place in generator.permutation(len(changes)):
        changed = changes[place](changed).clamp_(0, _WHITE)
    return changed.round_().to(torch.uint8)


def _grey(image: Tensor) -> Tensor:
    red, green, blue = image
    return torch.add(torch.add(0.299 * red, green, alpha=0.587), blue, alpha=0.114)


def _turn_hue(image: Tensor, turn: float) -> Tensor:
    """Turns the hue by a part of the colour circle; value and chroma of every pixel stay (HSV, Smith 1978)."""
    red, green, blue = image
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    scale = chroma.clamp(min=_TINY).reciprocal_()
    # The hue in sixths of the circle: from -1 to 5, by which of red, green and blue is largest.
    hue = torch.where(
        value == red,
        (green - blue).mul_(scale),
        torch.where(value == green, (blue - red).mul_(scale).add_(2), (red - green).mul_(scale).add_(4)),
    )
    turned = torch.empty_like(image)
    for channel, offset in zip(turned, (5, 3, 1), strict=True):
        place = (hue + (offset + 6 * turn)).remainder_(6)
        weight = torch.minimum(place, 4 - place).clamp_(0, 1)
        torch.addcmul(value, chroma, weight, value=-1, out=channel)
    return turned


def _occlude(image: Tensor, largest: float, generator: np.random.Generator) -> Tensor:
    _, height, width = image.shape
    side = int(generator.integers(1, max(2, int(largest * min(height, width)))))
    top, left = generator.integers(0, height - side + 1), generator.integers(0, width - side + 1)
    occluded = image.clone()
    occluded[:, top : top + side, left : left + side] = _WHITE
    return occluded


def _erase(image: Tensor, erasing: Erasing, generator: np.random.Generator) -> Tensor:
    # The authors fill with 0.485, 0.456, 0.406 in normalised space, which is not the mean colour; zero is.
    _, height, width = image.shape
    for _ in range(_ERASING_ATTEMPTS):
        area = generator.uniform(*erasing.area) * height * width
        aspect = generator.uniform(1 / erasing.aspect, erasing.aspect)
        erased_height, erased_width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if erased_height < height and erased_width < width:
            top = generator.integers(0, height - erased_height + 1)
            left = generator.integers(0, width - erased_width + 1)
            erased = image.clone()
            erased[:, top : top + erased_height, left : left + erased_width] = 0
            return erased
    return image
