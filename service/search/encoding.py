"""Encoding a query: embeddings and, for matching, local features of its images, as the gallery's models see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session
from torch import Tensor

from reid_core.errors import CoreError, IndexCorrupt
from reid_core.matching import FoldedHead
from reid_core.retrieval.store import REBUILD
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.decoding import Decoder
from service.errors import Problem, problem_from_core
from service.galleries.image_files import find_any_image, image_path, missing_image
from service.search.batching import MAX_IMAGES
from service.search.examples import NO_EXAMPLES, ExampleFiles, steer
from service.search.fusion import mean_direction, unit
from service.search.models import Encoders, SharedEncoder
from service.search.queries import impossible
from service.search.rows import SearchedGallery
from service.search.schemas import EmbeddingQuery, ImageQuery, Query, StoredQuery
from service.search.snapshots import OpenGallery, Snapshots
from service.search.timing import SearchTimer
from service.settings import Settings

ATTEMPTS = 20
"""Times that a search starts over because the gallery has changed under it."""

Size = tuple[int, int]

Content = Callable[[], bytes]
"""Reads a file when it is its turn."""


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """P images as the gallery's reranker sees them, and how it scores pairs.

    Attributes:
        maps: (P, h * w, c) floating, where the head is.
        sizes: width and height of each image in pixels.
        grid: h and w.
    """

    maps: Tensor
    sizes: tuple[Size, ...]
    head: FoldedHead
    grid: Size


@dataclass(frozen=True, slots=True, eq=False)
class EncodedQuery:
    """Images of one person, or an embedding.

    Attributes:
        vectors: (V, D) float32 of unit length by the gallery's model, one for each image or their mean.
        matching: None where maps are not needed.
        fusion: what the scores of several images come to.
    """

    vectors: NDArray[np.float32]
    matching: Matching | None = None
    fusion: Literal["mean", "max"] = "mean"

    def need_matching(self) -> Matching:
        """`matching`, for what is only asked for where `Query.needs_maps` says so."""
        if self.matching is None:
            raise TypeError("the query was encoded without local features")
        return self.matching


class QueryEncoder:
    """Encodes queries with their galleries' models. Threads may share it."""

    def __init__(
        self, database: Database, settings: Settings, encoders: Encoders, snapshots: Snapshots, decoder: Decoder
    ) -> None:
        self._database = database
        self._settings = settings
        self._decoder = decoder
        self._encoders = encoders
        self._snapshots = snapshots

    def encode(
        self,
        query: Query,
        images: Sequence[bytes],
        gallery: SearchedGallery,
        timer: SearchTimer,
        examples: ExampleFiles = NO_EXAMPLES,
    ) -> EncodedQuery:
        """Encodes `query` as its gallery compares it; `images` are the files of an ImageQuery.

        Examples move its vectors; a matcher sees the query's own images alone.

        Raises:
            Problem: 404 for an unknown image, 410 for an erased one, 413 and 415 for files that cannot be taken, 422
                for an embedding of another size or without a direction.
        """
        encoded = self._own_images(query, images, gallery, timer)
        if not (query.positive or query.negative or examples.positive or examples.negative):
            return encoded
        positive = self._examples(query.positive, examples.positive, gallery, timer)
        negative = self._examples(query.negative, examples.negative, gallery, timer)
        return replace(encoded, vectors=steer(encoded.vectors, positive, negative))

    def _examples(
        self, ids: Sequence[str], files: Sequence[bytes], gallery: SearchedGallery, timer: SearchTimer
    ) -> NDArray[np.float32]:
        """(N, D) embeddings of stored images and of files."""
        vectors = [np.empty((0, gallery.embedding_size), np.float32)]
        for image_id in ids:
            vectors.append(self._stored(StoredQuery(gallery=gallery.id, image_id=image_id), gallery, timer).vectors)
        if files:
            vectors.append(self._encoded(files, ImageQuery(gallery=gallery.id), gallery, timer).vectors)
        return np.concatenate(vectors)

    def _own_images(
        self, query: Query, images: Sequence[bytes], gallery: SearchedGallery, timer: SearchTimer
    ) -> EncodedQuery:
        if isinstance(query, StoredQuery):
            return self._stored(query, gallery, timer)
        if isinstance(query, EmbeddingQuery):
            return EncodedQuery(unit(self._checked(query, gallery)))
        encoded = self._encoded(images, query, gallery, timer)
        vectors = encoded.vectors if query.fusion == "max" else mean_direction(encoded.vectors)
        return replace(encoded, vectors=vectors, fusion=query.fusion)

    def encode_each(
        self, contents: Sequence[Content], query: Query, gallery: SearchedGallery, timer: SearchTimer
    ) -> list[EncodedQuery | Problem]:
        """Encodes each of `contents` as a query like `query`; one that cannot be taken gives its problem.

        As many files are held decoded as the networks take at a time.
        """
        encoded: list[EncodedQuery | Problem] = []
        for start in range(0, len(contents), MAX_IMAGES):
            encoded += self._encode_some(contents[start : start + MAX_IMAGES], query, gallery, timer)
        return encoded

    def file_of(self, session: Session, query: StoredQuery, gallery: SearchedGallery) -> Path | None:
        """The image's file; None for an image of this gallery, which is known by what is stored of it."""
        image = find_any_image(session, query.image_id)
        own = isinstance(image, GalleryImage) and image.gallery_id == gallery.id
        return None if own else image_path(session, self._settings, image)

    def _stored(self, query: StoredQuery, gallery: SearchedGallery, timer: SearchTimer) -> EncodedQuery:
        """By what is stored of the image if it is this gallery's, or else by its file."""
        with self._database.read() as session:
            path = self.file_of(session, query, gallery)
        if path is not None:
            return self._encoded([path.read_bytes()], query, gallery, timer)
        with timer.stage("retrieve"):
            return self._own(query, gallery)

    def _own(self, query: StoredQuery, gallery: SearchedGallery) -> EncodedQuery:
        for _ in range(ATTEMPTS):
            opened = self._snapshots.current(gallery.id)
            with self._database.read() as session:
                image = session.get(GalleryImage, query.image_id)
                if image is None:
                    raise missing_image(session, query.image_id)
                generation = session.scalar(select(Gallery.generation).where(Gallery.id == gallery.id))
            # A rebuild may have renumbered the images, or an erasure zeroed this one, since the snapshot was taken.
            if generation == opened.generation and image.position < len(opened.snapshot):
                vectors = opened.snapshot.store.read([image.position])
                if vectors.any():
                    return self._stored_features(vectors, query, image, gallery, opened)
                if self._stands(image, generation):
                    raise IndexCorrupt(f"The vector of image {image.id!r} is lost.", hint=f"{REBUILD}, or delete it.")
        raise changing_too_fast()

    def _stands(self, image: GalleryImage, generation: int | None) -> bool:
        """True if the image is still where it was, neither erased nor moved by a rebuild."""
        with self._database.read() as session:
            now = session.get(GalleryImage, image.id)
            gallery = session.get(Gallery, image.gallery_id)
            return now is not None and gallery is not None and gallery.generation == generation

    def _stored_features(
        self,
        vectors: NDArray[np.float32],
        query: Query,
        image: GalleryImage,
        gallery: SearchedGallery,
        opened: OpenGallery,
    ) -> EncodedQuery:
        if not query.needs_maps:
            return EncodedQuery(unit(vectors))
        maps = read_maps(opened, [image.position])
        return EncodedQuery(unit(vectors), self._matching(maps, ((image.width, image.height),), gallery))

    def stored(
        self,
        gallery: SearchedGallery,
        opened: OpenGallery,
        position: int,
        *,
        with_maps: bool,
        size: Size = (0, 0),
    ) -> EncodedQuery:
        """The stored features of the image at `position`, as a query; its `size` in pixels is for explanations."""
        vectors = unit(opened.snapshot.store.read([position]))
        if not with_maps:
            return EncodedQuery(vectors)
        return EncodedQuery(vectors, self._matching(read_maps(opened, [position]), (size,), gallery))

    def _encoded(
        self, contents: Sequence[bytes], query: Query, gallery: SearchedGallery, timer: SearchTimer
    ) -> EncodedQuery:
        """By files, each through the gallery's model and its reranker: one pass where these are the same."""
        models = self._models(query, gallery)
        with timer.stage("decode"):
            sizes, inputs = self._prepared(contents, list(models.values()))
        return self._embedded(models, sizes, inputs, query, gallery, timer)

    def _encode_some(
        self, contents: Sequence[Content], query: Query, gallery: SearchedGallery, timer: SearchTimer
    ) -> list[EncodedQuery | Problem]:
        models = self._models(query, gallery)
        with timer.stage("decode"):
            prepared = [self._prepared_or_problem(content, list(models.values())) for content in contents]
        good = [one for one in prepared if not isinstance(one, Problem)]
        if not good:
            return [one for one in prepared if isinstance(one, Problem)]
        sizes = tuple(size for (size,), _ in good)
        inputs = [torch.cat(column) for column in zip(*(inputs for _, inputs in good), strict=True)]
        single = iter(_apart(self._embedded(models, sizes, inputs, query, gallery, timer)))
        return [one if isinstance(one, Problem) else next(single) for one in prepared]

    def _models(self, query: Query, gallery: SearchedGallery) -> dict[str, SharedEncoder]:
        """The gallery's model, and its reranker where maps are needed."""
        reranker_id = gallery.reranker_id if query.needs_maps else None
        return {key: self._encoders.get(key) for key in (gallery.model_id, reranker_id) if key is not None}

    def _embedded(
        self,
        models: Mapping[str, SharedEncoder],
        sizes: tuple[Size, ...],
        inputs: Sequence[Tensor],
        query: Query,
        gallery: SearchedGallery,
        timer: SearchTimer,
    ) -> EncodedQuery:
        reranker_id = gallery.reranker_id if query.needs_maps else None
        with timer.stage("embed"):
            encoded = {
                key: model.encode_prepared(prepared, with_maps=key == reranker_id)
                for (key, model), prepared in zip(models.items(), inputs, strict=True)
            }
        maps = encoded[reranker_id].maps if reranker_id is not None else None
        matching = None if maps is None else self._matching(maps.flatten(1, 2), sizes, gallery)
        return EncodedQuery(unit(encoded[gallery.model_id].embeddings.numpy()), matching)

    def _matching(self, maps: Tensor, sizes: tuple[Size, ...], gallery: SearchedGallery) -> Matching:
        head = self._encoders.get(gallery.reranker_id).head if gallery.reranker_id is not None else None
        if head is None or gallery.maps is None:
            raise IndexCorrupt(f"Gallery {gallery.name!r} has no maps to match with.", hint=REBUILD)
        height, width, _ = gallery.maps["shape"]
        return Matching(maps.to(head.weights.device), sizes, head, (height, width))

    def _prepared(
        self, contents: Sequence[bytes], models: Sequence[SharedEncoder]
    ) -> tuple[tuple[Size, ...], list[Tensor]]:
        """The images' sizes, and for every model all of them as it takes them: (P, 3, H, W) uint8.

        One after the other: no more than one of them is held in full.
        """
        sizes: list[Size] = []
        prepared: list[list[Tensor]] = [[] for _ in models]
        for number, content in enumerate(contents, 1):
            with self._decoder.opened(content, f"image {number}") as image:
                sizes.append(image.image.size)
                for model, inputs in zip(models, prepared, strict=True):
                    inputs.append(model.prepare(image.image))
        return tuple(sizes), [torch.stack(inputs) for inputs in prepared]

    def _prepared_or_problem(
        self, content: Content, models: Sequence[SharedEncoder]
    ) -> tuple[tuple[Size, ...], list[Tensor]] | Problem:
        try:
            return self._prepared([content()], models)
        except Problem as problem:
            return problem
        except CoreError as error:
            return problem_from_core(error)

    def _checked(self, query: EmbeddingQuery, gallery: SearchedGallery) -> NDArray[np.float64]:
        size, given = gallery.embedding_size, len(query.embedding)
        if given != size:
            message = f"the gallery's model makes embeddings of {size} numbers, this one has {given}"
            hint = "Embed the image with the gallery's model."
            raise impossible(query, "embedding", "wrong-size", message, hint=hint)
        return np.array([query.embedding])


def _apart(encoded: EncodedQuery) -> list[EncodedQuery]:
    """Each image of the query as a query of its own."""
    matching = encoded.matching
    return [
        EncodedQuery(
            encoded.vectors[place : place + 1],
            matching
            and replace(matching, maps=matching.maps[place : place + 1], sizes=matching.sizes[place : place + 1]),
        )
        for place in range(len(encoded.vectors))
    ]


def read_maps(opened: OpenGallery, positions: Sequence[int]) -> Tensor:
    """(n, h * w, c) maps of the gallery's images at `positions`; raises IndexCorrupt where it keeps none."""
    if opened.maps is None:
        raise IndexCorrupt("The gallery has no maps to match with.", hint=REBUILD)
    return torch.from_numpy(opened.maps.read(positions))


def changing_too_fast() -> Problem:
    """The 503 problem of a search that met another revision at every attempt."""
    return Problem("unavailable", "The gallery is changing too fast just now.", headers={"Retry-After": "1"})
