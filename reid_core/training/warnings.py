"""Warnings of a training that goes on all the same, and the one that can be given before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from reid_core.methods.method import Method
from reid_core.settings import TrainingSettings

_SHORT = 0.25
"""A run of fewer of its paper's steps is short: the rate falls before new layers have learned anything."""


@dataclass(frozen=True, slots=True)
class TrainingWarning:
    """A training that may not do what it should: `code` for programs, `detail` and `hint` for people."""

    code: str
    detail: str
    hint: str
    stage: int = 1  # of a chain


def check_length(method: Method, settings: TrainingSettings, identities: int, images: int) -> list[TrainingWarning]:
    """A warning where the paper's settings are asked to do with few of the paper's steps; else none."""
    steps, papers = method.count_steps(settings, identities, images), method.paper_steps
    if settings.preset == "small" or steps == 0 or steps >= _SHORT * papers:
        return []
    warning = TrainingWarning(
        "too-short-for-preset",
        f"This training has about {steps:,} steps; the paper's settings were made for about {papers:,}. "
        "So short a run can end below the network that it starts from.",
        'Use settings.preset "small", which was made for short runs, or more epochs.',
    )
    return [warning]
