"""DenseNet (Huang et al. 2017) as torchvision builds it, without the classifier, giving the map of every stage."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional
from torchvision import models


class DenseNet(nn.Module):
    """DenseNet-121/161.

    A stage's map is what its dense block gives; the last one's is normalised and rectified, as before torchvision's
    classifier. With `last_stride=1` the transition to the last block does not pool.

    Shape: (B, 3, H, W) to four maps, at strides 4, 8, 16 and 32 (16 with `last_stride=1`); odd sizes are rounded down.
    """

    stem_stride = 4

    def __init__(self, depth: Literal["densenet121", "densenet161"], last_stride: int) -> None:
        super().__init__()
        self.features = features = models.get_model(depth, weights=None).features
        if last_stride == 1:
            features.transition3.pool = nn.Identity()
        self.stem_channels = int(features.conv0.out_channels)
        norms = (features.transition1.norm, features.transition2.norm, features.transition3.norm, features.norm5)
        self.channels: tuple[int, ...] = tuple(norm.num_features for norm in norms)

    def drop_last_stage(self, last_stride: int) -> None:
        """For methods that take the third stage's map; forward then gives three maps, the last at stride 16 (8 with
        `last_stride=1`)."""
        if last_stride == 1:
            self.features.transition2.pool = nn.Identity()
        self.channels = self.channels[:3]
        del self.features.transition3, self.features.denseblock4, self.features.norm5

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.stages(self.stem(images))

    def stem(self, images: Tensor) -> Tensor:
        """Computes the input of the first stage."""
        features = self.features
        stem: Tensor = features.pool0(features.relu0(features.norm0(features.conv0(images))))
        return stem

    def stages(self, stem: Tensor) -> tuple[Tensor, ...]:
        """The map of every stage, from the stem's."""
        features = self.features
        first = features.denseblock1(stem)
        second = features.denseblock2(features.transition1(first))
        third = features.denseblock3(features.transition2(second))
        if len(self.channels) == 3:
            return first, second, third
        fourth = features.denseblock4(features.transition3(third))
        return first, second, third, functional.relu(features.norm5(fourth))
