"""ResNet (He et al. 2016) as torchvision builds it, without the classifier, giving the map of every stage."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torchvision import models

Depth = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]


class ResNet(nn.Module):
    """ResNet-18/34/50/101/152.

    The strong baseline's code has no ReLU after the first convolution; this is torchvision's, which has.

    Shape: (B, 3, H, W) to four maps, at strides 4, 8, 16 and 32 (16 with `last_stride=1`).
    """

    stem_channels, stem_stride = 64, 4

    def __init__(self, depth: Depth, last_stride: int) -> None:
        super().__init__()
        network = models.get_model(depth, weights=None)
        if last_stride == 1:
            remove_stride(network.layer4[0])
        self.conv1, self.bn1 = network.conv1, network.bn1
        self.relu, self.maxpool = network.relu, network.maxpool
        self.layer1, self.layer2 = network.layer1, network.layer2
        self.layer3 = network.layer3
        self.layer4: nn.Module | None = network.layer4
        width = network.fc.in_features
        self.channels: tuple[int, ...] = (width // 8, width // 4, width // 2, width)

    def drop_last_stage(self, last_stride: int) -> None:
        """For methods that take the third stage's map; forward then gives three maps, the last at stride 16 (8 with
        `last_stride=1`)."""
        if last_stride == 1:
            remove_stride(self.layer3[0])
        self.layer4 = None
        self.channels = self.channels[:3]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.stages(self.stem(images))

    def stem(self, images: Tensor) -> Tensor:
        """Computes the input of the first stage."""
        stem: Tensor = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return stem

    def stages(self, stem: Tensor) -> tuple[Tensor, ...]:
        """The map of every stage, from the stem's."""
        first = self.layer1(stem)
        second = self.layer2(first)
        third = self.layer3(second)
        return (first, second, third) if self.layer4 is None else (first, second, third, self.layer4(third))


def remove_stride(block: nn.Module) -> None:
    """Makes every convolution of a stage's first block, its shortcut's too, look at every place. No tensor changes."""
    for convolution in block.modules():
        if isinstance(convolution, nn.Conv2d):
            convolution.stride = (1, 1)
