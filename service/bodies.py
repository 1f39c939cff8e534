"""What request bodies share: unknown fields are refused, names and references look the same everywhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from reid_core.data.labels import MAX_LABEL, label_fault, name_fault, normal_label, text_fault

_LOST_PLUS = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+ \d\d:\d\d")
"""A time whose `+` stood in an address unescaped, where it means a blank."""

_ID = re.compile(r"(ds|job|mdl|gal|img|key)_[0-9a-z]{26}")


def _normal(fault_of: Callable[[str], str], code: str) -> Callable[[str], str]:
    """Gives the text by the one rule of labels; raises `code` where `fault_of` finds a fault in that."""

    def check(text: str) -> str:
        label = normal_label(text)
        if fault := fault_of(label):
            raise PydanticCustomError(code, "{label} cannot be used: {fault}", {"label": ascii(label), "fault": fault})
        return label

    return check


def _refuse_ids(name: str) -> str:
    if _ID.fullmatch(name):
        raise PydanticCustomError("looks-like-an-id", "a name may not look like an id, which it could be taken for")
    return name


Label = Annotated[str, AfterValidator(_normal(label_fault, "unusable-label"))]
"""An identity or a camera, by the one rule of labels (docs/datasets.md)."""

Key = Annotated[str, StringConstraints(min_length=1), AfterValidator(_normal(text_fault, "unusable-key"))]
"""A key of the caller's own, which never stands in the path of an address: slashes are fine."""

LabelFilter = Annotated[
    str, StringConstraints(max_length=5 * MAX_LABEL, pattern=r"^[^\x00]*$"), AfterValidator(normal_label)
]
"""A label that is asked for, empty for pictures without one; one that cannot be stored finds nothing."""

Name = Annotated[
    str,
    StringConstraints(min_length=1),
    AfterValidator(_normal(name_fault, "unusable-name")),
    Field(max_length=100),
    AfterValidator(_refuse_ids),
]
"""A name that a person gives to a thing: text by the rule of labels, nothing that looks like an id."""

Reference = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]+$"), AfterValidator(normal_label)
]
"""An id or a unique name."""


def _refuse_numbers(value: Any) -> Any:
    if isinstance(value, str) and _LOST_PLUS.fullmatch(value):
        value = value.replace(" ", "+")
    if isinstance(value, int | float) or (isinstance(value, str) and re.fullmatch(r"[\s\d.eE+-]*", value)):
        raise PydanticCustomError("not-rfc3339", "a time is written like 2026-01-31T12:00:00Z (RFC 3339)")
    return value


def _to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise PydanticCustomError("out-of-range", "the time lies before year 1 or after year 9999") from error


def _assume_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Instant = Annotated[AwareDatetime, BeforeValidator(_refuse_numbers), AfterValidator(_to_utc)]
"""A time with its offset, as RFC 3339 writes it; becomes UTC."""

CaptureTime = Annotated[
    datetime, BeforeValidator(_refuse_numbers), AfterValidator(_assume_utc), AfterValidator(_to_utc)
]
"""When a picture was taken; as an `Instant`, but UTC where it names no offset, as in the tables of data sets."""


class Body(BaseModel):
    """A JSON body; a field that it does not name is an error, and so are NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
