"""A backbone with one global embedding: average pooling and the batch normalisation neck (Luo et al. 2019)."""

from __future__ import annotations

from torch import Tensor

from reid_core.backbones import GlobalBackboneName, build_global_backbone, pool
from reid_core.heads.bnneck import BNNeck
from reid_core.network import Output, ReidNetwork


class GlobalNetwork(ReidNetwork):
    """Backbone, global pooling, BNNeck. (B, 3, H, W) to an `Output`.

    The embedding comes after the neck, the feature for metric losses before it.
    """

    def __init__(self, backbone: GlobalBackboneName, num_classes: int, *, last_stride: int) -> None:
        super().__init__()
        self.backbone = build_global_backbone(backbone, last_stride=last_stride)
        self.embedding_size = self.backbone.channels[-1]
        self.neck = BNNeck(self.embedding_size, num_classes)

    def forward(self, images: Tensor) -> Output:
        feature, feature_map = pool(self.backbone, images)
        before, after, logits = self.neck(feature)
        return Output(embedding=after, features=[before], logits=[logits], feature_map=feature_map)
