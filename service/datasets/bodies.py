"""What POST /datasets takes: a folder's path as JSON, or the fields beside an uploaded archive."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from reid_core.data.declaration import Declaration, compile_pattern, declaration_from_json
from reid_core.data.formats import FORMAT_NAMES, check_declaration
from reid_core.errors import DatasetError
from service.bodies import Body, Name


def _refuse_unknown(format: str) -> str:
    if format not in FORMAT_NAMES:
        raise PydanticCustomError(
            "unknown-format",
            "there is no format {format}; known are: {known}",
            {"format": ascii(format), "known": ", ".join(FORMAT_NAMES)},
        )
    return format


def _refuse_outside(folder: str) -> str:
    path = PurePosixPath(folder.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise PydanticCustomError("outside", "a split lies in a folder below the data set's own, written without ..")
    return str(path)


def _refuse_wrong_pattern(text: str) -> str:
    try:
        compile_pattern(text)
    except DatasetError as error:
        message = "{detail} {hint}"
        raise PydanticCustomError("wrong-pattern", message, {"detail": error.detail, "hint": error.hint}) from error
    return text


def _refuse_unknown_encoding(name: str) -> str:
    try:
        "a".encode(name)
    except (LookupError, UnicodeError, ValueError) as error:
        message = "there is no encoding {name}; write e.g. utf-8, cp1252, cp932, gbk"
        raise PydanticCustomError("unknown-encoding", message, {"name": ascii(name)}) from error
    return name


def _parse_field(value: Any) -> Any:
    """The object in a form's field, which is text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise PydanticCustomError("json-invalid", "in a form this is JSON: an object") from error


FormatName = Annotated[str, AfterValidator(_refuse_unknown), Field(json_schema_extra={"enum": list(FORMAT_NAMES)})]
Subfolder = Annotated[
    str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00]+$"), AfterValidator(_refuse_outside)
]
Column = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class LayoutBody(Body):
    """Where the splits lie, and what names mean."""

    train: Subfolder | None = None
    query: Subfolder | None = None
    gallery: Subfolder | None = None
    pattern: Annotated[str, StringConstraints(max_length=1000), AfterValidator(_refuse_wrong_pattern)] | None = Field(
        default=None,
        description="a regular expression for the beginning of a picture's path below its split's folder, or of its "
        "file name; named groups identity, camera, frame, clothes",
    )


class ColumnsBody(Body):
    """How a table calls our columns; those left out have our names."""

    path: Column | None = None
    identity: Column | None = None
    camera: Column | None = None
    split: Column | None = None
    captured_at: Column | None = None
    frame: Column | None = None


class UploadBody(Body):
    """What is said of an uploaded archive."""

    name: Name = Field(description="unique; taken wherever the id is")
    format: FormatName = Field(default="auto", description="`auto`, or a name from GET /dataset-formats")
    layout: Annotated[LayoutBody, BeforeValidator(_parse_field)] | None = Field(
        default=None, description="for folders that no format describes; GET /dataset-formats has examples"
    )
    columns: Annotated[ColumnsBody, BeforeValidator(_parse_field)] | None = Field(
        default=None, description='for tables whose columns have other names: {"identity": "person_id"}'
    )
    encoding: (
        Annotated[str, StringConstraints(min_length=1, max_length=50), AfterValidator(_refuse_unknown_encoding)] | None
    ) = Field(default=None, description="of a table, and of the names in an archive; left out, it is found out")

    @model_validator(mode="after")
    def _one_meaning(self) -> UploadBody:
        try:
            check_declaration(self.format, self.declaration)
        except DatasetError as error:
            message = "{detail} {hint}"
            told = {"detail": error.detail, "hint": error.hint}
            raise PydanticCustomError("wrong-declaration", message, told) from error
        return self

    @property
    def declaration(self) -> Declaration:
        return declaration_from_json(self.declared())

    def declared(self) -> dict[str, Any]:
        """What was said besides name, format and path, as the row keeps it."""
        return self.model_dump(include={"layout", "columns", "encoding"}, exclude_none=True)


class FolderBody(UploadBody):
    """Register a folder, or a table, where it lies; it is read there and never written."""

    path: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="a folder or a table under one of REID_DATA_ROOTS, absolute or relative to a root"
    )


class MoveBody(Body):
    """Where the same files lie now."""

    path: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="a folder under one of REID_DATA_ROOTS with the same files, absolute or relative to a root"
    )
