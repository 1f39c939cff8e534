"""Errors that a user of the core can mend: each says what is wrong, with both values, and the way out.

CoreError
├── SettingsError      a setting is unknown or out of range (carries JSON pointers)
├── DatasetError       the images cannot be used as asked
├── ImageError       a file is not an image we can decode
│   └── ImageTooLarge   it has more pixels than are decoded
├── WeightsError       a weights file does not fit or cannot be had
├── TrainingDiverged   a loss or gradient is not finite
├── OutOfMemory        the device is too small for the batch
├── ExportFailed       a model cannot be written for another runtime, or differs there
└── IndexCorrupt       a stored file fails its checksum or is truncated
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class CoreError(Exception):
    """Base of the family. `slug` names the kind of problem, `detail` what happened, `hint` what to do about it."""

    slug = "unprocessable"

    def __init__(self, detail: str, *, hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Fault:
    """One wrong value: `pointer` is a JSON pointer into the settings, `code` a stable word, `message` for a person."""

    pointer: str
    code: str
    message: str


class Stopped(Exception):
    """Work was asked to stop and did; what it needs to go on is saved."""


class SettingsError(CoreError):
    slug = "invalid-settings"

    def __init__(self, detail: str, *, faults: Sequence[Fault], hint: str = "") -> None:
        super().__init__(detail, hint=hint)
        self.faults = tuple(faults)


class DatasetError(CoreError):
    slug = "invalid-dataset"


class ImageError(CoreError):
    slug = "invalid-picture"


class ImageTooLarge(ImageError):
    slug = "too-large"


class WeightsError(CoreError):
    slug = "weights-unusable"


class TrainingDiverged(CoreError):
    slug = "training-diverged"


class OutOfMemory(CoreError):
    slug = "out-of-memory"


class ExportFailed(CoreError):
    slug = "export-failed"


class IndexCorrupt(CoreError):
    slug = "index-corrupt"
