"""Finding a row by its id or by its unique name, since either is taken wherever an id is."""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy import or_, select
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
    rows = session.scalars(select(table).where(or_(table.id == key, table.name == key))).all()
    if not rows:
        names = session.scalars(select(table.name).order_by(table.id.desc()).limit(_COMPARED_NAMES)).all()
        raise not_found(_WORDS[table], key, names=names)
    return min(rows, key=lambda row: row.id != key)
