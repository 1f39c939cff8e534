"""Random changes to training images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from reid_core import _torchvision_guard as _torchvision_guard  # before torchvision
from reid_core.data import augmentation
from reid_core.data.augmentation import distort
from reid_core.settings import Augmentation, ColourJitter, Erasing

IMAGE = torch.from_numpy(np.random.default_rng(0).integers(30, 220, (3, 48, 24), dtype=np.uint8))


def changed(seed: int = 0, **asked: Any) -> torch.Tensor:
    never = Erasing(probability=0, area=(0.1, 0.2), aspect=1)
    return distort(IMAGE, Augmentation(flip=0, padding=0, erasing=never, **asked), np.random.default_rng(seed))


def test_nothing_asked_changes_nothing() -> None:
    assert torch.equal(changed(), IMAGE)


def test_occlusion_puts_one_white_square_no_larger_than_asked() -> None:
    for seed in range(30):
        white = (changed(seed, occlusion=0.5) == 255).all(dim=0)
        rows, columns = white.any(dim=1).sum(), white.any(dim=0).sum()
        assert 1 <= rows == columns <= 12
        assert white.sum() == rows * columns


def test_jitter_changes_colours_and_keeps_bytes() -> None:
    image = changed(jitter=ColourJitter(low=0.5, high=2, hue=0.1))
    assert image.dtype == torch.uint8
    assert image.shape == IMAGE.shape
    assert not torch.equal(image, IMAGE)


def test_rotation_moves_the_corners_and_keeps_the_centre() -> None:
    image = changed(rotation=20)
    assert (image[:, 0, 0] == 0).all() or (image[:, 0, -1] == 0).all()
    assert torch.equal(image[:, 24, 12], IMAGE[:, 24, 12])


def test_the_same_generator_gives_the_same_image() -> None:
    asked = {"rotation": 10, "jitter": ColourJitter(low=0.5, high=2, hue=0.1), "occlusion": 0.8}
    assert torch.equal(changed(5, **asked), changed(5, **asked))
    assert not torch.equal(changed(5, **asked), changed(6, **asked))


class Drawn:
    """A generator that gives these factors of colour, in the order in which they are drawn."""

    def __init__(self, factors: dict[str, float]) -> None:
        self._factors = factors

    def uniform(self, low: float, high: float, size: int | None = None) -> Any:
        three = [self._factors[name] for name in ("brightness", "contrast", "saturation")]
        return np.array(three) if size else self._factors["hue"]

    def permutation(self, count: int) -> list[int]:
        return list(range(count))


@pytest.mark.parametrize(
    ("name", "factor"),
    [(name, factor) for name in ("brightness", "contrast", "saturation") for factor in (0.5, 1.7)]
    + [("hue", -0.1), ("hue", 0.07)],
)
def test_colours_change_as_torchvision_changes_them(name: str, factor: float) -> None:
    from torchvision.transforms.v2 import functional as vision

    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 24, 16), dtype=np.uint8))
    image[:, :4] = 128  # grey has no hue
    factors = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, name: factor}
    jitter = ColourJitter(low=0.5, high=2, hue=0.1)
    ours = augmentation._jitter(image, jitter, Drawn(factors))  # type: ignore[arg-type]
    theirs = getattr(vision, f"adjust_{name}")(image, factor)
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert not torch.equal(ours, image)
