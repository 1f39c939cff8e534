"""The contract of every backbone: the strides of its maps, and a third stage that is the last."""

from __future__ import annotations

import pytest
import torch

from reid_core.backbones import BackboneName, build_backbone
from reid_core.methods.qaconv import QACONV_PK, PairwiseSettings
from reid_core.settings import ImageSize

ONE_OF_EACH_KIND: tuple[BackboneName, ...] = ("resnet18", "densenet121", "mobilenet_v2")


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
@pytest.mark.parametrize(("last_stride", "size"), [(2, (4, 2)), (1, (8, 4))])
def test_the_third_stage_as_the_last_one_has_the_last_stride(
    name: BackboneName, last_stride: int, size: tuple[int, int]
) -> None:
    backbone = build_backbone(name, last_stride=2).eval()
    backbone.drop_last_stage(last_stride=last_stride)
    maps = backbone(torch.zeros(1, 3, 64, 32))
    assert len(maps) == len(backbone.channels) == 3
    assert maps[2].shape[1:] == (backbone.channels[2], *size)
    assert maps[1].shape[2:] == (8, 4)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
@pytest.mark.parametrize("last_stride", [1, 2])
def test_a_matchers_map_has_the_shape_that_its_network_names(name: BackboneName, last_stride: int) -> None:
    image = ImageSize(height=64, width=32)
    instance_norm = "none" if name.startswith("densenet") else "block"
    settings = PairwiseSettings(backbone=name, image=image, last_stride=last_stride, instance_norm=instance_norm)
    with torch.device("meta"):
        network = QACONV_PK.build_network(settings, 2).eval()
        feature_map = network(torch.zeros(1, 3, 64, 32)).feature_map
    channels, height, width = feature_map.shape[1:]
    assert (height, width, channels) == network.map_shape == (64 // (8 * last_stride), 32 // (8 * last_stride), 64)
