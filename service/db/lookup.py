"""Finding a row by its id or by its unique name, since either is taken wherever an id is."""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy import ColumnElement, or_, select, true
from sqlalchemy.orm import Session

from reid_core.data.labels import normal_label
from service.db.tables import Dataset, Gallery, Model
from service.errors import not_found

Named = TypeVar("Named", Dataset, Model, Gallery)

_COMPARED_NAMES = 1000
"""The newest names, among which like ones are sought when one is misspelt."""

_WORDS = {Dataset: "data set", Model: "model", Gallery: "gallery"}


def find(session: Session, table: type[Named], key: str) -> Named:
    """The row whose id or name is `key`; an id goes before an equal name. Raises the 404 problem."""
    key = normal_label(key)
    rows = session.scalars(select(table).where(or_(table.id == key, table.name == key), _is_there(table))).all()
    if not rows:
        newest = select(table.name).where(_is_there(table)).order_by(table.id.desc()).limit(_COMPARED_NAMES)
        names = session.scalars(newest).all()
        raise not_found(_WORDS[table], key, names=names)
    return min(rows, key=lambda row: row.id != key)


def _is_there(table: type[Named]) -> ColumnElement[bool]:
    """No deleted gallery, whose row is there until the last of its images' is gone."""
    return Gallery.deleted_at.is_(None) if table is Gallery else true()
