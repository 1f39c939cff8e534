"""The BNNeck strong baseline and its camera-label biased batch-hard mining (paper 001).

Luo et al. 2019, "A Strong Baseline and Batch Normalization Neck for Deep Person Re-identification", arXiv:1906.08332;
"Deep Person Re-Identification with Camera-Label Based Batch Hard Mining" (slides), which adds the camera bias.

loss = identity (label-smoothed, after the neck) + triplet (batch hard, before the neck) + 0.0005 center (before it).
Search compares the vector after the neck.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field
from torch import Tensor, nn, optim

from reid_core.backbones import GlobalBackboneName
from reid_core.losses.center import CenterLoss
from reid_core.losses.distance import euclidean
from reid_core.losses.dynamic import DynamicLosses, DynamicSettings
from reid_core.losses.identity import identity_accuracy, identity_loss
from reid_core.losses.triplet import (
    CameraBias,
    Hardest,
    NegativeBias,
    StdOver,
    batch_hard,
    camera_biased_batch_hard,
    triplet_accuracy,
    triplet_loss,
)
from reid_core.methods.method import Losses, Method, Moment, OptimizerName, Teacher, build_optimizer
from reid_core.network import Batch, Output, ReidNetwork
from reid_core.networks.bnneck import GlobalNetwork
from reid_core.sampling import Draw, Epoch
from reid_core.sampling.alternating import BALANCED, RANDOM, draw_random_and_balanced
from reid_core.sampling.identities import draw_identity_batches
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


class CenterSettings(Part):
    weight: float = Field(default=5e-4, ge=0, description="0 leaves the center loss out")
    learning_rate: float = Field(default=0.5, gt=0, description="plain gradient descent on the centers, not scheduled")


class BnneckSettings(TrainingSettings):
    """The strong baseline: all of its six tricks (warm-up, erasing, smoothing, last stride, BNNeck, center loss)."""

    backbone: GlobalBackboneName = "resnet50"
    last_stride: Literal[1, 2] = 1
    image: ImageSize = ImageSize(height=256, width=128)
    batch: IdentityBatch = IdentityBatch(identities=16, images_per_identity=4)
    schedule: Schedule = Schedule(
        epochs=120, base_lr=3.5e-4, warmup=10 / 120, warmup_start=0.1, decay_at=(40 / 120, 70 / 120), decay_factor=0.1
    )
    augmentation: Augmentation = Augmentation(
        flip=0.5, padding=10, erasing=Erasing(probability=0.5, area=(0.02, 0.4), aspect=1 / 0.3)
    )
    optimizer: OptimizerName = "adam"
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd")
    label_smoothing: Fraction = 0.1
    margin: float = Field(default=0.3, ge=0, description="of the triplet loss, in Euclidean distance")
    center: CenterSettings = CenterSettings()
    # Not of the baseline: paper 002's scheme, for the identity and the triplet loss.
    dynamic: DynamicSettings = DynamicSettings(enabled=False)


class MiningSettings(Part):
    """The bias k std(D) / (1 + m t) and every reading that the slides leave open; defaults as the slides draw it."""

    k: float = Field(default=5, ge=0)
    m: float = Field(default=0.1, ge=0, description="0 never decays")
    decay_per: Literal["iteration", "epoch"] = Field(default="iteration", description="what t counts")
    negative_bias: NegativeBias = Field(default="farther", description="where same-camera negatives are moved")
    std_over: StdOver = "masked_matrix"
    bias_epochs: int | None = Field(default=None, ge=0, description="bias only in the first epochs; null: in all")


class BnneckCameraSettings(BnneckSettings):
    # The slides train with batches of 16; the baseline's 64 is kept so that the two methods compare.
    mining: MiningSettings = MiningSettings()


SMALL = {
    "batch": {"identities": 8, "images_per_identity": 4},
    "schedule": {"shape": "cosine", "base_lr": 2e-3, "warmup": 0.1},
}
"""The preset for short runs: the paper's decays come before new layers have learned anything."""


def build_network(settings: BnneckSettings, num_classes: int) -> GlobalNetwork:
    """Builds the backbone with global average pooling and the neck."""
    return GlobalNetwork(settings.backbone, num_classes, last_stride=settings.last_stride)


