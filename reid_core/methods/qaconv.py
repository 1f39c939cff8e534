"""QAConv with class memory, with pairwise learning, and with graph sampling (paper 000).

Liao and Shao 2022, "Graph Sampling Based Deep Metric Learning for Generalizable Person Re-Identification",
arXiv:2104.01546; the matcher: Liao and Shao 2020, "Interpretable and Generalizable Person Re-Identification with
Query-Adaptive Convolution and Temporal Lifting", arXiv:1904.10424.

Images are compared location by location: `reid_core.matching`. Search needs a vector first: `Retrieval`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn, optim

from reid_core.backbones import BackboneName
from reid_core.backbones.instance_norm import InstanceNorm
from reid_core.heads.retrieval import RetrievalVector
from reid_core.losses.pairwise import memory_loss, pair_accuracy, pairwise_loss
from reid_core.losses.triplet import batch_hard, triplet_loss
from reid_core.matching import FoldedHead, best_correlations, symmetric_scores, to_locations
from reid_core.methods.method import Losses, Method, Moment, Teacher, draw_pk_batches
from reid_core.network import Batch, Output
from reid_core.networks.qaconv import NeckNorm, QaconvNetwork
from reid_core.reranking import Reciprocal, rerank_distances
from reid_core.sampling import Draw, Epoch
from reid_core.sampling.graph import draw_graph_batches
from reid_core.sampling.identities import draw_identity_batches
from reid_core.sampling.random import draw_random_batches
from reid_core.settings import (
    Augmentation,
    ColourJitter,
    Erasing,
    IdentityBatch,
    ImageSize,
    RandomBatch,
    Schedule,
    TrainingSettings,
)

_SCORE_SCALE = 10
"""The authors' distance between two images is 1 - sigmoid(score / 10)."""


class QaconvSettings(TrainingSettings):
    """The paper's section 5.1; where it is silent, the authors' first release of graph sampling."""

    backbone: BackboneName = "resnet50"
    last_stride: Literal[1, 2] = Field(
        default=2, description="of the third stage, the last that is used; 1: maps twice as fine, for small images"
    )
    instance_norm: InstanceNorm = Field(default="block", description="block: as the paper; ibn-b: as the later release")
    neck_channels: int = Field(default=64, ge=8, le=1024, description="of the map; 128 in the later release")
    neck_norm: NeckNorm = Field(
        default="batch",
        description="what follows the neck's convolution; none: nothing, and a bias, as the later release",
    )
    retrieval: RetrievalVector = Field(
        default="stripes", description="the vector that the first stage of search compares"
    )
    image: ImageSize = ImageSize(height=384, width=128)
    normalisation: Literal["imagenet", "none"] = "none"
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    schedule: Schedule = Schedule(
        epochs=15, base_lr=0.005, warmup=0, warmup_start=1, decay_at=(10 / 15,), decay_factor=0.1
    )
    backbone_rate: float = Field(
        default=0.1, ge=0, le=1, description="the backbone's learning rate, as a share of base_lr"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1)
    augmentation: Augmentation = Augmentation(
        flip=0.5,
        padding=10,
        erasing=Erasing(probability=0, area=(0.02, 0.4), aspect=1 / 0.3),
        rotation=5,
        jitter=ColourJitter(low=0.5, high=2, hue=0.1),
        occlusion=0.8,
    )

    @model_validator(mode="before")
    @classmethod
    def _of_an_older_model(cls, values: Any) -> Any:
        """Stored settings name everything of their time; those without `neck_norm` are of a bare convolution."""
        stored = isinstance(values, Mapping) and {"backbone", "schedule", "neck_channels"} <= values.keys()
        return {"neck_norm": "none", **values} if stored else values


class MemoryBatch(RandomBatch):
    """Random batches; or, where identities are named, P of them with K images each."""

    identities: int | None = Field(default=None, ge=2, le=512)
    images_per_identity: int = Field(default=4, ge=1, le=64)

    @property
    def num_images(self) -> int:
        return self.identities * self.images_per_identity if self.identities else self.size


class MemorySettings(QaconvSettings):
    """QAConv with one map of every class in memory."""

    batch: MemoryBatch = MemoryBatch(size=8)


