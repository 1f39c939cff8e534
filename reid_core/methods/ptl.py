"""Progressive transfer learning and the fine-tuning that it is compared with (paper 003, tables 1 and 2).

Yu et al. 2019, "Progressive Transfer Learning for Person Re-identification", IJCAI 2019.

Cells beside the backbone carry a latent state from batch to batch: what the data set is like, beyond this batch. The
state is zero at the start of every epoch and for every image that is embedded. Training minimises cross entropy.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field
from torch import nn

from reid_core.backbones import BackboneName
from reid_core.losses.identity import identity_accuracy, identity_loss
from reid_core.methods.finetuning import FinetuneSettings, build_optimizers, draw_batches
from reid_core.methods.method import Losses, Method, Moment, Teacher
from reid_core.network import Batch, Output, ReidNetwork
from reid_core.networks.progressive import PlainNetwork, ProgressiveNetwork


class ProgressiveSettings(FinetuneSettings):
    backbone: BackboneName = "resnet50"
    carry_state: bool = Field(default=True, description="false resets the latent state before every batch (ablation)")


class ClassificationCriterion(nn.Module):
    """Cross entropy of the one classifier."""

    def __init__(
        self, settings: FinetuneSettings, num_classes: int, network: ReidNetwork, teacher: Teacher | None = None
    ) -> None:
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


SMALL = {"batch": {"size": 16}, "schedule": {"shape": "cosine", "base_lr": 0.01, "warmup": 0.1}}
"""The preset for short runs: the paper's four decays come before new layers have learned anything."""

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
    small=SMALL,
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
)

PTL_DENSENET161 = replace(
    PTL_RESNET50,
    name="ptl-densenet161",
    title="Progressive transfer learning on DenseNet-161",
    recipe=ProgressiveSettings(backbone="densenet161"),
)
