"""Several data sets as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from reid_core.data.records import ImageRecord


def join_datasets(datasets: Mapping[str, Sequence[ImageRecord]]) -> list[ImageRecord]:
    """The images of the data sets, in their order; identities and cameras of different sets stay different.

    Labels are prefixed by the data set's name; an unknown camera stays unknown. A data set alone keeps its labels.
    """
    if len(datasets) == 1:
        return [image for images in datasets.values() for image in images]
    return [_mark(image, name) for name, images in datasets.items() for image in images]


def _mark(image: ImageRecord, origin: str) -> ImageRecord:
    return replace(
        image,
        identity=f"{origin}/{image.identity}",
        camera=f"{origin}/{image.camera}" if image.camera else "",
    )
