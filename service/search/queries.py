"""Validation of a query by the limits of the service, and by what its gallery keeps."""

from __future__ import annotations

from service.errors import Problem, invalid_request
from service.search.examples import ExampleFiles
from service.search.rows import SearchedGallery
from service.search.schemas import EmbeddingQuery, Query
from service.settings import Settings

MOST_IMAGES_OF_PERSONS = 20_000
"""Images of one answer by person; SQLite takes 32,766 values in a statement."""


def validate_query(query: Query, gallery: SearchedGallery, settings: Settings) -> None:
    """Raises 422 for limits that are exceeded, and for what this gallery or an embedding cannot answer."""
    for name in ("top_k", "candidates"):
        value: int = getattr(query, name)
        if value > settings.max_top_k:
            message = f"{name} is {value}, at most {settings.max_top_k} are allowed"
            raise impossible(query, name, "too-large", message, hint="Ask for less, or raise REID_MAX_TOP_K.")
    _validate_page(query, settings)
    if not query.needs_maps:
        return
    name, otherwise = ("rerank", "rerank=k_reciprocal") if query.rerank == "qaconv" else ("explain", "no explain")
    if gallery.reranker_id is None:
        message = f"gallery {gallery.name!r} keeps no local features, so nothing can be matched place by place"
        hint = f"Search a gallery that was made with a QAConv model as `model` or `reranker`, or ask with {otherwise}."
        raise impossible(query, name, "no-reranker", message, hint=hint)
    if isinstance(query, EmbeddingQuery):
        message = "an embedding has no local features to match place by place"
        raise impossible(query, name, "needs-picture", message, hint=f"Send the image, or ask with {otherwise}.")


def require_few_examples(query: Query, examples: ExampleFiles, settings: Settings) -> None:
    """Raises 422 for more examples than a query may have images."""
    for name in ("positive", "negative"):
        number, limit = len(getattr(query, name)) + len(getattr(examples, name)), settings.max_query_images
        if number > limit:
            message = f"there are {number} examples, at most {limit} are allowed"
            raise impossible(query, name, "too-many", message, hint="Send fewer, or raise REID_MAX_QUERY_IMAGES.")


def _validate_page(query: Query, settings: Settings) -> None:
    offset = query.offset or 0
    if offset > settings.max_offset:
        message = f"offset is {offset}, at most {settings.max_offset} is allowed"
        hint = "Narrow the search by filters, or raise REID_MAX_OFFSET."
        raise impossible(query, "offset", "too-large", message, hint=hint)
    if query.group_by is not None and query.top_k * query.group_size > MOST_IMAGES_OF_PERSONS:
        message = (
            f"top_k is {query.top_k} and group_size {query.group_size}: together more than {MOST_IMAGES_OF_PERSONS}"
        )
        raise impossible(query, "group_size", "too-large", message, hint="Ask for fewer persons or images of each.")
    looks = query.rerank != "none" or query.group_by is not None
    if query.offset is not None and looks and query.last > query.candidates:
        message = f"results end at {query.last}, beyond the {query.candidates} candidates that are looked at"
        raise impossible(query, "offset", "beyond-candidates", message, hint="Ask for more candidates.")


def impossible(query: Query, name: str, code: str, message: str, *, hint: str) -> Problem:
    """The 422 problem of the query's field `name`."""
    return invalid_request(f"{query.pointer}/{name}", code, message, hint=hint)
