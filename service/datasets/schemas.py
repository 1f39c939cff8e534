"""The bodies and answers of the data set routes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, cast

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError
from sqlalchemy.orm import Session

from reid_core.data.declaration import Declaration, compile_pattern, declaration_from_json
from reid_core.data.findings import Finding
from reid_core.data.formats import FORMAT_NAMES, check_declaration
from reid_core.data.meanings import Severity
from reid_core.data.records import Split
from reid_core.data.report import IdentityCounts, SplitCounts
from reid_core.errors import DatasetError
from service.datasets.readiness import State, dataset_state
from service.db.tables import Dataset, DatasetImage
from service.schemas import Answer, Body, ContentLinks, Name, Omittable, ProblemAnswer, SelfLink, Time, example


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
    """The layout of a folder: where the splits lie, and what names mean."""

    train: Subfolder | None = None
    query: Subfolder | None = None
    gallery: Subfolder | None = None
    pattern: Annotated[str, StringConstraints(max_length=1000), AfterValidator(_refuse_wrong_pattern)] | None = Field(
        default=None,
        description="a regular expression for the beginning of an image's path below its split's folder, or of its "
        "file name; named groups identity, camera, frame, clothes",
    )


class ColumnsBody(Body):
    """The names that a table has for our columns; those left out have our names."""

    path: Column | None = None
    identity: Column | None = None
    camera: Column | None = None
    split: Column | None = None
    captured_at: Column | None = None
    frame: Column | None = None


class UploadBody(Body):
    """The fields beside an uploaded archive."""

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
            context = {"detail": error.detail, "hint": error.hint}
            raise PydanticCustomError("wrong-declaration", message, context) from error
        return self

    @property
    def declaration(self) -> Declaration:
        return declaration_from_json(self.declared())

    def declared(self) -> dict[str, Any]:
        """The declaration, besides name, format and path, as the row keeps it."""
        return self.model_dump(include={"layout", "columns", "encoding"}, exclude_none=True)


class FolderBody(UploadBody):
    """Register a folder, or a table, where it lies; it is read there and never written."""

    path: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="a folder or a table under one of REID_DATA_ROOTS, absolute or relative to a root"
    )


class MoveBody(Body):
    """The new place of a data set's files."""

    path: Annotated[str, Field(min_length=1, max_length=4096)] = Field(
        description="a folder under one of REID_DATA_ROOTS with the same files, absolute or relative to a root"
    )


class BriefFinding(Answer):
    """A finding of a report, without its samples."""

    code: str
    severity: Severity
    count: int

    @classmethod
    def all_of(cls, report: Mapping[str, Any]) -> list[BriefFinding]:
        """The findings of a stored report."""
        return [cls(**{name: finding[name] for name in cls.model_fields}) for finding in report["findings"]]


class DatasetLinks(SelfLink):
    """Links of a data set."""

    report: str
    images: str
    job: Omittable[str] = None


class DatasetAnswer(Answer):
    """A data set: its state, counts per split, and the findings of its report in short."""

    model_config = example(
        id="ds_01jb2c3d4e5f6g7h8j9k0m1n2p",
        name="lobby",
        format="market1501",
        variant=None,
        confidence=1.0,
        state="ready",
        uploaded=False,
        declaration=None,
        splits={"train": {"images": 240, "identities": 20, "cameras": 4}},
        evaluable_queries=80,
        findings=[{"code": "duplicate-pictures", "severity": "warning", "count": 2}],
        fingerprint="sha256:9f86d081884c7d65",
        error=None,
        job=None,
        created_at="2026-01-31T12:00:00Z",
        links={"self": "/datasets/ds_01…", "report": "/datasets/ds_01…/report", "images": "/datasets/ds_01…/images"},
    )

    id: str
    name: str
    format: str = Field(description="the format that was found; until then the one that was asked for")
    variant: str | None
    confidence: float | None = Field(description="0 to 1: how much of the files the format explains")
    state: State
    uploaded: bool
    declaration: dict[str, Any] | None = Field(description="layout, columns, encoding and table as declared")
    splits: dict[Split, SplitCounts] | None
    evaluable_queries: int | None
    findings: list[BriefFinding]
    fingerprint: str | None
    error: ProblemAnswer | None
    job: str | None
    created_at: Time
    links: DatasetLinks

    @classmethod
    def of(cls, session: Session, dataset: Dataset, prefix: str = "") -> DatasetAnswer:
        """The data set as clients see it; `prefix` is put before links."""
        state, error = dataset_state(session, dataset)
        report = dataset.report or {"findings": []}
        here = f"{prefix}/datasets/{dataset.id}"
        return cls(
            id=dataset.id,
            name=dataset.name,
            format=dataset.detected_format or dataset.format,
            variant=dataset.variant,
            confidence=report.get("confidence"),
            state=state,
            uploaded=dataset.uploaded,
            declaration=_declaration(dataset),
            splits=cast("dict[Split, SplitCounts] | None", dataset.splits),
            evaluable_queries=report.get("evaluable_queries"),
            findings=BriefFinding.all_of(report),
            fingerprint=dataset.fingerprint,
            error=ProblemAnswer.model_validate(error) if error else None,
            job=dataset.job_id,
            created_at=dataset.created_at,
            links=DatasetLinks(
                self=here,
                report=f"{here}/report",
                images=f"{here}/images",
                job=f"{prefix}/jobs/{dataset.job_id}" if dataset.job_id else None,
            ),
        )


def _declaration(dataset: Dataset) -> dict[str, Any] | None:
    """The declaration without the identities that a drawn split trains on, of which the protocol tells."""
    return {name: value for name, value in (dataset.declaration or {}).items() if name != "trained"} or None


class ReportAnswer(Answer):
    """The report on a data set: counts, and every finding with what follows from it and what to do."""

    dataset: str
    name: str
    format: str
    confidence: float
    variant: str
    protocol: dict[str, str]
    splits: dict[Split, SplitCounts]
    cameras: dict[str, dict[Split, int]] = Field(description="camera -> split -> images; empty text: no camera known")
    identities: dict[Split, IdentityCounts]
    evaluable_queries: int
    unevaluable_identities: list[str]
    findings: list[Finding]
    fingerprint: str


class DatasetImageAnswer(Answer):
    """An image of a data set."""

    id: str
    dataset: str
    split: Split
    path: str = Field(description="below the data set's folder")
    identity: str
    camera: str | None
    captured_at: Time | None
    frame: int | None
    clothes: str | None
    width: int | None
    height: int | None
    sha256: str | None
    links: ContentLinks

    @classmethod
    def of(cls, image: DatasetImage, prefix: str = "") -> DatasetImageAnswer:
        """The image as clients see it; `prefix` is put before links."""
        here = f"{prefix}/datasets/{image.dataset_id}/images/{image.id}"
        return cls(
            id=image.id,
            dataset=image.dataset_id,
            split=cast("Split", image.split),
            path=image.path,
            identity=image.identity,
            camera=image.camera or None,
            captured_at=image.captured_at,
            frame=image.frame,
            clothes=image.clothes,
            width=image.width,
            height=image.height,
            sha256=image.sha256,
            links=ContentLinks(self=here, content=f"{here}/content"),
        )
