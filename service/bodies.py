"""What request bodies share: unknown fields are refused, names and references look the same everywhere."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, StringConstraints
from pydantic_core import PydanticCustomError

_ID = re.compile(r"(ds|job|mdl|gal|img|key)_[0-9a-z]{26}")


def _refuse_misleading(name: str) -> str:
    if _ID.fullmatch(name):
        raise PydanticCustomError("looks-like-an-id", "a name may not look like an id, which it could be taken for")
    if name != name.strip() or name in (".", ".."):
        raise PydanticCustomError("unusable-name", "a name may not be '.' or '..', nor begin or end with a space")
    return name


Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100, pattern=r"^[^/\x00-\x1f\x7f]+$"),
    AfterValidator(_refuse_misleading),
]
"""A name that a person gives: any letters, no slash and no control characters, nothing that looks like an id."""

Reference = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
"""An id or a unique name."""


def _refuse_numbers(value: Any) -> Any:
    if isinstance(value, int | float) or (isinstance(value, str) and re.fullmatch(r"[\s\d.eE+-]*", value)):
        raise PydanticCustomError("not-rfc3339", "a time is written like 2026-01-31T12:00:00Z (RFC 3339)")
    return value


def _to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise PydanticCustomError("out-of-range", "the time lies before year 1 or after year 9999") from error


Instant = Annotated[AwareDatetime, BeforeValidator(_refuse_numbers), AfterValidator(_to_utc)]
"""A time with its offset, as RFC 3339 writes it; becomes UTC."""


class Body(BaseModel):
    """A JSON body; a field that it does not name is an error, and so are NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
