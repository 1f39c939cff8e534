"""Verification: whether two images, or an image and a person of a gallery, show the same person."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import or_, select

from reid_core.calibration.curves import sigmoid
from service.db.ids import new_id
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.errors import Problem, invalid_request
from service.search.encoding import ATTEMPTS, EncodedQuery, QueryEncoder, changing_too_fast
from service.search.fusion import mean_direction
from service.search.journal import SearchJournal
from service.search.judging import Judge
from service.search.queries import validate_query
from service.search.rerank import score_pairs
from service.search.rows import SearchedGallery, find_gallery
from service.search.schemas import ImageQuery, StoredQuery, VerifyAnswer, VerifyQuery
from service.search.snapshots import OpenGallery, Snapshots
from service.search.timing import SearchTimer
from service.settings import Settings


class Verifier:
    """Scores pairs of images, and images with persons, by a gallery's models."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        encoder: QueryEncoder,
        snapshots: Snapshots,
        judge: Judge,
        journal: SearchJournal,
    ) -> None:
        self._database = database
        self._settings = settings
        self._encoder = encoder
        self._snapshots = snapshots
        self._judge = judge
        self._journal = journal

    def verify(
        self, query: VerifyQuery, gallery_key: str, files: Sequence[bytes], *, key_id: str | None
    ) -> VerifyAnswer:
        """Compares two images, or images with a person of the gallery, and notes it as a search.

        Raises:
            Problem: as `QueryEncoder.encode`; 404 where the gallery has no other image of the person, 409 for a
                `min_probability` without a calibration, 422 for another number of images.
        """
        timer = SearchTimer()
        _require_two_sides(query, files, self._settings.max_query_images)
        gallery = find_gallery(self._database, gallery_key)
        options = _search_options(query, gallery)
        validate_query(options, gallery, self._settings)
        calibration = self._judge.calibration(options, gallery)
        score, compared = self._score(query, options, files, gallery, timer)
        told = self._judge.judge_pair(options, gallery, self._snapshots, score, calibration) if calibration else {}
        verification_id = new_id("search")
        self._journal.note(key_id=key_id, gallery=gallery.id, search_id=verification_id)
        return VerifyAnswer(
            verification_id=verification_id,
            gallery=gallery.id,
            model=gallery.model_id,
            rerank=query.rerank,
            score=score,
            compared=compared,
            timings_ms=timer.timings_ms(),
            **told,
        )

    def _score(
        self,
        query: VerifyQuery,
        options: ImageQuery,
        files: Sequence[bytes],
        gallery: SearchedGallery,
        timer: SearchTimer,
    ) -> tuple[float, int]:
        """The score, larger is closer, and the number of images that the first were compared with."""
        sides = [self._encoder.encode(options, [content], gallery, timer) for content in files]
        for image_id in query.image_id:
            stored = StoredQuery(gallery=gallery.id, image_id=image_id, rerank=query.rerank)
            sides.append(self._encoder.encode(stored, (), gallery, timer))
        with timer.stage("retrieve"):
            if query.identity is None:
                return _score_images(sides[0], sides[1], query.rerank), 1
            vectors = mean_direction(np.concatenate([side.vectors for side in sides]))
            scores = self._score_person(vectors, query, query.identity, gallery)
            return float(scores.mean()), len(scores)

    def _score_person(
        self, vector: NDArray[np.float32], query: VerifyQuery, identity: str, gallery: SearchedGallery
    ) -> NDArray[np.float64]:
        """The cosines of `vector` (1, D) with all images of the person, but those that are asked by."""
        for _ in range(ATTEMPTS):
            opened = self._snapshots.current(gallery.id)
            positions = self._positions(gallery.id, opened, identity, query.image_id)
            if positions is None:
                continue
            if not positions:
                raise Problem("not-found", f"Gallery {gallery.name!r} holds no other image of identity {identity!r}.")
            scores = opened.snapshot.scores(vector, np.array(positions, np.int64))[0]
            return np.asarray(scores.clip(-1, 1), np.float64)
        raise changing_too_fast()

    def _positions(
        self, gallery_id: str, opened: OpenGallery, identity: str, without: Sequence[str]
    ) -> list[int] | None:
        """The positions of the person's images; None where the gallery was rebuilt since it was opened.

        `without` are ids of images that are left out, in the gallery or in the data set that they come from.
        """
        origin = GalleryImage.dataset_image_id
        images = select(GalleryImage.position).where(
            GalleryImage.gallery_id == gallery_id,
            GalleryImage.identity == identity,
            GalleryImage.id.not_in(without),
            or_(origin.is_(None), origin.not_in(without)),
        )
        with self._database.look() as connection:
            generation = connection.execute(select(Gallery.generation).where(Gallery.id == gallery_id)).scalar()
            places = connection.execute(images).scalars().all()
        if generation != opened.generation:
            return None
        alive = opened.snapshot.alive
        return [place for place in places if place < len(alive) and alive[place]]


def _search_options(query: VerifyQuery, gallery: SearchedGallery) -> ImageQuery:
    """The options of a search that compares as `query` does."""
    return ImageQuery(
        gallery=gallery.id,
        rerank=query.rerank,
        min_probability=query.min_probability,
        group_by=None if query.identity is None else "identity",
        fusion="max",
    )


def _require_two_sides(query: VerifyQuery, files: Sequence[bytes], limit: int) -> None:
    """Raises 422 unless there are two images, or `identity` and one image or more up to `limit`."""
    number = len(files) + len(query.image_id)
    if query.identity is None and number != 2:
        message = f"there are {number} images; two are compared, or one or more with an `identity`"
        hint = "Send files called `image`, or ids as `image_id`."
        raise invalid_request("/image", "wrong-number", message, hint=hint)
    if query.identity is not None and not 1 <= number <= limit:
        message = f"there are {number} images to compare with a person, from 1 to {limit} are allowed"
        raise invalid_request("/image", "wrong-number", message, hint="REID_MAX_QUERY_IMAGES is the limit.")
    if query.identity is not None and query.rerank != "none":
        message = "a person is compared by the embeddings of all its images"
        raise invalid_request("/rerank", "cannot-rerank", message, hint="Ask without rerank, or send two images.")


def _score_images(first: EncodedQuery, second: EncodedQuery, rerank: str) -> float:
    if rerank == "none":
        return float((first.vectors * second.vectors).sum().clip(-1, 1))
    return float(sigmoid(score_pairs(first.need_matching(), second.need_matching().maps))[0, 0])
