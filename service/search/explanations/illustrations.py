"""Drawings of why a result matched, made anew from what the search left behind and what the gallery holds."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from service.auth import Caller
from service.db.session import Database
from service.decoding import Decoder
from service.drawing.sheets import as_png
from service.drawing.text import shorten
from service.errors import Problem
from service.galleries.image_files import find_any_image, image_path
from service.kept_searches import KeptMatch, KeptSearch, read_image, read_record
from service.search.encoding import Matching, QueryEncoder
from service.search.explanations.drawing import Side, draw, fitted
from service.search.explanations.pairs import contributions, explain
from service.search.rows import SearchedGallery, find_gallery
from service.search.schemas import ImageQuery, StoredQuery
from service.search.timing import SearchTimer
from service.settings import Settings

_NAME_LENGTH = 16


class Illustrations:
    """Draws explanations. Threads may share it."""

    def __init__(self, database: Database, settings: Settings, query_encoder: QueryEncoder, decoder: Decoder) -> None:
        self._database = database
        self._settings = settings
        self._query_encoder = query_encoder
        self._decoder = decoder

    def draw(self, search_id: str, rank: int, caller: Caller) -> bytes:
        """A PNG: the query and the result at `rank` side by side, lines between the places that correspond.

        Raises:
            Problem: 404 for a search that left no record or has no such result, and where a gallery keeps no image;
                410 once one of the two images has been erased.
        """
        record = read_record(self._settings, search_id, caller)
        if not 1 <= rank <= len(record.results):
            raise Problem("not-found", f"Search {search_id!r} has {len(record.results)} results, there is no {rank}.")
        kept = record.results[rank - 1]
        gallery = find_gallery(self._database, record.gallery)
        match_image, match = self._stored(kept.image_id, gallery)
        image, query = self._query_image(search_id, record, kept, gallery)
        explanation = explain(query, match.maps[0], match.sizes[0])
        heat, match_heat = contributions(query, match.maps[0])
        drawn = draw(
            self._title(rank, kept),
            Side("query", image, query.sizes[0], heat),
            Side(f"match, rank {rank}", match_image, match.sizes[0], match_heat),
            explanation.pairs,
            weights=(float(query.head.weights.min()), float(query.head.weights.max())),
        )
        return as_png(drawn)

    def _title(self, rank: int, kept: KeptMatch) -> str:
        with self._database.read() as session:
            row = find_any_image(session, kept.image_id)
            labels = {"identity": row.identity, "camera": row.camera}
        known = "".join(f", {name} {shorten(value, _NAME_LENGTH)}" for name, value in labels.items() if value)
        probability = "" if kept.probability is None else f", probability {kept.probability:.3f}"
        return f"rank {rank}: score {kept.score:.3f}{probability}{known}"

    def _query_image(
        self, search_id: str, record: KeptSearch, kept: KeptMatch, gallery: SearchedGallery
    ) -> tuple[Image.Image, Matching]:
        """The image that the search asked by, or that of several which explains the result."""
        if record.image_id is not None:
            return self._stored(record.image_id, gallery)
        content = read_image(self._settings, search_id, kept.picture)
        query = ImageQuery(gallery=gallery.id, explain=True)
        encoded = self._query_encoder.encode(query, [content], gallery, SearchTimer())
        return self._reduced(content, "the query"), encoded.need_matching()

    def _stored(self, image_id: str, gallery: SearchedGallery) -> tuple[Image.Image, Matching]:
        with self._database.read() as session:
            path = image_path(session, self._settings, find_any_image(session, image_id))
        query = StoredQuery(gallery=gallery.id, image_id=image_id, explain=True)
        encoded = self._query_encoder.encode(query, (), gallery, SearchTimer())
        return self._reduced(path, "the image"), encoded.need_matching()

    def _reduced(self, source: bytes | Path, name: str) -> Image.Image:
        """The image in the size in which it is drawn: two in full would be too much to hold."""
        with self._decoder.opened(source, name) as image:
            return fitted(image.image)
