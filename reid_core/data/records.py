"""Records that go from reading to training and evaluation: one image's, and a data set's three splits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

Split = Literal["train", "query", "gallery"]
SPLITS: tuple[Split, ...] = ("train", "query", "gallery")

Part = Split | Literal["all"]
"""A split, or all of them as one."""

DISTRACTOR = "0000"
"""Market-1501's identity of gallery images that show nobody in `query`; kept in the gallery, a match for no query.

Where it labels images of `query` or `train` it is a person like others.
"""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One crop of one person.

    `identity`, `camera` and `clothes` are labels, any text; the latter two are "" where the data set has none.
    """

    path: Path
    identity: str
    camera: str
    captured_at: datetime | None = None
    frame: int | None = None
    clothes: str = ""
