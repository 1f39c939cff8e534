"""Lists in pages: `?limit=&cursor=` in, `{items, next_cursor}` out, in the order of a unique column."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, unquote

from fastapi import Query
from sqlalchemy import ColumnClause, Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.errors import Problem
from service.schemas import Listing

Row = TypeVar("Row")
Item = TypeVar("Item")
Column = InstrumentedAttribute[Any] | ColumnClause[Any]

MAX_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Page:
    """The part of a list that is asked for; a FastAPI dependency: `page: PageDep`."""

    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most items in the answer.")] = 50
    cursor: Annotated[str | None, Query(description="`next_cursor` of the answer before.")] = None


def list_page(
    session: Session,
    statement: Select[Row],
    column: InstrumentedAttribute[Any],
    page: Page,
    *,
    answer_of: Callable[[Row], Item],
    newest_first: bool = False,
) -> Listing[Item]:
    """The page of the rows that `statement` selects, in the order of the unique `column`, each as `answer_of` gives it.

    Rows that come or go meanwhile move nothing: a page starts after the last row of the page before, not at a number.
    Raises the 400 problem `invalid-cursor`.
    """
    if (after := start_of(page, column)) is not None:
        statement = statement.where(column < after if newest_first else column > after)
    statement = statement.order_by(column.desc() if newest_first else column.asc()).limit(page.limit + 1)
    rows = session.scalars(statement).all()
    page_rows = rows[: page.limit]
    next_cursor = cursor_after(getattr(page_rows[-1], column.key), column) if len(rows) > page.limit else None
    return Listing(items=[answer_of(row) for row in page_rows], next_cursor=next_cursor)


def start_of(page: Page, column: Column) -> Any:
    """The value of the unique `column` after which the page starts; None for the first page.

    Raises the 400 problem `invalid-cursor`.
    """
    return None if page.cursor is None else _decode(page.cursor, column)


def cursor_after(value: Any, column: Column) -> str:
    """The cursor of the page that starts after `value` of `column`."""
    text = f"{column}:{quote(str(value), safe='')}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def filter_equal(statement: Select[Row], *wanted: tuple[InstrumentedAttribute[Any], Any]) -> Select[Row]:
    """`statement` where each column has its value; one whose value is None is not asked for."""
    return statement.where(*(column == value for column, value in wanted if value is not None))


def _decode(cursor: str, column: Column) -> Any:
    """The value after which the page starts; the cursor names the column, so that no other list takes it."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        name, _, value = text.partition(":")
        if name != str(column) or not value.isascii() or not value.isprintable():
            raise ValueError(f"not a cursor of {column}")
        after = column.type.python_type(unquote(value, errors="strict"))
        if isinstance(after, int) and after.bit_length() > 63:
            raise ValueError("no row has such a number")
        if isinstance(after, str) and "\0" in after:
            raise ValueError("no row has such a text")
        return after
    except (ValueError, binascii.Error) as error:
        raise Problem(
            "invalid-cursor",
            f"{cursor!r} is not a cursor of this list.",
            hint="Send `next_cursor` of the answer before as it is, or leave it out to start over.",
        ) from error
