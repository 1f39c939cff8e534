"""What a gallery keeps of a picture beside its row: a vector, and where a re-ranker reads those a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from reid_core.retrieval.maps import MapStore, map_bytes
from reid_core.retrieval.store import FeatureStore
from service.db.tables import Gallery, JsonObject
from service.galleries.lifecycle import embedding_size
from service.settings import Settings
from service.vectors import (
    generation_folder,
    open_maps,
    open_or_create_maps,
    open_or_create_store,
    open_store,
    stores_to_erase,
    vector_bytes,
)

Features = tuple[NDArray[np.floating[Any]], ...]
"""Of N pictures: unit vectors (N, D) and, for a gallery that keeps them, maps (N, h * w, c)."""


@dataclass(frozen=True, slots=True)
class Generation:
    """The features of one generation in its files, for whoever holds the gallery's lock.

    `size` is the length of its vectors, `maps` how its maps are kept or None.
    """

    folder: Path
    size: int
    maps: JsonObject | None

    def write(self, position: int, features: Features) -> None:
        """Puts `features` at `position` and after it, into new files where `position` is 0; on disk when it returns."""
        stores: list[FeatureStore | MapStore] = [open_or_create_store(self.folder, self.size, count=position)]
        if self.maps is not None:
            stores.append(open_or_create_maps(self.folder, self.maps, count=position))
        for store, records in zip(stores, features, strict=True):
            store.write(position, records)

    def read(self, positions: Sequence[int], *, count: int) -> Features:
        """The features at `positions`; IndexCorrupt where the files hold those of fewer than `count` pictures."""
        vectors = open_store(self.folder, self.size, count=count).read(positions)
        if self.maps is None:
            return (vectors,)
        return vectors, open_maps(self.folder, self.maps, count=count).read(positions)

    def erase(self, positions: Sequence[int], *, count: int) -> None:
        """Overwrites the features at `positions` with zeros, and all beyond the `count` pictures that the rows know.

        Positions that the files do not have hold nothing, neither have files that are not there.
        """
        for store in stores_to_erase(self.folder, self.size, self.maps):
            # Beyond `count` lies what a crash left of pictures that were never added, or added again.
            there = [position for position in positions if position < len(store)]
            if doomed := [*there, *range(count, len(store))]:
                store.erase(doomed)


def generation_of(session: Session, settings: Settings, gallery: Gallery, *, ahead: int = 0) -> Generation:
    """The generation in use, or with `ahead` 1 the one that is being built."""
    folder = generation_folder(settings, gallery.id, gallery.generation + ahead)
    return Generation(folder, embedding_size(session, gallery), gallery.maps)


def feature_bytes(session: Session, gallery: Gallery) -> int:
    """What the features of one picture take on disk."""
    return vector_bytes(embedding_size(session, gallery)) + (map_bytes(**gallery.maps) if gallery.maps else 0)


def join_features(parts: Sequence[Features]) -> Features:
    """Those of all pictures, in order, from those of at least one batch."""
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
