"""Instance normalisation inside a backbone, against the style of single cameras (Pan et al. 2018, "IBN-Net").

`block` is what paper 000 describes (section 5.1): one layer appended to the last block of the first and of the second
stage. `ibn-b` also replaces the first batch normalisation, `ibn-a` instead half of the first one of every block of the
first three stages.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck

from reid_core.backbones import Backbone
from reid_core.backbones.mobilenet import MobileNetV2
from reid_core.backbones.resnet import ResNet
from reid_core.errors import Fault, SettingsError

InstanceNorm = Literal["none", "block", "ibn-a", "ibn-b"]
Normalisable = ResNet | MobileNetV2

_MOBILENET_STAGES = ((1, 4), (4, 7), (7, 14))
"""The ranges of `features` that hold MobileNetV2's first three stages."""


def insert_instance_norm(backbone: Backbone, variant: InstanceNorm) -> None:
    """Changes the freshly built backbone; what is not replaced keeps its parameter names.

    Raises:
        SettingsError: the variant is not defined for dense blocks.
    """
    if variant == "none":
        return
    if not isinstance(backbone, Normalisable):
        message = f"instance_norm {variant!r} is not defined for dense blocks"
        raise SettingsError(
            f"{message[0].upper()}{message[1:]}.",
            faults=[Fault("/instance_norm", "not-for-this-backbone", message)],
            hint="Use instance_norm none, or a resnet or mobilenet_v2 backbone.",
        )
    if variant == "ibn-a":
        _halve_first_norms(backbone)
    if variant in ("block", "ibn-b"):
        _append_to_stages(backbone)
    if variant == "ibn-b":
        _replace_first_norm(backbone)


def find_instance_norm(names: Collection[str]) -> InstanceNorm:
    """The variant of a ResNet with parameters of these names, as `names.translate` gives them."""
    if any(".bn1.instance." in name for name in names):
        return "ibn-a"
    if not any(".instance." in name for name in names):
        return "none"
    return "block" if "bn1.running_mean" in names else "ibn-b"


class HalfInstanceNorm(nn.Module):
    """Instance normalisation of the first half of the channels, batch normalisation of the others (IBN-a)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_instance = channels // 2
        self.instance = nn.InstanceNorm2d(self.num_instance, affine=True)
        self.batch = nn.BatchNorm2d(channels - self.num_instance)

    def forward(self, maps: Tensor) -> Tensor:
        first, second = maps.split([self.num_instance, maps.shape[1] - self.num_instance], dim=1)
        return torch.cat([self.instance(first), self.batch(second)], dim=1)


INSERTED = (nn.InstanceNorm2d, HalfInstanceNorm)
"""Layers that a backbone has beyond torchvision's: torchvision's weights hold nothing for them."""


class NormalisedBasicBlock(BasicBlock):  # type: ignore[misc]  # torchvision carries no types
    """torchvision's basic block with instance normalisation between the residual sum and the last ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)
        self.instance = nn.InstanceNorm2d(channels, affine=True)

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.relu(self.bn1(self.conv1(maps)))
        normalised: Tensor = self.relu(self.instance(self.bn2(self.conv2(inner)) + maps))
        return normalised


class NormalisedBottleneck(Bottleneck):  # type: ignore[misc]
    """torchvision's bottleneck with instance normalisation between the residual sum and the last ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels // Bottleneck.expansion)
        self.instance = nn.InstanceNorm2d(channels, affine=True)

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.relu(self.bn1(self.conv1(maps)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        normalised: Tensor = self.relu(self.instance(self.bn3(self.conv3(inner)) + maps))
        return normalised


def _append_to_stages(backbone: Normalisable) -> None:
    if isinstance(backbone, ResNet):
        for stage, channels in ((backbone.layer1, backbone.channels[0]), (backbone.layer2, backbone.channels[1])):
            block = NormalisedBasicBlock if isinstance(stage[-1], BasicBlock) else NormalisedBottleneck
            stage[-1] = block(channels)
        return
    for (_, end), channels in zip(_MOBILENET_STAGES[:2], backbone.channels, strict=False):
        # An inverted residual ends without a ReLU, so the layer goes behind it.
        backbone.features[end - 1].conv.append(nn.InstanceNorm2d(channels, affine=True))


def _halve_first_norms(backbone: Normalisable) -> None:
    if isinstance(backbone, ResNet):
        for stage in (backbone.layer1, backbone.layer2, backbone.layer3):
            for block in stage:
                block.bn1 = HalfInstanceNorm(block.bn1.num_features)
        return
    for start, end in _MOBILENET_STAGES:
        for block in backbone.features[start:end]:
            if isinstance(block, InvertedResidual):
                block.conv[0][1] = HalfInstanceNorm(block.conv[0][1].num_features)


def _replace_first_norm(backbone: Normalisable) -> None:
    if isinstance(backbone, ResNet):
        backbone.bn1 = nn.InstanceNorm2d(backbone.bn1.num_features, affine=True)
    else:
        backbone.features[0][1] = nn.InstanceNorm2d(backbone.features[0][1].num_features, affine=True)
