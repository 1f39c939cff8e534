"""Progressive transfer learning and the fine-tuning that it is compared with (paper 003, tables 1 and 2).

Yu et al. 2019, "Progressive Transfer Learning for Person Re-identification", IJCAI 2019.

Cells beside the backbone carry a latent state from batch to batch: what the data set is like, beyond this batch. The
state is zero at the start of every epoch and for every picture that is embedded. Training minimises cross entropy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field
from torch import nn, optim

from reid_core.backbones import BackboneName
from reid_core.losses.identity import identity_accuracy, identity_loss
from reid_core.methods.method import Losses, Method, Moment
from reid_core.network import Batch, Output
from reid_core.networks.progressive import PlainNetwork, ProgressiveNetwork
from reid_core.sampling import Draw, Epoch
from reid_core.sampling.random import draw_random_batches
from reid_core.settings import (
    Augmentation,
    Erasing,
    ImageSize,
    RandomBatch,
    Schedule,
    TrainingSettings,
)


class FinetuneSettings(TrainingSettings):
    """Section 5.2. The paper names no momentum, weight decay or augmentation: the usual ones."""

    backbone: BackboneName = "resnet50"
    last_stride: Literal[1, 2] = 2
    image: ImageSize = ImageSize(height=256, width=128)
    batch: RandomBatch = RandomBatch(size=32)
    schedule: Schedule = Schedule(
        epochs=50, base_lr=0.01, warmup=0, warmup_start=1, decay_at=(0.2, 0.4, 0.6, 0.8), decay_factor=0.1
    )
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    augmentation: Augmentation = Augmentation(
        flip=0.5, padding=0, erasing=Erasing(probability=0, area=(0.02, 0.4), aspect=1 / 0.3)
    )


class ProgressiveSettings(FinetuneSettings):
    carry_state: bool = Field(
        default=True, description="false: cells start every batch from zero, to see what it is worth"
    )


class ClassificationCriterion(nn.Module):
    """Cross entropy of the one classifier."""

    def __init__(self, settings: FinetuneSettings, num_classes: int, network: nn.Module) -> None:
        super().__init__()

    def forward(self, output: Output, batch: Batch, moment: Moment) -> Losses:
        (logits,) = output.logits
        accuracy = identity_accuracy(logits, batch.identities)
        return Losses({"identity_loss": identity_loss(logits, batch.identities)}, {"identity_accuracy": accuracy})


def build_plain(settings: FinetuneSettings, num_classes: int) -> PlainNetwork:
    """Backbone and three-layer classifier."""
    return PlainNetwork(settings.backbone, num_classes, last_stride=settings.last_stride)


def build_progressive(settings: ProgressiveSettings, num_classes: int) -> ProgressiveNetwork:
    """The same with cells."""
    return ProgressiveNetwork(
        settings.backbone, num_classes, last_stride=settings.last_stride, carry_state=settings.carry_state
    )


def build_optimizers(settings: FinetuneSettings, network: nn.Module, criterion: nn.Module) -> list[optim.Optimizer]:
    """Gradient descent with momentum."""
    rate = settings.schedule.base_lr
    return [optim.SGD(network.parameters(), lr=rate, momentum=settings.momentum, weight_decay=settings.weight_decay)]


def draw_batches(settings: FinetuneSettings, epoch: Epoch) -> Draw:
    """Random batches."""
    return Draw((draw_random_batches(len(epoch.identities), settings.batch.size, epoch.generator),))


FINETUNE_RESNET50 = Method(
    name="finetune-resnet50",
    title="Fine-tuned ResNet-50",
    paper="Yu et al. 2019, Progressive Transfer Learning for Person Re-identification",
    summary="Backbone and classifier: what progressive transfer learning is compared with.",
    recipe=FinetuneSettings(),
    build_network=build_plain,
    build_criterion=ClassificationCriterion,
    build_optimizers=build_optimizers,
    draw_batches=draw_batches,
)

FINETUNE_DENSENET161 = replace(
    FINETUNE_RESNET50,
    name="finetune-densenet161",
    title="Fine-tuned DenseNet-161",
    recipe=FinetuneSettings(backbone="densenet161"),
)

PTL_RESNET50 = replace(
    FINETUNE_RESNET50,
    name="ptl-resnet50",
    title="Progressive transfer learning on ResNet-50",
    summary="Cells beside the backbone carry what the data set is like from batch to batch.",
    recipe=ProgressiveSettings(),
    build_network=build_progressive,
    reset_state=ProgressiveNetwork.reset_state,
)

PTL_DENSENET161 = replace(
    PTL_RESNET50,
    name="ptl-densenet161",
    title="Progressive transfer learning on DenseNet-161",
    recipe=ProgressiveSettings(backbone="densenet161"),
)
