"""Fine-tuning as paper 003 does it throughout: settings, optimiser and batches that its methods share.

Yu et al. 2019, "Progressive Transfer Learning for Person Re-identification", IJCAI 2019, section 5.2.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import nn, optim

from reid_core.backbones import GlobalBackboneName
from reid_core.methods.method import OptimizerName, build_optimizer
from reid_core.network import ReidNetwork
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

    backbone: GlobalBackboneName = "resnet50"
    last_stride: Literal[1, 2] = 2
    image: ImageSize = ImageSize(height=256, width=128)
    batch: RandomBatch = RandomBatch(size=32)
    schedule: Schedule = Schedule(
        epochs=50, base_lr=0.01, warmup=0, warmup_start=1, decay_at=(0.2, 0.4, 0.6, 0.8), decay_factor=0.1
    )
    optimizer: OptimizerName = "sgd"
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd")
    augmentation: Augmentation = Augmentation(
        flip=0.5, padding=0, erasing=Erasing(probability=0, area=(0.02, 0.4), aspect=1 / 0.3)
    )


def build_optimizers(settings: FinetuneSettings, network: ReidNetwork, criterion: nn.Module) -> list[optim.Optimizer]:
    """Gradient descent with momentum, unless another is named, for the network and what the criterion learns."""
    return [build_optimizer(settings.optimizer, [*network.parameters(), *criterion.parameters()], settings)]


def draw_batches(settings: FinetuneSettings, epoch: Epoch) -> Draw:
    """Random batches."""
    return Draw((draw_random_batches(len(epoch.identities), settings.batch.size, epoch.generator),))
