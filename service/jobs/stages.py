"""The stages of a training's spec, as planning, workers and looks at its start read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reid_core.data.records import Part


@dataclass(frozen=True, slots=True)
class Stage:
    """One training of a job: the ids of its data sets with the part of each, `train` or `all`, and settings in full."""

    parts: tuple[tuple[str, Part], ...]
    settings: Mapping[str, Any]

    @property
    def datasets(self) -> tuple[str, ...]:
        """The ids."""
        return tuple(key for key, _ in self.parts)


def stages_of(spec: Mapping[str, Any]) -> list[Stage]:
    """The stages of a training's spec, in order; a plain training is a chain of one."""
    stages = [(stage["dataset"], stage["settings"]) for stage in spec.get("chain", [spec])]
    return [
        Stage(tuple(map(_part, asked if isinstance(asked, list) else [asked])), settings) for asked, settings in stages
    ]


def _part(named: str | Mapping[str, Any]) -> tuple[str, Part]:
    """A data set's id and part as a spec names them; an id alone means the training split."""
    return (named, "train") if isinstance(named, str) else (named["id"], named["split"])
