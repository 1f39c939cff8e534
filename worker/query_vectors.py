"""The vectors that queries of a batch ask by: given, stored in a gallery, or made of an image's file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from reid_core.data.preprocessing import open_image
from reid_core.devices import resolve_device
from reid_core.engines.serving import Served, serve
from reid_core.errors import CoreError
from reid_core.retrieval.directions import to_directions
from service.db.tables import Gallery, GalleryImage
from service.errors import Problem
from service.galleries.encoding import BATCH_SIZE
from service.galleries.files import generation_of
from service.galleries.image_files import find_any_image, image_path
from service.jobs.query_files import FileQuery
from service.settings import Settings

Vector = NDArray[np.float32]


class QueryVectors:
    """Makes vectors as one gallery's model does; the network is loaded when the first file needs it."""

    def __init__(self, settings: Settings, model_id: str, size: int) -> None:
        self._settings = settings
        self._model_id = model_id
        self._size = size

    def read(self, session: Session, queries: Sequence[FileQuery]) -> list[Vector | str]:
        """The unit vector (D,) of each query, or why it has none."""
        found = [self._read(session, query) for query in queries]
        files = [number for number, one in enumerate(found) if isinstance(one, Path)]
        for start in range(0, len(files), BATCH_SIZE):
            numbers = files[start : start + BATCH_SIZE]
            made = self._embedded([path for number in numbers if isinstance(path := found[number], Path)])
            for number, one in zip(numbers, made, strict=True):
                found[number] = one
        return [one if isinstance(one, str) else _directed(one) for one in found if not isinstance(one, Path)]

    def _read(self, session: Session, query: FileQuery) -> Vector | Path | str:
        if query.embedding is not None:
            given = len(query.embedding)
            return query.embedding if given == self._size else f"the embedding has {given} numbers, not {self._size}"
        try:
            return self._stored(session, query.image_id or "")
        except Problem as problem:
            return problem.detail

    def _stored(self, session: Session, image_id: str) -> Vector | Path:
        """The vector that a gallery of the same model has of the image, or else its file."""
        image = find_any_image(session, image_id)
        if isinstance(image, GalleryImage):
            gallery = session.get_one(Gallery, image.gallery_id)
            if gallery.model_id == self._model_id:
                generation = generation_of(session, self._settings, gallery)
                vector: Vector = generation.read([image.position], count=gallery.next_position)[0][0]
                return vector
        return image_path(session, self._settings, image)

    def _embedded(self, paths: Sequence[Path]) -> list[Vector | str]:
        encoder = self._served.encoder
        prepared = [self._prepared(path) for path in paths]
        inputs = [one for one in prepared if not isinstance(one, str)]
        if not inputs:
            return [one for one in prepared if isinstance(one, str)]
        embeddings = iter(encoder.encode_prepared(torch.stack(inputs)).embeddings.numpy())
        return [one if isinstance(one, str) else next(embeddings) for one in prepared]

    def _prepared(self, path: Path) -> torch.Tensor | str:
        try:
            image = open_image(path.read_bytes(), max_pixels=self._settings.max_image_pixels)
        except CoreError as error:
            return error.detail
        return self._served.encoder.prepare(image)

    @cached_property
    def _served(self) -> Served:
        device = resolve_device(self._settings.device)
        return serve(self._settings.models_dir / self._model_id, device, self._settings.engine)


def own_positions(session: Session, gallery_id: str, ids: Sequence[str], stop: int) -> dict[str, int]:
    """The position in the gallery, below `stop`, of each of these images, of galleries or data sets, that it holds."""
    wanted = set(ids)
    columns = select(GalleryImage.id, GalleryImage.dataset_image_id, GalleryImage.position)
    rows = session.execute(
        columns.where(
            GalleryImage.gallery_id == gallery_id,
            GalleryImage.position < stop,
            or_(GalleryImage.id.in_(wanted), GalleryImage.dataset_image_id.in_(wanted)),
        )
    )
    return {str(key if key in wanted else origin): position for key, origin, position in rows}


def _directed(vector: Vector) -> Vector | str:
    directions, has_direction = to_directions(vector[None])
    return directions[0] if has_direction[0] else "the embedding is zero or not finite, so it has no direction"