class BnneckCriterion(nn.Module):
    """Identity + triplet + center loss; with `BnneckCameraSettings` the triplets are mined with the camera bias.

    With dynamic losses the center loss goes with the triplet loss: left out where that is, and weighted as it is.
    """

    def __init__(
        self, settings: BnneckSettings, num_classes: int, network: ReidNetwork, teacher: Teacher | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.center = CenterLoss(num_classes, network.embedding_size, settings.center.weight)
        # Only where it is used: it would be a part of every checkpoint.
        enabled = settings.dynamic.enabled
        self.dynamic = DynamicLosses("identity_loss", "triplet_loss", settings.dynamic) if enabled else None

    def forward(self, output: Output, batch: Batch, moment: Moment) -> Losses:
        (feature,), (logits,) = output.features, output.logits
        distances = euclidean(feature)
        hardest = self._mine(distances, batch, moment)
        losses = {
            "identity_loss": identity_loss(logits, batch.identities, smoothing=self.settings.label_smoothing),
            "triplet_loss": triplet_loss(distances, hardest, margin=self.settings.margin),
        }
        accuracies = {
            "identity_accuracy": identity_accuracy(logits, batch.identities),
            "triplet_accuracy": triplet_accuracy(distances, hardest),
        }
        if self.dynamic is None:
            return Losses(losses | self._center_loss(feature, batch, 1.0), accuracies)
        if not hardest.valid.any():
            del losses["triplet_loss"]
        scale = self.dynamic.weigh(losses)["triplet_loss"]
        terms, measures = self.dynamic.step(losses)
        return Losses(terms | self._center_loss(feature, batch, scale), accuracies | measures)

    def _center_loss(self, feature: Tensor, batch: Batch, scale: float) -> dict[str, Tensor]:
        if self.settings.center.weight == 0 or scale == 0:
            return {}
        return {"center_loss": self.center(feature, batch.identities, scale=scale)}

    def _mine(self, distances: Tensor, batch: Batch, moment: Moment) -> Hardest:
        if not isinstance(self.settings, BnneckCameraSettings):
            return batch_hard(distances, batch.identities)
        mining = self.settings.mining
        if mining.bias_epochs is not None and moment.epoch >= mining.bias_epochs:
            return batch_hard(distances, batch.identities)
        bias = CameraBias(size=mining.k, decay=mining.m, negatives=mining.negative_bias, std_over=mining.std_over)
        time = moment.step if mining.decay_per == "iteration" else moment.epoch
        return camera_biased_batch_hard(distances, batch.identities, batch.cameras, bias, time)


def build_optimizers(
    settings: BnneckSettings, network: ReidNetwork, criterion: BnneckCriterion
) -> list[optim.Optimizer]:
    """Adam, unless another is named, for the network, plain gradient descent for the centers."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    centers = {"params": criterion.center.parameters(), "scheduled": False}
    ours = build_optimizer(settings.optimizer, trainable, settings)
    return [ours, optim.SGD([centers], lr=settings.center.learning_rate)]


def draw_batches(settings: BnneckSettings, epoch: Epoch) -> Draw:
    """P x K batches; with dynamic losses random ones of that size beside them."""
    if settings.dynamic.enabled:
        return Draw(draw_random_and_balanced(epoch.identities, settings.batch, epoch.generator))
    return Draw((draw_identity_batches(epoch.identities, settings.batch, epoch.generator),))


def choose_stream(criterion: BnneckCriterion) -> int:
    """With dynamic losses balanced batches for all losses, random ones for the identity loss alone."""
    if criterion.dynamic is None:
        return 0
    return BALANCED if criterion.dynamic.branch == "both" else RANDOM


BNNECK = Method(
    name="bnneck",
    title="BNNeck strong baseline",
    paper="Luo et al. 2019, A Strong Baseline and Batch Normalization Neck for Deep Person Re-identification",
    summary="One global feature; identity, batch-hard triplet and center loss; batch normalisation between them.",
    recipe=BnneckSettings(),
    build_network=build_network,
    build_criterion=BnneckCriterion,
    build_optimizers=build_optimizers,
    draw_batches=draw_batches,
    choose_stream=choose_stream,
    small=SMALL,
)

BNNECK_CAMERA = replace(
    BNNECK,
    name="bnneck-camera",
    title="Camera-label biased batch-hard mining",
    paper="Deep Person Re-Identification with Camera-Label Based Batch Hard Mining (slides, on the BNNeck baseline)",
    summary="The strong baseline, its triplets mined with a decaying bias on the distances of same-camera pairs.",
    recipe=BnneckCameraSettings(),
)
