"""Galleries that have outgrown their index; without FAISS, which workers do without beside their jobs."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from reid_core.retrieval.kinds import resolve_kind
from service.db.tables import Gallery, Model

TAIL_LEAST = 1000
TAIL_SHARE = 0.1
"""A gallery needs another index once as many images, and this share of all, are compared one by one beside it."""


def outgrown(session: Session) -> list[str]:
    """The galleries that have so many images beside their index, or without one, that they need another."""
    columns = select(Gallery.id, Gallery.index_kind, Gallery.index, Gallery.next_position, Model.embedding_size)
    large = columns.join(Model, Model.id == Gallery.model_id).where(
        Gallery.next_position >= TAIL_LEAST, Gallery.index_kind != "flat", Gallery.deleted_at.is_(None)
    )
    return [
        gallery_id
        for gallery_id, requested, index, count, size in session.execute(large)
        if count - (index["images"] if index else 0) >= max(TAIL_LEAST, TAIL_SHARE * count)
        and resolve_kind(requested, count, size) != "flat"
    ]
