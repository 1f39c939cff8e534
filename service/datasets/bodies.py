"""What POST /datasets takes: a folder's path as JSON, or the fields beside an uploaded archive."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from reid_core.data.formats import FORMATS
from service.bodies import Body, Name

_KNOWN_FORMATS = ("auto", *FORMATS)


def _refuse_unknown(format: str) -> str:
    if format not in _KNOWN_FORMATS:
        raise PydanticCustomError(
            "unknown-format",
            "there is no format {format}; known are: {known}",
            {"format": ascii(format), "known": ", ".join(_KNOWN_FORMATS)},
        )
    return format


FormatName = Annotated[str, AfterValidator(_refuse_unknown), Field(json_schema_extra={"enum": list(_KNOWN_FORMATS)})]


class UploadBody(Body):
    """What is said of an uploaded archive."""

    name: Name = Field(description="unique; taken wherever the id is")
    format: FormatName = Field(default="auto", description="`auto`, or a name from GET /dataset-formats")


class FolderBody(UploadBody):
    """Register a folder where it lies; it is read there and never written."""

    path: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="a folder under one of REID_DATA_ROOTS, absolute or relative to a root"
    )
