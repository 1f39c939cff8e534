"""Training images as batches, the same whatever the number of loader processes and wherever a run is resumed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reid_core.data.augmentation import augment, distort
from reid_core.data.preprocessing import Preprocessing, open_image
from reid_core.data.records import ImageRecord
from reid_core.data.tensors import normalise, resize
from reid_core.network import Batch
from reid_core.settings import Augmentation

_MAX_LOADER_PROCESSES = 8


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """Images with their codes: classes 0..C-1 and cameras 0..n-1 (-1 where unknown), both in sorted label order."""

    images: Sequence[ImageRecord]
    identities: np.ndarray
    cameras: np.ndarray

    @property
    def num_classes(self) -> int:
        return int(self.identities.max()) + 1 if len(self.identities) else 0


def number_labels(images: Sequence[ImageRecord]) -> TrainingImages:
    """Numbers identities and cameras from 0 in the order of their labels, which can be any text; no camera is -1."""
    classes = {label: code for code, label in enumerate(sorted({image.identity for image in images}))}
    names = sorted({image.camera for image in images} - {""})
    cameras = {"": -1} | {label: code for code, label in enumerate(names)}
    return TrainingImages(
        images,
        np.array([classes[image.identity] for image in images], dtype=np.int64),
        np.array([cameras[image.camera] for image in images], dtype=np.int64),
    )


Draw = tuple[int, tuple[int, ...]]
"""An image's index and the seed of its augmentation."""


class BatchLoader:
    """Gives the batches of an epoch, from any step on.

    An image's augmentation is drawn from (seed, epoch, step, place in the batch), not from a shared random state, so
    that neither loader processes nor a resumed run change it. Loader processes live as long as the loader.
    """

    def __init__(
        self,
        data: TrainingImages,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        self._seed = seed
        self._device = device
        self._draws: list[list[Draw]] = []
        processes = _num_loader_processes(device)
        self._loader: DataLoader[tuple[Tensor, int, int]] = DataLoader(
            _AugmentedImages(data, preprocessing, augmentation),
            batch_sampler=cast("Iterable[list[int]]", _Draws(self._draws)),
            collate_fn=_collate,
            num_workers=processes,
            persistent_workers=processes > 0,
            multiprocessing_context="spawn" if processes else None,
            pin_memory=device.type == "cuda",
            # Else every epoch's iterator takes a number from the global random state, and a resumed run differs.
            generator=torch.Generator(),
        )

    def load(self, batches: Sequence[Sequence[int]], *, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Batches of the given image indices, on the device, from `first_step` on."""
        draws: list[list[Draw]] = [
            [(index, (self._seed, epoch, step, place)) for place, index in enumerate(batch)]
            for step, batch in enumerate(batches)
        ]
        self._draws[:] = draws[first_step:]
        loaded = (Batch(*map(self._to_device, tensors)) for tensors in self._loader)
        yield from _make_ahead(loaded) if self._loader.num_workers == 0 else loaded

    def _to_device(self, tensor: Tensor) -> Tensor:
        # The loops run fastest on channels-last images, CPU and CUDA alike.
        layout = torch.channels_last if tensor.dim() == 4 else torch.preserve_format
        return tensor.to(self._device, non_blocking=True, memory_format=layout)


class _AugmentedImages(Dataset[tuple[Tensor, int, int]]):
    def __init__(self, data: TrainingImages, preprocessing: Preprocessing, augmentation: Augmentation) -> None:
        self._data, self._preprocessing, self._augmentation = data, preprocessing, augmentation

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int, int]:
        index, seed = draw
        generator = np.random.default_rng(seed)
        image = resize(open_image(self._data.images[index].path), self._preprocessing)
        distorted = distort(image, self._augmentation, generator)
        augmented = augment(normalise(distorted, self._preprocessing), self._augmentation, generator)
        return augmented, int(self._data.identities[index]), int(self._data.cameras[index])


class _Draws:
    def __init__(self, draws: list[list[Draw]]) -> None:
        self._draws = draws

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self._draws)

    def __len__(self) -> int:
        return len(self._draws)


def _make_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, each made in a thread while the one before is in use."""
    with ThreadPoolExecutor(1, "loading") as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


def _collate(samples: list[tuple[Tensor, int, int]]) -> tuple[Tensor, Tensor, Tensor]:
    images, identities, cameras = zip(*samples, strict=True)
    return torch.stack(images), torch.tensor(identities), torch.tensor(cameras)


def _num_loader_processes(device: torch.device) -> int:
    # On a CPU the network itself needs every core but for moments: a thread is enough.
    return min(_MAX_LOADER_PROCESSES, max(1, (os.cpu_count() or 1) - 1)) if device.type == "cuda" else 0
