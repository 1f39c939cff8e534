"""A gallery's embeddings with what is known of each image, page by page, while images come and go."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from reid_core.retrieval.columns import write_embeddings
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.galleries.files import embedding_size, generation_of
from service.galleries.reading import read_current
from service.settings import Settings

_ROWS_AT_ONCE = 1000
_TEXTS = ("identity", "camera", "external_id")

Page = tuple[Sequence[GalleryImage], NDArray[np.float32]]
"""N images and their vectors (N, D)."""


class EmbeddingExport:
    """The images that the gallery has now, in the order in which they came; those erased meanwhile are left out.

    Raises the 404 problem of an unknown gallery.
    """

    def __init__(self, database: Database, settings: Settings, gallery_key: str) -> None:
        self._database = database
        self._settings = settings
        with database.read() as session:
            gallery = find(session, Gallery, gallery_key)
            self.gallery_id, self._size = gallery.id, embedding_size(session, gallery)
            of_gallery = GalleryImage.gallery_id == gallery.id
            self._revision = gallery.revision
            self.count: int = session.scalars(select(func.count()).where(of_gallery)).one()

    def parquet(self) -> Iterator[bytes]:
        """A Parquet file, a row group for each page."""
        sink = _Sink()
        with pyarrow.parquet.ParquetWriter(pyarrow.PythonFile(sink, mode="w"), self._schema) as writer:
            for images, vectors in self._pages():
                writer.write_table(self._table(images, vectors))
                yield sink.take()
        yield sink.take()

    def npy(self) -> Iterator[bytes]:
        """A NumPy file, float32 (N, D); shorter than its header says where images are erased meanwhile."""
        header = io.BytesIO()
        described = {"descr": "<f4", "fortran_order": False, "shape": (self.count, self._size)}
        np.lib.format.write_array_header_1_0(header, described)
        yield header.getvalue()
        for _, vectors in self._pages():
            yield vectors.astype("<f4", copy=False).tobytes()

    def npy_bytes(self) -> int:
        """The length of the NumPy file."""
        return len(next(self.npy())) + 4 * self.count * self._size

    def _pages(self) -> Iterator[Page]:
        after = ""
        while self.count:
            images, vectors = self._page(after)
            if not images:
                return
            after = images[-1].id
            # Zeros are what an erasure leaves.
            there = np.asarray(vectors.any(axis=1))
            yield [image for image, is_there in zip(images, there, strict=True) if is_there], vectors[there]

    def _page(self, after: str) -> Page:
        """The next images, in a session of its own: one that stays open would hold up erasures."""
        wanted = select(GalleryImage).where(
            GalleryImage.gallery_id == self.gallery_id,
            GalleryImage.id > after,
            # Not by the last id: an upload gives its images ids before it waits for the gallery.
            GalleryImage.added_revision <= self._revision,
        )

        def read(session: Session, gallery: Gallery) -> Page:
            images = session.scalars(wanted.order_by(GalleryImage.id).limit(_ROWS_AT_ONCE)).all()
            positions = [image.position for image in images]
            generation = generation_of(session, self._settings, gallery)
            vectors = generation.read(positions, count=gallery.next_position)[0]
            return images, vectors.astype(np.float32, copy=False)

        return read_current(self._database, self.gallery_id, read)

    @property
    def _schema(self) -> Any:
        return pyarrow.schema(
            [
                ("image_id", pyarrow.string()),
                *((name, pyarrow.string()) for name in _TEXTS),
                ("captured_at", pyarrow.timestamp("us", tz="UTC")),
                ("embedding", pyarrow.list_(pyarrow.float32(), self._size)),
            ]
        )

    def _table(self, images: Sequence[GalleryImage], vectors: NDArray[np.float32]) -> Any:
        columns = [
            [image.id for image in images],
            *([getattr(image, name) for image in images] for name in _TEXTS),
            [image.captured_at for image in images],
            write_embeddings(vectors),
        ]
        return pyarrow.table(
            [
                pyarrow.array(column, field.type) if isinstance(column, list) else column
                for column, field in zip(columns, self._schema, strict=True)
            ],
            schema=self._schema,
        )


class _Sink(io.RawIOBase):
    """Collects what is written until it is taken."""

    def __init__(self) -> None:
        self._held, self._taken = bytearray(), 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._held += content
        return len(content)

    def tell(self) -> int:
        return self._taken + len(self._held)

    def take(self) -> bytes:
        """Takes the bytes that were written since the last time."""
        taken = bytes(self._held)
        self._taken += len(taken)
        self._held.clear()
        return taken
