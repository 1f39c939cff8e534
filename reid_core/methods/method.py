"""The parts of a training method: plain functions and a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn, optim

from reid_core.backbones.recipes import RECIPES
from reid_core.matching import FoldedHead
from reid_core.merging import merge
from reid_core.network import ReidNetwork
from reid_core.sampling import Draw, Epoch
from reid_core.sampling.identities import draw_identity_batches
from reid_core.settings import TrainingSettings, override

RANDOM_WEIGHTS: Mapping[str, Any] = {"backbone_rate": 1}
"""The settings of a network that knows nothing yet: a backbone has no reason to learn more slowly than the rest."""

OptimizerName = Literal["adam", "adamw", "sgd"]

MARKET_1501 = (751, 12_936)
"""Identities and training images of the data set that every paper's recipe was made on."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of a run: optimiser steps and whole epochs since its start."""

    step: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Losses:
    """Named loss terms, already weighted, whose sum is minimised; and named measures, only recorded."""

    terms: dict[str, Tensor]
    measures: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Teacher:
    """A trained network in evaluation mode, which learning from it leaves as it is.

    Not a module: a criterion that holds one neither trains it, nor switches its mode, nor saves it with the run.
    """

    network: ReidNetwork
    dtype: torch.dtype

    @property
    def embedding_size(self) -> int:
        return self.network.embedding_size

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """Embeds images as in `Batch`: (B, D) float32, not normalised; the forward pass runs in `dtype`."""
        with torch.autocast(images.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            return self.network(images).embedding.float()


class BuildCriterion(Protocol):
    """Builds the module that is called as (output, batch, moment) and gives `Losses`.

    `teacher` is for a method that has `settle`, and None for every other.
    """

    def __call__(self, settings: Any, num_classes: int, network: Any, teacher: Teacher | None = None) -> nn.Module: ...


def build_optimizer(name: OptimizerName, parameters: Iterable[Any], settings: Any) -> optim.Optimizer:
    """Builds Adam or gradient descent, at the rate, weight decay and momentum that the settings name."""
    rate, decay = settings.schedule.base_lr, settings.weight_decay
    if name == "sgd":
        return optim.SGD(parameters, lr=rate, momentum=settings.momentum, weight_decay=decay)
    return (optim.AdamW if name == "adamw" else optim.Adam)(parameters, lr=rate, weight_decay=decay)


def draw_pk_batches(settings: Any, epoch: Epoch) -> Draw:
    """Draws P identities with K images each, as `settings.batch` says."""
    return Draw((draw_identity_batches(epoch.identities, settings.batch, epoch.generator),))


def count_steps(settings: Any, identities: int, images: int) -> int:
    """Counts the steps of a run in whose every epoch each image comes about once."""
    return int(settings.schedule.epochs * max(1, images // settings.batch.num_images))


@dataclass(frozen=True, slots=True)
class Method:
    """One entry of `METHODS`.

    Attributes:
        recipe: every setting with the paper's value.
        small: what differs from the recipe in the preset of that name, for runs of some hundred steps from trained
            weights; tuned on people held out of a training split.
        build_network: (settings, num_classes) -> network.
        build_criterion: see `BuildCriterion`.
        build_optimizers: (settings, network, criterion) -> optimisers; a parameter group with `"scheduled": False`
            keeps its learning rate, the others follow the schedule.
        draw_batches: (settings, epoch) -> one epoch's batches of indices of images; P x K where left out.
        choose_stream: (criterion) -> which of the drawn streams gives the next batch.
        matching_head: (network) -> scorer of pairs of local features, for a method that matches by them; its network
            then has a `map_shape`.
        settle: (settings asked for, the teacher's method, its settings) -> settings, for a method that learns from a
            trained model.
        count_steps: (settings, identities, images) -> optimiser steps of a whole run, about.
        statistics_batch: the fewest images in a batch whose statistics are worth more than those of trained weights.
    """

    name: str
    title: str
    paper: str
    summary: str
    recipe: TrainingSettings
    build_network: Callable[[Any, int], ReidNetwork]
    build_criterion: BuildCriterion
    build_optimizers: Callable[[Any, Any, Any], list[optim.Optimizer]]
    draw_batches: Callable[[Any, Epoch], Draw] = draw_pk_batches
    choose_stream: Callable[[Any], int] = lambda criterion: 0
    matching_head: Callable[[Any], FoldedHead] | None = None
    settle: Callable[[Mapping[str, Any], str, Any], TrainingSettings] | None = None
    count_steps: Callable[[Any, int, int], int] = count_steps
    small: Mapping[str, Any] = field(default_factory=dict, hash=False)
    statistics_batch: int = 0

    @property
    def paper_steps(self) -> int:
        """The number of steps that the recipe was made for, on Market-1501."""
        return self.count_steps(self.recipe, *MARKET_1501)

    def choose_settings(self, asked: Mapping[str, Any], start: Mapping[str, Any] | None = None) -> TrainingSettings:
        """Completes the settings asked for by the backbone's recipe, the preset, what the start implies, the recipe.

        Of several that name a setting the first counts.

        Args:
            start: settings of the network that the trained weights come from, as `reid_core.training.initial` gives
                them; those that this method has are taken over. None: random weights.

        Raises:
            SettingsError: as `override` does.
        """
        of_backbone = self._known(RECIPES.get(str(asked.get("backbone")), {}))
        if start is None:
            of_backbone = {**of_backbone, **self._known(RANDOM_WEIGHTS)}
        named = self.with_preset(merge(of_backbone, asked))
        chosen = override(override(self.recipe, self._known(start or {})), named)
        keeps = start is not None and chosen.batch.num_images < self.statistics_batch
        return override(chosen, {"freeze_backbone_bn": True}) if keeps and "freeze_backbone_bn" not in named else chosen

    def _known(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if name in type(self.recipe).model_fields}

    def with_preset(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings asked for over those of the preset that they name."""
        return merge(self.small, asked) if asked.get("preset") == "small" else asked

    def settings_schema(self) -> dict[str, Any]:
        """JSON Schema of the settings, the recipe's values as defaults."""
        return type(self.recipe).model_json_schema()