class PairwiseSettings(QaconvSettings):
    """QAConv-P: pairs of the batch instead of a class memory."""

    batch: IdentityBatch = IdentityBatch(identities=16, images_per_identity=4)
    schedule: Schedule = MemorySettings().schedule.model_copy(update={"base_lr": 0.001})
    gradient_clip: float | None = Field(default=512, gt=0)  # graph sampling changes the sampler only
    loss: Literal["pairwise", "triplet"] = Field(default="pairwise", description="triplet: as the later release")
    margin: float = Field(default=16, ge=0, description="of the triplet loss, in matching scores")
    include_self_pairs: bool = Field(default=False, description="in the loss; equation 1 leaves them out")


class GraphSettings(PairwiseSettings):
    """QAConv-P + GS. RandPerson, with its many identities, was trained for 4 epochs, decayed after 2."""

    pk_epochs: int = Field(
        default=1, ge=0, description="first epochs sampled at random, before the graph means anything"
    )
    rerank_graph: bool = Field(default=True, description="k-reciprocal re-ranking of the distances between classes")


SMALL = {
    "batch": {"identities": 8, "images_per_identity": 4},
    "schedule": {"shape": "cosine", "base_lr": 0.01},
    "freeze_backbone_bn": False,
}
"""The preset for short runs of pairwise learning: the statistics of a data set are worth more than the weights' own."""

SMALL_MEMORY = {
    "schedule": {"shape": "cosine", "base_lr": 0.02},
    "freeze_backbone_bn": False,
}
"""The same with class memory, which needs many small steps: its scores are all alike for the first some hundred."""


def build_network(settings: QaconvSettings, num_classes: int) -> QaconvNetwork:
    """Builds the backbone to its third stage, the neck and the matching head."""
    return QaconvNetwork(
        settings.backbone,
        (settings.image.height, settings.image.width),
        last_stride=settings.last_stride,
        instance_norm=settings.instance_norm,
        neck_channels=settings.neck_channels,
        neck_norm=settings.neck_norm,
        retrieval=settings.retrieval,
    )


class PairwiseCriterion(nn.Module):
    """Every image of the batch against every other one.

    The pair of an image with itself is in the matcher's batch statistics, as in the authors' code, and not in the loss,
    as in equation 1. Statistics without these pairs make the first gradient several times as large: the paper's rate
    and clip would mean something else (docs/runs.md).
    """

    def __init__(
        self, settings: PairwiseSettings, num_classes: int, network: QaconvNetwork, teacher: Teacher | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self._score = network.head.forward  # not as a module: the network holds its parameters
        self._retrieval_loss = network.retrieval.loss

    def forward(self, output: Output, batch: Batch, moment: Moment) -> Losses:
        locations = _locations(output)
        scores = self._score(*best_correlations(locations, locations))
        terms = {f"{self.settings.loss}_loss": self._loss(scores, batch.identities)}
        terms |= self._retrieval_loss(output.embedding, batch.identities)
        return Losses(terms, {"pair_accuracy": pair_accuracy(scores.detach(), batch.identities)})

    def _loss(self, scores: Tensor, identities: Tensor) -> Tensor:
        if self.settings.loss == "pairwise":
            return pairwise_loss(scores, identities, include_self_pairs=self.settings.include_self_pairs)
        return triplet_loss(-scores, batch_hard(-scores, identities), margin=self.settings.margin)


class MemoryCriterion(nn.Module):
    """Every image of the batch against one map of every class: that of its last image seen."""

    def __init__(
        self, settings: MemorySettings, num_classes: int, network: QaconvNetwork, teacher: Teacher | None = None
    ) -> None:
        super().__init__()
        height, width, channels = network.map_shape
        self._score = network.head.forward
        self._retrieval_loss = network.retrieval.loss
        self.register_buffer("memory", torch.zeros(num_classes, height * width, channels))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))
        self.memory: Tensor
        self.seen: Tensor

    def forward(self, output: Output, batch: Batch, moment: Moment) -> Losses:
        locations = _locations(output)
        classes = self.seen.nonzero().squeeze(1)
        own = batch.identities[:, None] == classes[None, :]  # (B, classes seen)
        if len(classes):
            scores = self._score(*best_correlations(locations, self.memory[classes]))
        else:
            scores = locations.sum(dim=(1, 2))[:, None][:, :0]
        terms = {"memory_loss": memory_loss(scores, own)} | self._retrieval_loss(output.embedding, batch.identities)
        with torch.no_grad():
            self.memory[batch.identities] = locations.float()
            self.seen[batch.identities] = True
        right = scores.argmax(dim=1) == own.float().argmax(dim=1) if len(classes) else torch.zeros(1)
        return Losses(terms, {"memory_accuracy": right.float().mean()})


