"""The coarse-to-fine pyramid and its multi-loss dynamic training (paper 002).

Zheng et al. 2019, "A Coarse-to-fine Pyramidal Model for Person Re-identification via Multi-Loss Dynamic Training",
arXiv:1810.12193.

Every window of neighbouring stripes has a feature and a classifier of its own. Identity loss on random batches, or both
losses on identity-balanced ones: which of the two is decided before every step (`reid_core.losses.dynamic`).
Search compares the concatenated features of all windows.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn, optim

from reid_core.backbones import BackboneName, build_backbone
from reid_core.heads.pyramid import PyramidHead, PyramidOutput, check_parts
from reid_core.losses.distance import euclidean
from reid_core.losses.dynamic import DynamicLosses, DynamicSettings
from reid_core.losses.identity import identity_accuracy, identity_loss
from reid_core.losses.triplet import batch_hard, triplet_accuracy, triplet_loss
from reid_core.methods.method import Losses, Method, Moment, Teacher
from reid_core.network import Batch, Output, ReidNetwork
from reid_core.sampling import Draw, Epoch
from reid_core.sampling.alternating import BALANCED, RANDOM, draw_random_and_balanced
from reid_core.settings import (
    Augmentation,
    Erasing,
    Fraction,
    IdentityBatch,
    ImageSize,
    Schedule,
    TrainingSettings,
)


class PyramidSettings(TrainingSettings):
    """The paper's section 4.1; table 4 varies `levels`, `width` and `triplet`."""

    backbone: BackboneName = "resnet101"  # the paper says ResNet, its authors' code ResNet-101
    last_stride: Literal[1, 2] = 1
    parts: int = Field(default=6, ge=1, le=24, description="basic stripes; must divide the feature map's height")
    levels: str = Field(default="111111", pattern="^[01]+$", description="a 0 or 1 per level, finest first")
    width: int = Field(default=128, ge=8, le=1024, description="numbers per window; the paper compares 64, 128, 256")
    dropout: Fraction = Field(default=0, description="before the classifiers; the authors' code has 0.2")
    triplet: bool = Field(default=True, description="false: identity loss alone, random and balanced batches in turn")
    margin: float = Field(default=1.4, ge=0, description="of the triplet loss, in Euclidean distance")
    dynamic: DynamicSettings = DynamicSettings()
    image: ImageSize = ImageSize(height=384, width=128)
    batch: IdentityBatch = IdentityBatch(identities=8, images_per_identity=8)
    schedule: Schedule = Schedule(
        epochs=120, base_lr=0.01, warmup=0, warmup_start=1, decay_at=(0.5, 70 / 120, 80 / 120, 0.75), decay_factor=0.5
    )
    backbone_rate: float = Field(
        default=1, ge=0, le=1, description="the backbone's learning rate, as a share of base_lr; authors' code: 0.1"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1)
    augmentation: Augmentation = Augmentation(
        flip=0.5, padding=0, erasing=Erasing(probability=0.2, area=(0.02, 0.4), aspect=1 / 0.3)
    )


SMALL = {
    "parts": 4,
    "levels": "1111",
    "batch": {"identities": 8, "images_per_identity": 4},
    "schedule": {"shape": "cosine", "base_lr": 0.03, "warmup": 0.1},
    "backbone_rate": 0.1,
    "dynamic": {"weighting": "equal"},
}
"""The preset for short runs: unweighted losses, new layers at ten times the backbone's rate, four stripes that divide
the maps of small images."""


class PyramidNetwork(ReidNetwork):
    """Backbone and pyramid head. (B, 3, H, W) to an `Output` with one set of logits per window."""

    def __init__(self, settings: PyramidSettings, num_classes: int) -> None:
        super().__init__()
        check_parts(settings.parts, _map_height(settings))
        self.backbone = build_backbone(settings.backbone, last_stride=settings.last_stride)
        self.head = PyramidHead(
            self.backbone.channels[-1],
            num_classes,
            settings.parts,
            settings.levels,
            settings.width,
            dropout=settings.dropout,
        )
        self.embedding_size = self.head.projection.shape[0] * settings.width

    def forward(self, images: Tensor) -> Output:
        feature_map = self.backbone(images)[-1]
        pyramid: PyramidOutput = self.head(feature_map)
        vector = pyramid.features.flatten(1)
        return Output(vector, features=[vector], logits=list(pyramid.logits.unbind(1)), feature_map=feature_map)


class PyramidCriterion(nn.Module):
    """Equation 2, or equation 8 with the weights of the dynamic scheme."""

    def __init__(
        self, settings: PyramidSettings, num_classes: int, network: ReidNetwork, teacher: Teacher | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.dynamic = DynamicLosses("identity_loss", "triplet_loss", settings.dynamic)

    def forward(self, output: Output, batch: Batch, moment: Moment) -> Losses:
        (vector,) = output.features
        # Summed over the windows (eq. 2).
        identity = torch.stack([identity_loss(logits, batch.identities) for logits in output.logits]).sum()
        distances = euclidean(vector)
        hardest = batch_hard(distances, batch.identities)
        losses = {"identity_loss": identity}
        if self.settings.triplet and hardest.valid.any():
            losses["triplet_loss"] = triplet_loss(distances, hardest, margin=self.settings.margin)
        terms, measures = self.dynamic.step(losses)
        accuracies = {
            "identity_accuracy": identity_accuracy(output.logits[-1], batch.identities),
            "triplet_accuracy": triplet_accuracy(distances, hardest),
        }
        return Losses(terms, accuracies | measures)


def build_optimizers(settings: PyramidSettings, network: PyramidNetwork, criterion: nn.Module) -> list[optim.Optimizer]:
    """Gradient descent with momentum."""
    rate = settings.schedule.base_lr
    groups: list[dict[str, Any]] = [
        {"params": network.head.parameters()},
        {"params": network.backbone.parameters(), "lr": settings.backbone_rate * rate},
    ]
    return [optim.SGD(groups, lr=rate, momentum=settings.momentum, weight_decay=settings.weight_decay)]


def draw_batches(settings: PyramidSettings, epoch: Epoch) -> Draw:
    """Random and identity-balanced batches; without the triplet loss one stream of both in turn (section 4.4)."""
    random, balanced = draw_random_and_balanced(epoch.identities, settings.batch, epoch.generator)
    if settings.triplet:
        return Draw((random, balanced))
    return Draw(([(balanced if place % 2 else random)[place] for place in range(len(random))],))


def choose_stream(criterion: PyramidCriterion) -> int:
    """Balanced batches for both losses, random ones for the identity loss alone; or the only stream there is."""
    return BALANCED if criterion.settings.triplet and criterion.dynamic.branch == "both" else RANDOM


def _map_height(settings: PyramidSettings) -> int:
    stride = 32 if settings.last_stride == 2 else 16
    return -(-settings.image.height // stride)


PYRAMID = Method(
    name="pyramid",
    title="Coarse-to-fine pyramid with multi-loss dynamic training",
    paper="Zheng et al. 2019, A Coarse-to-fine Pyramidal Model for Person Re-identification",
    summary="A feature for every window of stripes; identity loss alone or with triplets, decided at every step.",
    recipe=PyramidSettings(),
    build_network=PyramidNetwork,
    build_criterion=PyramidCriterion,
    build_optimizers=build_optimizers,
    draw_batches=draw_batches,
    choose_stream=choose_stream,
    small=SMALL,
)
