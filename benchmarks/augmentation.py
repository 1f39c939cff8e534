"""Processor time of QAConv's training augmentation per image, beside torchvision's transforms on Pillow images.

    .venv/bin/python -m benchmarks.augmentation

Both take images of the network's size, rotate them, jitter their colours, put a white square into them, pad, crop and
flip them and give float tensors, with the paper's ranges; torchvision's are what the authors' code calls, with their
square in NumPy. One thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reid_core import _torchvision_guard as _torchvision_guard  # before torchvision

# isort: split
from torchvision import transforms

from reid_core.data.augmentation import augment, distort
from reid_core.data.preprocessing import preprocessing_of
from reid_core.data.tensors import normalise
from reid_core.methods import METHODS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    generator = np.random.default_rng(options.seed)
    settings = METHODS["qaconv-gs"].recipe
    preprocessing, asked = preprocessing_of(settings), settings.augmentation
    size = (settings.image.height, settings.image.width)
    pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
    image, picture = torch.from_numpy(pixels).permute(2, 0, 1), Image.fromarray(pixels)

    def ours() -> Tensor:
        return augment(normalise(distort(image, asked, generator), preprocessing), asked, generator)

    theirs = transforms.Compose(
        [
            transforms.Pad(10),
            transforms.RandomCrop(size),
            transforms.RandomHorizontalFlip(0.5),
            transforms.RandomRotation(5),
            transforms.ColorJitter(brightness=(0.5, 2), contrast=(0.5, 2), saturation=(0.5, 2), hue=0.1),
            lambda turned: occlude(turned, generator),
            transforms.ToTensor(),
        ]
    )
    print("| augmentation | ms per image |\n|---|---|")
    print(f"| ours | {measure(ours, options.repeat):.2f} |")
    print(f"| torchvision's transforms | {measure(lambda: theirs(picture), options.repeat):.2f} |")


def occlude(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """A copy with a white square of up to 0.8 of its shorter side."""
    width, height = image.size
    side = int(generator.integers(1, int(0.8 * min(width, height))))
    left, top = generator.integers(0, width - side + 1), generator.integers(0, height - side + 1)
    occluded = np.array(image)
    occluded[top : top + side, left : left + side] = 255
    return Image.fromarray(occluded)


def measure(change: Callable[[], object], repeat: int) -> float:
    """Milliseconds of processor time of one call."""
    change()
    began = time.process_time()
    for _ in range(repeat):
        change()
    return (time.process_time() - began) / repeat * 1000


if __name__ == "__main__":
    main()
