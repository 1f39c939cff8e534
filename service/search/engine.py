"""The search engine of an API process: loaded models, a snapshot per gallery, and the way from query to answer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from sqlalchemy import select

from reid_core.errors import Fault
from reid_core.retrieval.index import set_threads
from service.db import audit
from service.db.ids import new_id
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage, Model
from service.errors import Problem
from service.pictures import decode_upload, find_picture, missing_picture, picture_path
from service.search.answer import Answer, Hit, Stopwatch
from service.search.batching import Batcher
from service.search.encoders import Encoders, SharedEncoder
from service.search.fusion import best_scores, mean_direction, unit
from service.search.queries import EmbeddingQuery, Query, StoredQuery
from service.search.snapshots import Loaded, Snapshots
from service.settings import Settings

_ATTEMPTS = 20
"""How often a search starts over because what it found was erased before it could be shown."""


class Engine:
    """Made when the process starts, closed when it ends; every method may be called from any thread."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._batcher = Batcher()
        self._encoders = Encoders(settings, self._batcher)
        self._snapshots = Snapshots(database, settings)
        threads = settings.threads or os.cpu_count() or 1
        torch.set_num_threads(threads)
        # As many searches at a time as there are cores, each in one thread: FAISS gains nothing from more.
        self._searchers = ThreadPoolExecutor(threads, "search", initializer=set_threads, initargs=(1,))

    def close(self) -> None:
        """Ends the threads, after what they are doing."""
        self._searchers.shutdown()
        self._batcher.close()

    def encoder(self, model_id: str) -> SharedEncoder:
        """What embeds pictures by that model, together with those of other requests."""
        return self._encoders.get(model_id)

    def search(self, query: Query, pictures: Sequence[bytes] = (), *, key_id: str | None) -> Answer:
        """The answer to `query`; `pictures` are the files of a PictureQuery.

        Raises:
            Problem: 404 for an unknown gallery or picture, 410 for an erased one, 409 for a gallery without pictures,
                413 and 415 for files that cannot be taken, 422 for what is impossible.
        """
        watch = Stopwatch()
        gallery = self._open(query)
        vectors = self._vectors(query, pictures, gallery, watch)
        with watch.stage("retrieve"):
            loaded, hits = self._retrieve(query, gallery.id, vectors)
        answer = Answer(
            search_id=new_id("search"),
            gallery=gallery.id,
            revision=loaded.revision,
            model=gallery.model_id,
            reranker=gallery.reranker_id,
            rerank=query.rerank,
            timings_ms=watch.timings_ms(),
            hits=hits,
        )
        with self._database.write() as session:
            audit.record(session, key_id=key_id, action="search", target=gallery.id, search_id=answer.search_id)
        return answer

    def _open(self, query: Query) -> Gallery:
        """The gallery, if it can be searched as asked."""
        with self._database.read() as session:
            gallery = find(session, Gallery, query.gallery)
        _refuse_impossible(query, gallery, self._settings)
        if gallery.images == 0:
            raise Problem(
                "no-index",
                f"gallery {gallery.name!r} holds no pictures yet",
                hint=f"add some: POST /galleries/{gallery.id}/images",
            )
        return gallery

    def _vectors(
        self, query: Query, pictures: Sequence[bytes], gallery: Gallery, watch: Stopwatch
    ) -> NDArray[np.float32]:
        """The query's unit vectors (B, D), fused to one unless the best score counts."""
        if isinstance(query, StoredQuery):
            return self._stored_vector(query.image_id, gallery, watch)
        if isinstance(query, EmbeddingQuery):
            return unit(self._checked(query.embedding, gallery))
        vectors = self._embed(pictures, gallery, watch)
        return vectors if query.fusion == "max" else mean_direction(vectors)

    def _stored_vector(self, image_id: str, gallery: Gallery, watch: Stopwatch) -> NDArray[np.float32]:
        """The vector of a picture by its id: the stored one if it is this gallery's, or else from its file."""
        with self._database.read() as session:
            picture = find_picture(session, image_id)
            own = isinstance(picture, GalleryImage) and picture.gallery_id == gallery.id
            path = None if own else picture_path(session, self._settings, picture)
        if path is not None:
            return self._embed([path.read_bytes()], gallery, watch)
        with watch.stage("retrieve"):
            return self._own_vector(image_id, gallery.id)

    def _own_vector(self, image_id: str, gallery_id: str) -> NDArray[np.float32]:
        vector = np.zeros((1, 1), np.float32)
        for _ in range(_ATTEMPTS):
            loaded = self._snapshots.current(gallery_id)
            with self._database.read() as session:
                image = session.get(GalleryImage, image_id)
                if image is None:
                    raise missing_picture(session, image_id)
                generation = session.get_one(Gallery, gallery_id).generation
            # A rebuild may have renumbered the pictures, or an erasure zeroed this one, since the snapshot was taken.
            if generation == loaded.generation and image.position < len(loaded.snapshot):
                vector = loaded.snapshot.store.read([image.position])
                if vector.any():
                    break
        return unit(vector)

    def _embed(self, contents: Sequence[bytes], gallery: Gallery, watch: Stopwatch) -> NDArray[np.float32]:
        encoder = self.encoder(gallery.model_id)
        with watch.stage("decode"):
            prepared = [
                encoder.prepare(decode_upload(content, f"picture {number}", self._settings)[0])
                for number, content in enumerate(contents, 1)
            ]
        with watch.stage("embed"):
            return unit(encoder.embed_prepared(torch.stack(prepared)).numpy())

    def _checked(self, embedding: Sequence[float], gallery: Gallery) -> NDArray[np.float64]:
        with self._database.read() as session:
            size = session.get_one(Model, gallery.model_id).embedding_size
        if len(embedding) != size:
            message = f"the gallery's model makes embeddings of {size} numbers, this one has {len(embedding)}"
            raise _impossible("/embedding", "wrong-size", message, hint="embed the picture with the gallery's model")
        return np.array([embedding])

    def _retrieve(self, query: Query, gallery_id: str, vectors: NDArray[np.float32]) -> tuple[Loaded, tuple[Hit, ...]]:
        """The hits, and the revision of the gallery that they were found in."""
        for _ in range(_ATTEMPTS):
            loaded = self._snapshots.current(gallery_id)
            ranking = self._searchers.submit(_rank, loaded, query, vectors).result()
            images = self._images(gallery_id, loaded, [position for position, _ in ranking])
            if images is not None:
                return loaded, _hits(query, ranking, images)
        raise Problem("unavailable", "the gallery is changing too fast just now", headers={"Retry-After": "1"})

    def _images(self, gallery_id: str, loaded: Loaded, positions: Sequence[int]) -> dict[int, GalleryImage] | None:
        """The rows at `positions` of the snapshot; None if they were renumbered or one was erased since then."""
        with self._database.read() as session:
            generation = session.scalar(select(Gallery.generation).where(Gallery.id == gallery_id))
            wanted = select(GalleryImage).where(
                GalleryImage.gallery_id == gallery_id, GalleryImage.position.in_(positions)
            )
            images = {image.position: image for image in session.scalars(wanted)}
        return images if generation == loaded.generation and len(images) == len(positions) else None


