"""The answers that describe the service itself: methods, formats, kinds of problems, versions, health, ways in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from service.errors import ProblemKind
from service.schemas import Answer, Omittable

if TYPE_CHECKING:  # brings PyTorch
    from reid_core.methods.method import Method


class MethodAnswer(Answer):
    """A training method, its paper and its settings with the paper's values as defaults."""

    name: str
    title: str
    paper: str
    summary: str
    settings_schema: dict[str, Any] = Field(description="a JSON Schema of the settings")
    presets: dict[str, dict[str, Any]] = Field(
        description="`settings.preset` -> the settings that it names, over those of the paper"
    )

    @classmethod
    def of(cls, method: Method) -> MethodAnswer:
        """The method as clients see it."""
        return cls(
            name=method.name,
            title=method.title,
            paper=method.paper,
            summary=method.summary,
            settings_schema=method.settings_schema(),
            presets={"paper": {}, "small": dict(method.small)},
        )


class FormatAnswer(Answer):
    """A layout of files that registration understands, or one without a reader and the declaration that reads it."""

    name: str
    title: str
    reader: bool = Field(description="whether its name may be given as `format`")
    layout: str = Field(description="the folders and files, drawn in several lines")
    naming: str
    protocol: str
    notes: list[str]
    example: Omittable[dict[str, Any]] = Field(default=None, description="what POST /datasets takes to read it")


class ProblemKindAnswer(Answer):
    """A kind of problem."""

    type: str = Field(description="`/problems/<slug>`")
    title: str
    status: int
    explanation: str

    @classmethod
    def of(cls, slug: str, kind: ProblemKind) -> ProblemKindAnswer:
        """The kind of problem under that slug."""
        return cls(type=f"/problems/{slug}", title=kind.title, status=kind.status, explanation=kind.explanation)


class VersionAnswer(Answer):
    """The versions of this service, its API and what it computes with."""

    version: str
    api: Literal["v1"]
    python: str
    torch: str


class EntranceAnswer(VersionAnswer):
    """The ways into the API."""

    title: str
    links: dict[str, str]


class LivenessAnswer(Answer):
    """A sign of life."""

    status: Literal["ok"]


class CheckAnswer(Answer):
    """One part that the service needs."""

    ok: bool
    detail: str


class ReadinessAnswer(LivenessAnswer):
    """The service can take work; `checks` has each part by name, for those who may see them."""

    checks: Omittable[dict[str, CheckAnswer]] = None
