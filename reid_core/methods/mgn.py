"""The Multiple Granularity Network, plain and with progressive transfer learning (paper 003, tables 1 and 2).

Wang et al. 2018, "Learning Discriminative Features with Multiple Granularities for Person Re-Identification",
arXiv:1804.01438; with cells: Yu et al. 2019, "Progressive Transfer Learning for Person Re-identification".

Three branches see the image whole, in halves and in thirds; eight features are searched as one vector.
loss = mean identity loss of the eight features + mean batch-hard triplet loss of the three global ones.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import nn, optim

from reid_core.backbones import BackboneName
from reid_core.losses.distance import euclidean
from reid_core.losses.identity import identity_accuracy, identity_loss
from reid_core.losses.triplet import batch_hard, triplet_accuracy, triplet_loss
from reid_core.methods.method import Losses, Method, Moment, Teacher
from reid_core.network import Batch, Output, ReidNetwork
from reid_core.networks.mgn import MgnNetwork, ProgressiveMgnNetwork
from reid_core.settings import (
    Augmentation,
    Erasing,
    IdentityBatch,
    ImageSize,
    Schedule,
    TrainingSettings,
)


class MgnSettings(TrainingSettings):
    """Wang et al.'s network; training as the reproduction that Yu et al. build on (Adam with amsgrad).

    An epoch here has every image once, the reproduction's four images of every identity: on Market-1501 a quarter as
    many steps, so that its 500 epochs are 125 of these.
    """

    backbone: BackboneName = "resnet50"
    image: ImageSize = ImageSize(height=384, width=128)
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    flip_average: bool = True
    batch: IdentityBatch = IdentityBatch(identities=4, images_per_identity=4)
    schedule: Schedule = Schedule(
        epochs=125, base_lr=2e-4, warmup=0, warmup_start=1, decay_at=(320 / 500, 380 / 500), decay_factor=0.1
    )
    margin: float = Field(default=1.2, ge=0, description="of the triplet loss, in Euclidean distance")
    identity_weight: float = Field(default=1, ge=0, description="2 in the plain reproduction, 1 in Yu et al.'s copy")
    augmentation: Augmentation = Augmentation(
        flip=0.5, padding=0, erasing=Erasing(probability=0.5, area=(0.02, 0.4), aspect=1 / 0.3)
    )


class ProgressiveMgnSettings(MgnSettings):
    carry_state: bool = Field(default=True, description="false resets the latent state before every batch (ablation)")


class MgnCriterion(nn.Module):
    """Identity loss of every feature, triplet loss of the global ones; each a mean."""

    def __init__(
        self, settings: MgnSettings, num_classes: int, network: ReidNetwork, teacher: Teacher | None = None
    ) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, output: Output, batch: Batch, moment: Moment) -> Losses:
        identity = torch.stack([identity_loss(logits, batch.identities) for logits in output.logits]).mean()
        distances = [euclidean(feature) for feature in output.features]
        hardest = [batch_hard(each, batch.identities) for each in distances]
        triplets = [triplet_loss(*pair, margin=self.settings.margin) for pair in zip(distances, hardest, strict=True)]
        terms = {
            "identity_loss": self.settings.identity_weight * identity,
            "triplet_loss": torch.stack(triplets).mean(),
        }
        measures = {
            "identity_accuracy": identity_accuracy(output.logits[0], batch.identities),
            "triplet_accuracy": triplet_accuracy(distances[0], hardest[0]),
        }
        return Losses(terms, measures)


def build_plain(settings: MgnSettings, num_classes: int) -> MgnNetwork:
    """Three branches, eight features."""
    return MgnNetwork(settings.backbone, num_classes)


def build_progressive(settings: ProgressiveMgnSettings, num_classes: int) -> ProgressiveMgnNetwork:
    """The same with cells."""
    return ProgressiveMgnNetwork(settings.backbone, num_classes, carry_state=settings.carry_state)


def build_optimizers(settings: MgnSettings, network: ReidNetwork, criterion: nn.Module) -> list[optim.Optimizer]:
    """Adam, its amsgrad variant."""
    rate = settings.schedule.base_lr
    return [optim.Adam(network.parameters(), lr=rate, weight_decay=settings.weight_decay, amsgrad=True)]


SMALL = {"schedule": {"shape": "cosine", "base_lr": 1e-3}, "interpolation": "bilinear", "flip_average": False}
"""The preset for short runs: new layers learn five times as fast, and an image is embedded once."""

MGN = Method(
    name="mgn",
    title="Multiple Granularity Network",
    paper="Wang et al. 2018, Learning Discriminative Features with Multiple Granularities for Person Re-Identification",
    summary="Three branches see the image whole, in halves and in thirds; eight features make one vector.",
    recipe=MgnSettings(),
    build_network=build_plain,
    build_criterion=MgnCriterion,
    build_optimizers=build_optimizers,
    small=SMALL,
)

PTL_MGN = replace(
    MGN,
    name="ptl-mgn",
    title="Progressive transfer learning on the Multiple Granularity Network",
    paper="Yu et al. 2019, Progressive Transfer Learning for Person Re-identification",
    summary="MGN with cells beside it that carry what the data set is like from batch to batch.",
    recipe=ProgressiveMgnSettings(),
    build_network=build_progressive,
)
