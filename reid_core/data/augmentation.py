"""Random changes to a training image. Randomness comes from the generator passed in.

Colour, rotation and occlusion change the bytes (`distort`); flip, crop and erasing the normalised image (`augment`).
"""

from __future__ import annotations

import math

from reid_core import _torchvision_guard as _torchvision_guard  # before torchvision

# isort: split
import numpy as np
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as vision

from reid_core.settings import Augmentation, ColourJitter, Erasing

_ERASING_ATTEMPTS = 100
_WHITE = 255


def distort(image: Tensor, augmentation: Augmentation, generator: np.random.Generator) -> Tensor:
    """A (3, H, W) uint8 image with other colours, turned, and with a white square in it; itself if none is asked."""
    if augmentation.rotation:
        image = vision.rotate(image, generator.uniform(-augmentation.rotation, augmentation.rotation))
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


def _jitter(image: Tensor, jitter: ColourJitter, generator: np.random.Generator) -> Tensor:
    brightness, contrast, saturation = generator.uniform(jitter.low, jitter.high, 3).tolist()
    hue = float(generator.uniform(-jitter.hue, jitter.hue))
    changes = (
        lambda image: vision.adjust_brightness(image, brightness),
        lambda image: vision.adjust_contrast(image, contrast),
        lambda image: vision.adjust_saturation(image, saturation),
        lambda image: vision.adjust_hue(image, hue),
    )
    for place in generator.permutation(len(changes)):
        image = changes[place](image)
    return image


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
