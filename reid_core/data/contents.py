"""The contents of a data set: its images by split, and a count of every name that was passed over."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reid_core.data.records import SPLITS, ImageRecord, Split

Images = Mapping[Split, tuple[ImageRecord, ...]]

SAMPLES = 5
"""The number of examples kept of anything that is counted."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """`count` names that were passed over for one reason, and the first of them."""

    count: int
    samples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """A data set as read: nothing is opened yet but names, lists and manifests.

    Attributes:
        format: a key of `FORMATS`.
        variant: which of the format's layouts, e.g. "v2+val"; "" where there is one only.
        confidence: 0 to 1, how well the names fit the format.
        root: the folder that holds the layout, below the registered one if that only wraps it; absolute, no links.
        images: every split, those absent too (empty); in the order of their paths.
        skipped: finding code -> names passed over.
        protocol: what has to be told beside every number measured on this data set.
        read_folders: the folders that were looked into for images.
        distractor: the identity that marks gallery images of nobody in query, "" where the data set has none.
    """

    format: str
    variant: str
    confidence: float
    root: Path
    images: Images
    skipped: Mapping[str, Skipped]
    protocol: Mapping[str, str]
    read_folders: frozenset[Path] = frozenset()
    distractor: str = ""

    def relative(self, path: Path) -> str:
        """The path as seen from `root`, with forward slashes."""
        return Path(os.path.relpath(path, self.root)).as_posix()


@dataclass(slots=True)
class Gathered:
    """Images and skipped names while they are being read."""

    images: dict[Split, list[ImageRecord]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    skipped: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    counted: dict[str, Skipped] = field(default_factory=dict)
    """The findings counted already."""

    def skip(self, code: str, names: Iterable[str]) -> None:
        names = list(names)
        if names:
            self.skipped[code] += names

    def summary(self) -> dict[str, Skipped]:
        counted = {code: Skipped(len(names), tuple(names[:SAMPLES])) for code, names in self.skipped.items()}
        return counted | self.counted
