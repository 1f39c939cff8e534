"""A backbone that ends several times, as the Multiple Granularity Network needs it (Wang et al. 2018, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from reid_core.backbones import Backbone, BackboneName, build_backbone
from reid_core.backbones.densenet import DenseNet
from reid_core.backbones.mobilenet import MobileNetV2
from reid_core.backbones.resnet import ResNet

# The first block at stride 16 (res_conv4_1) is the last that all branches share. DenseNet's blocks cannot be cut, so
# there it is the transition to that stride.
_LAST_SHARED: dict[type[Backbone], str] = {
    ResNet: "layer3.0",
    MobileNetV2: "features.7",
    DenseNet: "features.transition2",
}


class BranchedBackbone(nn.Module):
    """A trunk, and for every one of `last_strides` a tail that begins as a copy of the first and has its own weights.

    Parameter names are torchvision's behind `trunk.` or `tails.<i>.`; weights of the whole backbone fit
    (`load_backbone_weights`) and go to every tail.

    Attributes:
        channels: width of the tails' maps.
        trunk_channels, trunk_strides: of the trunk's four maps: the stem's, two stages', and the one the tails take.

    Shape: (B, 3, H, W) to the trunk's maps and the tails' maps, (B, channels, H/32, W/32) or /16 where the last stride
    is 1.
    """

    def __init__(self, name: BackboneName, last_strides: Sequence[int]) -> None:
        super().__init__()
        self.trunk = build_backbone(name, last_stride=2)
        self.tails = nn.ModuleList(build_backbone(name, last_stride=stride) for stride in last_strides)
        parts = _part_names(self.trunk)
        end = parts.index(_LAST_SHARED[type(self.trunk)]) + 1
        _blank(self.trunk, parts[end:])
        for tail in self.tails:
            _blank(tail, parts[:end])
            tail.load_state_dict(self.tails[0].state_dict())
        self.channels = self.trunk.channels[-1]
        self.trunk_channels = (self.trunk.stem_channels, *self.trunk.channels[:2], _input_channels(self.tails[0]))
        self.trunk_strides = (self.trunk.stem_stride, 4, 8, 16)

    def forward(self, images: Tensor) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        stem = self.trunk.stem(images)
        first, second, shared, _ = self.trunk.stages(stem)
        return (stem, first, second, shared), [tail(shared)[-1] for tail in self.tails]


def _part_names(backbone: nn.Module) -> list[str]:
    """The backbone's parts in the order in which an image passes them; a part of blocks is given block by block."""
    return [
        f"{name}.{block}" if block else name
        for name, part in backbone.named_children()
        for block in [block for block, _ in part.named_children()] or [""]
    ]


def _blank(backbone: nn.Module, parts: Iterable[str]) -> None:
    for part in parts:
        parent, _, name = part.rpartition(".")
        setattr(backbone.get_submodule(parent), name, nn.Identity())


def _input_channels(tail: nn.Module) -> int:
    convolution = next(module for module in tail.modules() if isinstance(module, nn.Conv2d))
    return convolution.in_channels
