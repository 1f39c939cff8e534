"""Several data sets as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from reid_core.data.records import Picture


def join(datasets: Mapping[str, Sequence[Picture]]) -> list[Picture]:
    """The pictures of the data sets, in their order; identities and cameras of different sets stay different.

    Labels are prefixed by the data set's name; an unknown camera stays unknown. A data set alone keeps its labels.
    """
    if len(datasets) == 1:
        return [picture for pictures in datasets.values() for picture in pictures]
    return [_mark(picture, name) for name, pictures in datasets.items() for picture in pictures]


def _mark(picture: Picture, origin: str) -> Picture:
    return replace(
        picture,
        identity=f"{origin}/{picture.identity}",
        camera=f"{origin}/{picture.camera}" if picture.camera else "",
    )
