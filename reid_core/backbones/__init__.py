"""Backbones by name: each turns images into the feature maps of its stages.

A backbone is an `nn.Module` with `channels`, the width of every stage, whose forward maps (B, 3, H, W) to a tuple of
stage maps, shallow first, at strides 4, 8, 16 and 32 (16 with `last_stride=1`). What lies before the first stage is its
`stem`, of `stem_channels` at `stem_stride`. Parameter names are torchvision's, so that its weights fit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor

from reid_core import _torchvision_guard as _torchvision_guard
from reid_core.backbones.densenet import DenseNet
from reid_core.backbones.mobilenet import MobileNetV2
from reid_core.backbones.modern import Hierarchical, VisionTransformer
from reid_core.backbones.resnet import ResNet

Backbone = ResNet | DenseNet | MobileNetV2
BackboneName = Literal[
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "densenet121", "densenet161", "mobilenet_v2"
]
GlobalBackbone = Backbone | VisionTransformer | Hierarchical
GlobalBackboneName = Literal[BackboneName, "vit_b_16", "swin_t", "convnext_tiny"]
"""Backbones for methods that take nothing but one feature of the whole image."""

BACKBONES: dict[BackboneName, Callable[[int], Backbone]] = {
    "resnet18": partial(ResNet, "resnet18"),
    "resnet34": partial(ResNet, "resnet34"),
    "resnet50": partial(ResNet, "resnet50"),
    "resnet101": partial(ResNet, "resnet101"),
    "resnet152": partial(ResNet, "resnet152"),
    "densenet121": partial(DenseNet, "densenet121"),
    "densenet161": partial(DenseNet, "densenet161"),
    "mobilenet_v2": MobileNetV2,
}

GLOBAL_BACKBONES: dict[GlobalBackboneName, Callable[[int], GlobalBackbone]] = {
    **{name: build for name, build in BACKBONES.items()},  # noqa: C416  a dict of more names
    "vit_b_16": VisionTransformer,
    "swin_t": partial(Hierarchical, "swin_t"),
    "convnext_tiny": partial(Hierarchical, "convnext_tiny"),
}

DEPTHWISE: frozenset[GlobalBackboneName] = frozenset({"mobilenet_v2"})
"""Backbones of depthwise convolutions, which bf16 autocast slows down on CPUs."""


def build_backbone(name: BackboneName, *, last_stride: int) -> Backbone:
    """A randomly initialised backbone; `last_stride` (1 or 2) is the stride of its last stage."""
    return BACKBONES[name](last_stride)


def build_global_backbone(name: GlobalBackboneName, *, last_stride: int) -> GlobalBackbone:
    """The same, of any backbone.

    Raises:
        SettingsError: `last_stride` is 1 for a backbone whose last stage has no stride to leave out.
    """
    return GLOBAL_BACKBONES[name](last_stride)


def pool(backbone: GlobalBackbone, images: Tensor) -> tuple[Tensor, Tensor]:
    """The feature (B, C) of whole images and the last map (B, C, h, w): its mean, or what a transformer gives."""
    if isinstance(backbone, VisionTransformer | Hierarchical):
        return backbone.pooled(images)
    last = backbone(images)[-1]
    return last.mean(dim=(2, 3)), last
