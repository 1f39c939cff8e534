"""The Multiple Granularity Network (Wang et al. 2018), plain and with progressive transfer (Yu et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from reid_core.backbones import BackboneName
from reid_core.backbones.branched import BranchedBackbone
from reid_core.heads.mgn import MgnHead
from reid_core.heads.progressive import ProgressiveBranch, append_cell
from reid_core.network import Output, ReidNetwork

_LAST_STRIDES = (2, 1, 1)
_FEATURE_SIZE = 256


class MgnNetwork(ReidNetwork):
    """Three branches from the second block at stride 16 on. (B, 3, H, W) to `Output`.

    The embedding is the eight features one after the other; metric losses take the three global ones.
    """

    embedding_size = MgnHead.num_features * _FEATURE_SIZE

    def __init__(self, backbone: BackboneName, num_classes: int) -> None:
        super().__init__()
        self.backbone = BranchedBackbone(backbone, _LAST_STRIDES)
        self.head = MgnHead(self.backbone.channels, num_classes, _FEATURE_SIZE)

    def forward(self, images: Tensor) -> Output:
        _, maps = self.backbone(images)
        return _to_output(self.head, maps)


class ProgressiveMgnNetwork(ReidNetwork):
    """The same with cells: each branch's map is joined by a last cell's of its own before it is pooled."""

    embedding_size = MgnHead.num_features * _FEATURE_SIZE

    def __init__(self, backbone: BackboneName, num_classes: int, *, carry_state: bool = True) -> None:
        super().__init__()
        self.backbone = BranchedBackbone(backbone, _LAST_STRIDES)
        self.branch = ProgressiveBranch(
            self.backbone.trunk_channels,
            self.backbone.trunk_strides,
            _LAST_STRIDES,
            self.backbone.channels,
            carry_state=carry_state,
        )
        self.head = MgnHead(self.backbone.channels + self.branch.width, num_classes, _FEATURE_SIZE)

    def reset_state(self) -> None:
        """Forgets the latent state, as every epoch begins."""
        self.branch.reset()

    def forward(self, images: Tensor) -> Output:
        trunk, tails = self.backbone(images)
        cells = self.branch(images, trunk)
        return _to_output(self.head, list(map(append_cell, tails, cells)))


def _to_output(head: MgnHead, maps: Sequence[Tensor]) -> Output:
    features, logits = head(maps)
    return Output(
        embedding=features.flatten(1),
        features=[*features[:, : len(maps)].unbind(1)],
        logits=[*logits.unbind(1)],
    )
