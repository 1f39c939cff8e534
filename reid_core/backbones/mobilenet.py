"""MobileNetV2 (Sandler et al. 2018) as torchvision builds it, without the classifier, giving the map of every stage."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision import models

from reid_core.backbones.resnet import remove_stride

_STEM_END = 2
_STAGE_ENDS = (4, 7, 14, 19)


class MobileNetV2(nn.Module):
    """MobileNetV2, width 1.0.

    Shape: (B, 3, H, W) to four maps of 24, 32, 96 and 1280 channels, at strides 4, 8, 16 and 32 (16 with
    `last_stride=1`).
    """

    stem_channels, stem_stride = 16, 2

    def __init__(self, last_stride: int) -> None:
        super().__init__()
        self.features = models.mobilenet_v2(weights=None).features
        self.channels: tuple[int, ...] = (24, 32, 96, 1280)
        if last_stride == 1:
            remove_stride(self.features[_STAGE_ENDS[2]])

    def drop_last_stage(self, last_stride: int) -> None:
        """For methods that take the third stage's map; forward then gives three maps, the last at stride 16 (8 with
        `last_stride=1`)."""
        if last_stride == 1:
            remove_stride(self.features[_STAGE_ENDS[1]])
        self.channels = self.channels[:3]
        self.features = self.features[: _STAGE_ENDS[2]]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.stages(self.stem(images))

    def stem(self, images: Tensor) -> Tensor:
        """Computes the input of the first stage."""
        stem: Tensor = self.features[:_STEM_END](images)
        return stem

    def stages(self, stem: Tensor) -> tuple[Tensor, ...]:
        """The map of every stage, from the stem's."""
        maps = []
        start, current = _STEM_END, stem
        for end in _STAGE_ENDS[: len(self.channels)]:
            current = self.features[start:end](current)
            maps.append(current)
            start = end
        return tuple(maps)
