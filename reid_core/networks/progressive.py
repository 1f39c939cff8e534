"""Fine-tuned backbones, plain and with progressive transfer learning (Yu et al. 2019, sections 3.2 and 5.2)."""

from __future__ import annotations

from torch import Tensor, nn

from reid_core.backbones import BackboneName, GlobalBackboneName, build_backbone, build_global_backbone, pool
from reid_core.heads.classifier import ThreeLayerClassifier
from reid_core.heads.progressive import Pointwise, ProgressiveBranch, append_cell
from reid_core.network import Output, ReidNetwork

_FEATURE_SIZE = 512
"""The paper gives no size of the feature; this is what its parameter counts agree with (`benchmarks/parameters.py`)."""


class PlainNetwork(ReidNetwork):
    """Backbone, average pooling, three-layer classifier: the baselines of tables 1 and 2. (B, 3, H, W) to `Output`."""

    def __init__(self, backbone: GlobalBackboneName, num_classes: int, *, last_stride: int) -> None:
        super().__init__()
        self.backbone = build_global_backbone(backbone, last_stride=last_stride)
        self.embedding_size = self.backbone.channels[-1]
        self.classifier = ThreeLayerClassifier(self.embedding_size, num_classes)

    def forward(self, images: Tensor) -> Output:
        return _classify(*pool(self.backbone, images), self.classifier)


class ProgressiveNetwork(ReidNetwork):
    """The same with cells: the last one's output and the last stage's, fused, make the feature (figure 1)."""

    def __init__(self, backbone: BackboneName, num_classes: int, *, last_stride: int, carry_state: bool = True) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, last_stride=last_stride)
        *paired, last = self.backbone.channels
        self.branch = ProgressiveBranch(
            (self.backbone.stem_channels, *paired),
            (self.backbone.stem_stride, 4, 8, 16),
            (last_stride,),
            last,
            carry_state=carry_state,
        )
        self.fusion = Pointwise(last + self.branch.width, _FEATURE_SIZE)
        self.embedding_size = _FEATURE_SIZE
        self.classifier = ThreeLayerClassifier(_FEATURE_SIZE, num_classes)

    def reset_state(self) -> None:
        """Forgets the latent state, as every epoch begins."""
        self.branch.reset()

    def forward(self, images: Tensor) -> Output:
        stem = self.backbone.stem(images)
        *paired, last = self.backbone.stages(stem)
        (carried,) = self.branch(images, (stem, *paired))
        fused = self.fusion(append_cell(last, carried))
        return _classify(fused.mean(dim=(2, 3)), fused, self.classifier)


def _classify(feature: Tensor, feature_map: Tensor, classifier: nn.Module) -> Output:
    return Output(embedding=feature, features=[feature], logits=[classifier(feature)], feature_map=feature_map)