def build_optimizers(settings: QaconvSettings, network: QaconvNetwork, criterion: nn.Module) -> list[optim.Optimizer]:
    """Nesterov's gradient descent, the backbone at a tenth of the rate."""
    rate = settings.schedule.base_lr
    backbone = list(network.backbone.parameters())
    inside = {id(parameter) for parameter in backbone}
    others = [parameter for parameter in network.parameters() if id(parameter) not in inside]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": backbone, "lr": settings.backbone_rate * rate}]
    nesterov = settings.momentum > 0
    return [
        optim.SGD(groups, lr=rate, momentum=settings.momentum, weight_decay=settings.weight_decay, nesterov=nesterov)
    ]


def draw_memory_batches(settings: MemorySettings, epoch: Epoch) -> Draw:
    """Random batches, or P x K where the settings name identities."""
    batch = settings.batch
    if batch.identities is None:
        return Draw((draw_random_batches(len(epoch.identities), batch.size, epoch.generator),))
    of_identities = IdentityBatch(identities=batch.identities, images_per_identity=batch.images_per_identity)
    return Draw((draw_identity_batches(epoch.identities, of_identities, epoch.generator),))


def count_graph_steps(settings: GraphSettings, identities: int, images: int) -> int:
    """Counts the steps of a run: in an epoch by the graph every class is once the centre of a batch."""
    epochs = settings.schedule.epochs
    sampled = min(settings.pk_epochs, epochs)
    return sampled * max(1, images // settings.batch.num_images) + (epochs - sampled) * identities


def draw_from_graph(settings: GraphSettings, epoch: Epoch) -> Draw:
    """P x K at first, then batches of nearest classes by the matcher as trained so far."""
    if epoch.number < settings.pk_epochs:
        return draw_pk_batches(settings, epoch)

    def measure(images: Sequence[int]) -> NDArray[np.float32]:
        network: QaconvNetwork = epoch.network  # type: ignore[assignment]  # the one that this method builds
        maps: Tensor = epoch.encode(images).maps  # type: ignore[assignment]  # this network has maps
        device = next(network.parameters()).device
        # On cards the matcher's kernel wants half precision; on CPUs fp32 is converted as the CPU has units for it.
        maps = maps.flatten(1, 2).to(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
        scores = symmetric_scores(maps, matching_head(network)).cpu()
        distances = 1 - torch.sigmoid(scores / _SCORE_SCALE)
        return (rerank_distances(distances, Reciprocal()) if settings.rerank_graph else distances).numpy()

    return draw_graph_batches(epoch.identities, settings.batch, measure, epoch.generator)


def matching_head(network: QaconvNetwork) -> FoldedHead:
    """Folds the matching head, as trained so far, into what scores a pair of local features."""
    return network.head.fold()


def _locations(output: Output) -> Tensor:
    if output.feature_map is None:
        raise TypeError("a QAConv network gives a map")
    return to_locations(output.feature_map)


QACONV = Method(
    name="qaconv",
    title="QAConv with class memory",
    paper="Liao and Shao 2022, Graph Sampling Based Deep Metric Learning for Generalizable Person Re-Identification",
    summary="Images matched location by location, against a map of every class: the paper's baseline.",
    recipe=MemorySettings(),
    build_network=build_network,
    build_criterion=MemoryCriterion,
    build_optimizers=build_optimizers,
    draw_batches=draw_memory_batches,
    matching_head=matching_head,
    small=SMALL_MEMORY,
    statistics_batch=32,
)

QACONV_PK = replace(
    QACONV,
    name="qaconv-pk",
    title="QAConv with pairwise learning",
    summary="Images matched location by location, against the others of a batch of P identities with K images.",
    recipe=PairwiseSettings(),
    build_criterion=PairwiseCriterion,
    draw_batches=draw_pk_batches,
    small=SMALL,
)

QACONV_GS = replace(
    QACONV_PK,
    name="qaconv-gs",
    title="QAConv with graph sampling",
    summary="Pairwise learning in batches of classes that the network finds alike.",
    recipe=GraphSettings(),
    draw_batches=draw_from_graph,
    count_steps=count_graph_steps,
)
