"""The network of QAConv: a map of unit vectors, and the head that compares two of them (Liao and Shao 2020, 2022)."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from reid_core.backbones import BackboneName, build_backbone
from reid_core.backbones.instance_norm import InstanceNorm, insert_instance_norm
from reid_core.heads.retrieval import RetrievalHead, RetrievalVector
from reid_core.matching import MatchingHead
from reid_core.network import Output, ReidNetwork

NeckNorm = Literal["batch", "none"]

_STRIDES = {1: 8, 2: 16}
"""The stride of the map, by the stride of the third stage."""


class QaconvNetwork(ReidNetwork):
    """Backbone to its third stage, neck convolution, a unit vector at every location. (B, 3, H, W) to an `Output`.

    Args:
        size: height and width of the images, in pixels.
        last_stride: of the third stage, 1 or 2.
    """

    map_shape: tuple[int, int, int]

    def __init__(
        self,
        backbone: BackboneName,
        size: tuple[int, int],
        *,
        last_stride: int,
        instance_norm: InstanceNorm,
        neck_channels: int,
        neck_norm: NeckNorm,
        retrieval: RetrievalVector,
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, last_stride=2)
        self.backbone.drop_last_stage(last_stride)
        insert_instance_norm(self.backbone, instance_norm)
        self.neck = _build_neck(self.backbone.channels[-1], neck_channels, neck_norm)
        height, width = (math.ceil(side / _STRIDES[last_stride]) for side in size)
        self.map_shape = (height, width, neck_channels)
        self.head = MatchingHead(height * width)
        self.retrieval = RetrievalHead(retrieval, self.map_shape)
        self.embedding_size = self.retrieval.size

    def forward(self, images: Tensor) -> Output:
        neck = self.neck(self.backbone(images)[-1])
        feature_map = functional.normalize(neck.float(), dim=1)  # (B, c, h, w)
        return Output(embedding=self.retrieval(feature_map), feature_map=feature_map)


def _build_neck(in_channels: int, out_channels: int, norm: NeckNorm) -> nn.Module:
    """Builds a 3 x 3 convolution without bias and batch normalisation, or a convolution with bias alone."""
    normalised = norm == "batch"
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=not normalised)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels)) if normalised else convolution
