"""Weights files are recognised as those of a backbone."""

from __future__ import annotations

import pytest
import torch

from reid_core.backbones import BackboneName, build_backbone
from reid_core.backbones.weights import find_backbone
from reid_core.errors import WeightsError


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "mobilenet_v2"])
def test_a_backbone_is_known_by_its_weights(name: BackboneName) -> None:
    weights = build_backbone(name, last_stride=1).state_dict() | {"fc.weight": torch.zeros(1000, 512)}
    assert find_backbone(weights, source="a file") == name


def test_weights_of_no_backbone_are_refused_with_the_known_ones() -> None:
    with pytest.raises(WeightsError, match="fits none") as caught:
        find_backbone({"conv1.weight": torch.zeros(1)}, source="a file")
    assert "mobilenet_v2" in caught.value.hint
