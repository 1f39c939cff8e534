"""Request bodies and answers: how names, references, times and lists look everywhere, and the answer to a fault."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue, SkipJsonSchema
from pydantic_core import CoreSchema, PydanticCustomError

from reid_core.data.labels import MAX_LABEL, label_fault, name_fault, normal_label, text_fault
from service.clock import rfc3339

T = TypeVar("T")
Item = TypeVar("Item")

_LOST_PLUS = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+ \d\d:\d\d")
"""A time whose `+` stood in an address unescaped, where it means a blank."""

_ID = re.compile(r"(ds|job|mdl|gal|img|key|clu)_[0-9a-z]{26}")


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
"""A label that is asked for, empty for images without one; one that cannot be stored finds nothing."""

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
"""The time an image was taken; an `Instant`, but UTC where it names no offset, as in the tables of data sets."""


class Body(BaseModel):
    """A JSON body; a field that it does not name is an error, and so are NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Time = Annotated[
    datetime, PlainSerializer(rfc3339, return_type=str), WithJsonSchema({"type": "string", "format": "date-time"})
]
"""A time in an answer: RFC 3339 in UTC, with `Z`."""


def _array(length: int, item: str | list[str]) -> WithJsonSchema:
    """The schema of a tuple as generators of clients understand it: few of them know `prefixItems`."""
    return WithJsonSchema({"type": "array", "items": {"type": item}, "minItems": length, "maxItems": length})


Pair = Annotated[tuple[float, float], _array(2, "number")]
Triple = Annotated[tuple[float, float, float], _array(3, "number")]
Shape = Annotated[tuple[int, int, int], _array(3, "integer")]
Point = Annotated[tuple[int, float | None], _array(2, ["number", "null"])]
"""A step and the value there."""


def _is_none(value: object) -> bool:
    return value is None


def _drop_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


Omittable = Annotated[T | SkipJsonSchema[None], Field(exclude_if=_is_none, json_schema_extra=_drop_default)]
"""A field of an answer that is left out where it is None; others are sent as null."""


class Answer(BaseModel):
    """A JSON answer, or a part of one; its fields are the contract of the route that returns it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        handler.resolve_ref_schema(schema).pop("additionalProperties", None)  # later versions may add fields
        return schema


def example(**fields: Any) -> ConfigDict:
    """The configuration of an answer whose schema shows these fields; a test holds examples to their schemas."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


class Listing(Answer, Generic[Item]):
    """A page of a list."""

    items: list[Item]
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last one")


class SelfLink(Answer):
    """The link of a resource."""

    self: str


class ContentLinks(SelfLink):
    """Links of an image and its file; `content` is null where no file is kept."""

    content: str | None


class WrongValue(Answer):
    """One wrong value of a request."""

    pointer: str = Field(description="a JSON pointer into the body, or `/query/…`, `/path/…`, `/header/…`")
    code: str
    message: str


class ProblemAnswer(Answer):
    """RFC 9457: the answer to every fault, and the `error` of a failed job."""

    model_config = example(
        type="/problems/wrong-state",
        title="Not in this state",
        status=409,
        detail="Data set 'lobby' is still being read.",
        instance="/datasets/lobby/images",
        request_id="4f1c2a9e7b064d3fa2d1c0b98e7f6a55",
        hint="Try again when its state is ready.",
        errors=[],
    )

    type: str = Field(description="`/problems/<slug>`, which explains the kind of problem")
    title: str
    status: int
    detail: str
    instance: str
    request_id: str | None
    hint: str = Field(description="the way out")
    errors: list[WrongValue]
