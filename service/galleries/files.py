"""A gallery's features on disk: a folder per generation that holds vectors, maps and the built index.

`galleries/<gallery id>/<generation>/embeddings`, `maps` and `index-<random>`; the gallery's row says which count.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from reid_core.retrieval.maps import MapStore, map_bytes
from reid_core.retrieval.store import FeatureStore
from service.db.tables import Gallery, JsonObject, Model
from service.settings import Settings

_EMBEDDINGS = "embeddings"
_MAPS = "maps"
_INDEX = "index-"
_FLOAT32 = np.dtype(np.float32)

Features = tuple[NDArray[np.floating[Any]], ...]
"""N images: unit vectors (N, D) and, for a gallery that keeps them, maps (N, h * w, c)."""


def gallery_folder(settings: Settings, gallery_id: str) -> Path:
    """The folder of all that is kept of a gallery beside its rows."""
    return settings.galleries_dir / gallery_id


def generation_folder(settings: Settings, gallery_id: str, generation: int) -> Path:
    """The vectors of one generation; rebuilding a gallery makes the next one."""
    return gallery_folder(settings, gallery_id) / str(generation)


def has_store(folder: Path) -> bool:
    """True if embeddings have been written to `folder`."""
    return (folder / _EMBEDDINGS).exists()


def open_store(folder: Path, size: int, *, count: int) -> FeatureStore:
    """The embeddings in `folder`, `size` numbers each; IndexCorrupt where fewer than `count` are there."""
    return FeatureStore.open(folder / _EMBEDDINGS, (size,), _FLOAT32, count=count)


def stores_to_erase(folder: Path, size: int, kept: Mapping[str, Any] | None) -> list[FeatureStore | MapStore]:
    """The embeddings and maps that lie in `folder`, unread: erasing goes on although their headers are damaged."""
    stores: list[FeatureStore | MapStore] = []
    if has_store(folder):
        stores.append(FeatureStore(folder / _EMBEDDINGS, (size,), _FLOAT32))
    if kept is not None and has_maps(folder):
        stores.append(MapStore.unread(folder / _MAPS, tuple(kept["shape"]), kept["dtype"]))
    return stores


def vector_bytes(size: int) -> int:
    """The size in bytes of one embedding of `size` numbers in its store."""
    return size * _FLOAT32.itemsize


def open_or_create_store(folder: Path, size: int, *, count: int) -> FeatureStore:
    """Opens the store as `open_store`, or makes an empty one where nothing has been written yet (`count` is 0)."""
    if count == 0 and not has_store(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return FeatureStore.create(folder / _EMBEDDINGS, (size,), _FLOAT32)
    return open_store(folder, size, count=count)


def has_maps(folder: Path) -> bool:
    """True if maps have been written to `folder`."""
    return (folder / _MAPS).exists()


def open_maps(folder: Path, kept: Mapping[str, Any], *, count: int) -> MapStore:
    """The maps in `folder`, `kept` ({dtype, shape}) as the gallery's row says; IndexCorrupt without `count` of them."""
    return MapStore.open(folder / _MAPS, tuple(kept["shape"]), kept["dtype"], count=count)


def open_or_create_maps(folder: Path, kept: Mapping[str, Any], *, count: int) -> MapStore:
    """Opens the maps as `open_maps`, or makes an empty store where nothing has been written yet (`count` is 0)."""
    if count == 0 and not has_maps(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return MapStore.create(folder / _MAPS, tuple(kept["shape"]), kept["dtype"])
    return open_maps(folder, kept, count=count)


def save_index_file(folder: Path, kind: str, index: Any) -> dict[str, Any]:
    """Writes `index` under a fresh name; what the gallery's row keeps of it: kind, file, sha256, images, parameters."""
    # Brings FAISS, which workers and a start do without.
    from reid_core.retrieval.index import parameters_of, save_index

    name = f"{_INDEX}{secrets.token_hex(8)}"
    return {
        "kind": kind,
        "file": name,
        "sha256": save_index(index, folder / name),
        "images": int(index.ntotal),
        "parameters": parameters_of(index),
    }


def index_path(folder: Path, entry: Mapping[str, Any]) -> Path:
    """The path of the index that `entry` describes."""
    return folder / str(entry["file"])


def load_index_file(folder: Path, entry: Mapping[str, Any]) -> Any:
    """The index that `entry` describes; IndexCorrupt where it is missing or damaged."""
    from reid_core.retrieval.index import load_index

    return load_index(index_path(folder, entry), entry["sha256"])


def save_erased_index(folder: Path, entry: Mapping[str, Any], positions: Sequence[int]) -> dict[str, Any]:
    """A copy of the index that `entry` describes, in which the vectors at `positions` are zeros, under a new name."""
    from reid_core.retrieval.index import erase_vectors

    index = load_index_file(folder, entry)
    erase_vectors(index, np.array(positions, np.int64))
    return {**entry, **save_index_file(folder, entry["kind"], index)}


def delete_index_files(folder: Path, *, but: Mapping[str, Any] | None) -> int:
    """Removes every index in `folder`, half-written ones too, but the one that `but` describes; how many those were."""
    doomed = [
        path
        for path in folder.glob("*")
        if path.name.lstrip(".").startswith(_INDEX) and (but is None or path.name != but["file"])
    ]
    for path in doomed:
        path.unlink(missing_ok=True)
    return len(doomed)


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
        """The features at `positions`; IndexCorrupt where the files hold those of fewer than `count` images."""
        vectors = open_store(self.folder, self.size, count=count).read(positions)
        if self.maps is None:
            return (vectors,)
        return vectors, open_maps(self.folder, self.maps, count=count).read(positions)

    def erase(self, positions: Sequence[int], *, count: int) -> None:
        """Overwrites the features at `positions` with zeros, and all beyond the `count` images that the rows know.

        Positions that the files do not have hold nothing, neither have files that are not there.
        """
        for store in stores_to_erase(self.folder, self.size, self.maps):
            # Beyond `count` lies what a crash left of images that were never added, or added again.
            there = [position for position in positions if position < len(store)]
            if doomed := [*there, *range(count, len(store))]:
                store.erase(doomed)


def generation_of(session: Session, settings: Settings, gallery: Gallery, *, ahead: int = 0) -> Generation:
    """The generation in use, or with `ahead` 1 the one that is being built."""
    folder = generation_folder(settings, gallery.id, gallery.generation + ahead)
    return Generation(folder, embedding_size(session, gallery), gallery.maps)


def feature_bytes(session: Session, gallery: Gallery) -> int:
    """The size in bytes of one image's features on disk."""
    return vector_bytes(embedding_size(session, gallery)) + (map_bytes(**gallery.maps) if gallery.maps else 0)


def join_features(parts: Sequence[Features]) -> Features:
    """Joins the features of at least one batch, in order."""
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def embedding_size(session: Session, gallery: Gallery) -> int:
    """The number of dimensions of the gallery's embeddings."""
    return session.get_one(Model, gallery.model_id).embedding_size