def _rank(loaded: Loaded, query: Query, vectors: NDArray[np.float32]) -> list[tuple[int, float]]:
    """Positions and scores, best first; one more than asked for, in case the query itself is left out."""
    snapshot = loaded.snapshot
    k = query.top_k + 1
    scores, positions = snapshot.search(vectors, k, keep=snapshot.keep(query.filters))
    best, places = best_scores(scores, positions, k)
    return list(zip(places.tolist(), best.clip(-1, 1).tolist(), strict=True))


def _hits(query: Query, ranking: Sequence[tuple[int, float]], images: dict[int, GalleryImage]) -> tuple[Hit, ...]:
    found = [(images[position], score) for position, score in ranking]
    if isinstance(query, StoredQuery) and query.exclude_self:
        found = [pair for pair in found if query.image_id not in (pair[0].id, pair[0].dataset_image_id)]
    if query.min_score is not None:
        found = [pair for pair in found if pair[1] >= query.min_score]
    return tuple(Hit(image, score, score, rank) for rank, (image, score) in enumerate(found[: query.top_k], 1))


def _refuse_impossible(query: Query, gallery: Gallery, settings: Settings) -> None:
    """Raises 422 for limits that are exceeded, and for what no method of this version can do."""
    for name in ("top_k", "candidates"):
        value: int = getattr(query, name)
        if value > settings.max_top_k:
            message = f"{name} is {value}, at most {settings.max_top_k} are allowed"
            raise _impossible(
                f"{query.pointer}/{name}", "too-large", message, hint="ask for less, or raise REID_MAX_TOP_K"
            )
    if query.rerank == "qaconv" and gallery.reranker_id is None:
        message = f"gallery {gallery.name!r} has no reranker"
        hint = "use rerank=none, or a gallery that was made with a `reranker`"
        raise _impossible(f"{query.pointer}/rerank", "no-reranker", message, hint=hint)
    if query.rerank != "none":
        message = f"this version cannot re-rank by {query.rerank}"
        raise _impossible(f"{query.pointer}/rerank", "not-available", message, hint="use rerank=none")
    if query.explain:
        message = "the gallery's model cannot explain its scores"
        raise _impossible(f"{query.pointer}/explain", "cannot-explain", message, hint="leave explain out")


def _impossible(pointer: str, code: str, message: str, *, hint: str) -> Problem:
    return Problem("invalid-request", message, hint=hint, errors=[Fault(pointer, code, message)])
