"""Sampling: chooses the images of an epoch's batches.

A sampler is a function from `Epoch` to `Draw`. It has no memory: all randomness comes from the epoch's generator, which
is seeded by (seed, epoch), and the batches drawn are part of a run's checkpoint, so a resumed epoch is the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from reid_core.retrieval.encoder import Encoding

Batches = list[list[int]]
"""Image indices, batch by batch."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """The view that a sampler has of a run when an epoch begins.

    Attributes:
        number: whole epochs since the start of the run.
        identities: (N,) int64 class codes, one per training image.
        generator: of this epoch alone.
        network: as trained so far.
        encode: training images by index, without augmentation, to the embeddings and maps of the network so far.
    """

    number: int
    identities: np.ndarray
    generator: np.random.Generator
    network: nn.Module
    encode: Callable[[Sequence[int]], Encoding]


@dataclass(frozen=True, slots=True)
class Graph:
    """Nearest classes of every class (Liao and Shao 2022, section 4.2): what graph sampling saw in one epoch.

    Attributes:
        images: (C,) index of the image that stood for each class.
        neighbours: (C, n) class codes, nearest first.
        distances: (C, n) to them, smaller is closer.
    """

    images: np.ndarray
    neighbours: np.ndarray
    distances: np.ndarray


@dataclass(frozen=True, slots=True)
class Draw:
    """An epoch's batches: as many steps as the first stream has batches.

    A method that decides at every step which kind of batch comes next has more streams than one, each long enough for
    the whole epoch.
    """

    streams: tuple[Batches, ...]
    graph: Graph | None = None
