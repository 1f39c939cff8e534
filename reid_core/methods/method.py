"""What a training method is made of: plain functions and a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn, optim

from reid_core.matching import FoldedHead
from reid_core.network import Batch, Output
from reid_core.sampling import Draw, Epoch
from reid_core.settings import TrainingSettings


@dataclass(frozen=True, slots=True)
class Moment:
    """How far a run is: optimiser steps and whole epochs since its start."""

    step: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Losses:
    """Named loss terms, already weighted, whose sum is minimised; and named measures, only recorded."""

    terms: dict[str, Tensor]
    measures: dict[str, Tensor] = field(default_factory=dict)


Criterion = Callable[[Output, Batch, Moment], Losses]


@dataclass(frozen=True, slots=True)
class Method:
    """One entry of `METHODS`.

    Attributes:
        recipe: every setting with the paper's value.
        build_network: (settings, num_classes) -> module whose forward gives an `Output`.
        build_criterion: (settings, num_classes, network) -> module called as (output, batch, moment) -> `Losses`.
        build_optimizers: (settings, network, criterion) -> optimisers; a parameter group with `"scheduled": False`
            keeps its learning rate, the others follow the schedule.
        draw_batches: (settings, epoch) -> one epoch's batches of picture indices.
        choose_stream: (criterion) -> which of the drawn streams gives the next batch.
        reset_state: (network) -> None, for a network that carries something from batch to batch: forgets it, as every
            epoch begins and when the run is over.
        matching_head: (network) -> what scores pairs of its feature maps, for a method that matches locally; its
            network then has `map_shape`, the (h, w, c) of a map.
        settle: (settings asked for, the teacher's method, its settings) -> settings, for a method that learns from a
            trained model; its `build_criterion` takes a `Teacher` as well.
    """

    name: str
    title: str
    paper: str
    summary: str
    recipe: TrainingSettings
    build_network: Callable[[Any, int], nn.Module]
    build_criterion: Callable[..., nn.Module]
    build_optimizers: Callable[[Any, Any, Any], list[optim.Optimizer]]
    draw_batches: Callable[[Any, Epoch], Draw]
    choose_stream: Callable[[Any], int] = lambda criterion: 0
    reset_state: Callable[[Any], None] = lambda network: None
    matching_head: Callable[[Any], FoldedHead] | None = None
    settle: Callable[[Mapping[str, Any], str, Any], TrainingSettings] | None = None

    def settings_schema(self) -> dict[str, Any]:
        """JSON Schema of the settings, the recipe's values as defaults."""
        return type(self.recipe).model_json_schema()
