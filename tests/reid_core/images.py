"""Tiny images of made-up identities: each is a colour, each camera a tint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from reid_core.data.records import ImageRecord


def make_images(
    folder: Path,
    *,
    identities: int = 4,
    cameras: int = 2,
    each: int = 3,
    height: int = 32,
    width: int = 16,
    seed: int = 0,
) -> list[ImageRecord]:
    """`each` noisy images per identity and camera, as PNG files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    colours = generator.integers(40, 216, (identities, 2, 3))
    images = []
    for identity in range(identities):
        for camera in range(cameras):
            for shot in range(each):
                path = folder / f"{identity + 1:04d}_c{camera + 1}s1_{shot:06d}_00.png"
                image = np.repeat(colours[identity], height // 2, axis=0)[:, None, :] + np.zeros((1, width, 1))
                image = image + 25 * camera * np.array([1, 0, -1]) + generator.normal(0, 12, image.shape)
                Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)
                images.append(ImageRecord(path, f"{identity + 1:04d}", str(camera + 1)))
    return images
