"""Identities and cameras of query and gallery images as codes, and what of the gallery counts for a query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid_core.data.records import DISTRACTOR, ImageRecord
from reid_core.errors import DatasetError

Integers = NDArray[np.int64]

NOBODY = -1
"""Identity code of distractors: a match for no query."""

UNKNOWN_CAMERA = -1
"""Camera code of images without a camera: never removed as taken by the query's own camera."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The identities and cameras of N images: (N,) int64 codes, shared by query and gallery."""

    identities: Integers
    cameras: Integers

    def __len__(self) -> int:
        return len(self.identities)


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Gallery indices for one query: its matches, and what its own camera took of its person."""

    matches: Integers
    removed: Integers


def encode_labels(query: Sequence[ImageRecord], gallery: Sequence[ImageRecord]) -> tuple[Labels, Labels]:
    """The labels of both splits in codes that mean the same in either.

    The label of distractors is a person's where a query bears it, as in data sets that count people from 0000.
    """
    identities = {} if any(image.identity == DISTRACTOR for image in query) else {DISTRACTOR: NOBODY}
    cameras = {"": UNKNOWN_CAMERA}
    return _encode(query, identities, cameras), _encode(gallery, identities, cameras)


def find_targets(query: Labels, gallery: Labels) -> list[Targets]:
    """The targets of each query, in their order. Raises DatasetError where no query has a match."""
    order = np.argsort(gallery.identities)
    identities, cameras = gallery.identities[order], gallery.cameras[order]
    starts = np.searchsorted(identities, query.identities)
    stops = np.where(query.identities == NOBODY, starts, np.searchsorted(identities, query.identities, side="right"))
    targets = []
    for start, stop, camera in zip(starts.tolist(), stops.tolist(), query.cameras.tolist(), strict=True):
        same_person, same_camera = order[start:stop], cameras[start:stop] == camera
        if camera == UNKNOWN_CAMERA:
            same_camera[:] = False
        targets.append(Targets(same_person[~same_camera], same_person[same_camera]))
    if not any(len(target.matches) for target in targets):
        raise _no_match(targets)
    return targets


def _encode(images: Sequence[ImageRecord], identities: dict[str, int], cameras: dict[str, int]) -> Labels:
    return Labels(
        np.array([identities.setdefault(image.identity, len(identities)) for image in images], dtype=np.int64),
        np.array([cameras.setdefault(image.camera, len(cameras)) for image in images], dtype=np.int64),
    )


def _no_match(targets: list[Targets]) -> DatasetError:
    if any(len(target.removed) for target in targets):
        return DatasetError(
            f"None of {len(targets)} queries has a match: the gallery shows their people only on the query's own "
            "camera, and those images do not count.",
            hint="Add gallery images from another camera, or leave the camera empty if all come from one.",
        )
    return DatasetError(
        f"None of {len(targets)} queries has a match: no person is in both query and gallery.",
        hint="Label the same person with the same identity in both splits; 0000 means distractor and matches nobody.",
    )
