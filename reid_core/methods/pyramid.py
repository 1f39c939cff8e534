"""The coarse-to-fine pyramid and its multi-loss dynamic training (paper 002).

Zheng et al. 2019, "A Coarse-to-fine Pyramidal Model for Person Re-identification via Multi-Loss Dynamic Training",
arXiv:1810.12193.

Every window of neighbouring stripes has a feature and a classifier of its own. Identity loss on random batches, or both
losses on identity-balanced ones: which of the two is decided before every step (`reid_core.losses.dynamic`).
Search compares the concatenated features of all windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn, optim

from reid_core.backbones import BackboneName, build_backbone
from reid_core.heads.pyramid import PyramidHead, PyramidOutput, check_parts
from reid_core.losses.distance import euclidean
from reid_core.losses.dynamic import DynamicLosses, Weighting
from reid_core.losses.identity import identity_accuracy, identity_loss
from reid_core.losses.triplet import batch_hard, triplet_accuracy, triplet_loss
from reid_core.methods.method import Losses, Method, Moment
from reid_core.network import Batch, Output
from reid_core.sampling import Draw, Epoch
from reid_core.sampling.identities import draw_identity_batches
from reid_core.sampling.random import draw_random_batches
from reid_core.settings import (
    Augmentation,
    Erasing,
    Fraction,
    IdentityBatch,
    ImageSize,
    Part,
    Schedule,
    TrainingSettings,
)

_RANDOM, _BALANCED = 0, 1
"""The two streams of batches."""


class DynamicSettings(Part):
    """Algorithm 1 and equations 5 to 8."""

    enabled: bool = Field(default=True, description="false: both losses, unweighted, on balanced batches at every step")
    alpha: Fraction = Field(default=0.25, description="weight of the newest loss in its moving average")
    gamma: float = Field(default=2, ge=0, description="how strongly a loss that falls slowly is weighted down")
    threshold: float = Field(default=0.16, ge=0, description="below this ratio of focal weights: identity loss alone")
    weighting: Weighting = Field(default="focal", description="of both losses; equal: 1 and 1, as the authors' code")


class PyramidSettings(TrainingSettings):
    """The paper's section 4.1; table 4 varies `levels`, `width` and `triplet`."""

    backbone: BackboneName = "resnet101"  # the paper says ResNet, its authors' code ResNet-101
    last_stride: Literal[1, 2] = 1
    parts: int = Field(default=6, ge=1, le=24, description="basic stripes; must divide the feature map's height")
    levels: str = Field(default="111111", pattern="^[01]+$", description="a 0 or 1 per level, finest first")
    width: int = Field(default=128, ge=8, le=1024, description="numbers per window; the paper compares 64, 128, 256")
    dropout: Fraction = Field(default=0, description="before the classifiers; the authors' code has 0.2")
    triplet: bool = Field(default=True, description="false: identity loss on random batches only")
    margin: float = Field(default=1.4, ge=0, description="of the triplet loss, in Euclidean distance")
    dynamic: DynamicSettings = DynamicSettings()
    image: ImageSize = ImageSize(height=384, width=128)
    batch: IdentityBatch = IdentityBatch(identities=8, images_per_identity=8)
    schedule: Schedule = Schedule(
        epochs=120, base_lr=0.01, warmup=0, warmup_start=1, decay_at=(0.5, 70 / 120, 80 / 120, 0.75), decay_factor=0.5
    )
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    augmentation: Augmentation = Augmentation(
        flip=0.5, padding=0, erasing=Erasing(probability=0.2, area=(0.02, 0.4), aspect=1 / 0.3)
    )


class PyramidNetwork(nn.Module):
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

    def __init__(self, settings: PyramidSettings, num_classes: int, network: nn.Module) -> None:
        super().__init__()
        self.settings, dynamic = settings, settings.dynamic
        self.dynamic = DynamicLosses(
            "identity_loss",
            "triplet_loss",
            alpha=dynamic.alpha,
            gamma=dynamic.gamma,
            threshold=dynamic.threshold,
            weighting=dynamic.weighting,
        )

    @property
    def weights(self) -> Mapping[str, float]:
        """What each loss of the next step is multiplied by."""
        if not self.settings.triplet:
            return {"identity_loss": 1.0, "triplet_loss": 0.0}
        return self.dynamic.weights() if self.settings.dynamic.enabled else {"identity_loss": 1.0, "triplet_loss": 1.0}

    def forward(self, output: Output, batch: Batch, moment: Moment) -> Losses:
        (vector,) = output.features
        weights = self.weights
        # Summed over the windows (eq. 2).
        identity = torch.stack([identity_loss(logits, batch.identities) for logits in output.logits]).sum()
        distances = euclidean(vector)
        hardest = batch_hard(distances, batch.identities)
        triplet = triplet_loss(distances, hardest, margin=self.settings.margin)
        losses = {"identity_loss": identity} | ({"triplet_loss": triplet} if hardest.valid.any() else {})
        measures = {
            "identity_accuracy": identity_accuracy(output.logits[-1], batch.identities),
            "triplet_accuracy": triplet_accuracy(distances, hardest),
            "both_losses": torch.tensor(float(weights["triplet_loss"] > 0)),
        }
        measures |= {name: value.detach() for name, value in losses.items()}
        self.dynamic.update({name: float(value.detach()) for name, value in losses.items()})
        measures |= {name: torch.tensor(value) for name, value in self.dynamic.measures().items()}
        terms = {f"weighted_{name}": weights[name] * value for name, value in losses.items() if weights[name] > 0}
        return Losses(terms, measures)


def build_optimizers(settings: PyramidSettings, network: nn.Module, criterion: nn.Module) -> list[optim.Optimizer]:
    """Gradient descent with momentum."""
    rate = settings.schedule.base_lr
    return [optim.SGD(network.parameters(), lr=rate, momentum=settings.momentum, weight_decay=settings.weight_decay)]


def draw_batches(settings: PyramidSettings, epoch: Epoch) -> Draw:
    """Random batches of the whole epoch and as many identity-balanced ones of the same size."""
    random = draw_random_batches(len(epoch.identities), settings.batch.num_pictures, epoch.generator)
    if not settings.triplet:
        return Draw((random, []))
    balanced: list[list[int]] = []
    while len(balanced) < len(random):
        balanced += draw_identity_batches(epoch.identities, settings.batch, epoch.generator)
    return Draw((random, balanced))


def choose_stream(criterion: PyramidCriterion) -> int:
    """Balanced batches for the triplet loss, random ones for the identity loss alone."""
    return _BALANCED if criterion.weights["triplet_loss"] > 0 else _RANDOM


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
)
