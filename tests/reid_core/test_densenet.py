"""DenseNet as a backbone: torchvision's maps and names, its old weight files, and the last stride."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from reid_core.backbones import build_backbone
from reid_core.backbones.densenet import DenseNet
from reid_core.backbones.weights import load_backbone_weights


def make_images(height: int = 64, width: int = 32) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def give_statistics(network: torch.nn.Module) -> None:
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)


def old_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As torchvision's files name them: norm.1 for norm1 and so on, inside dense layers."""
    return {re.sub(r"(denselayer\d+\.\w+)([12])\.", r"\1.\2.", name): tensor for name, tensor in weights.items()}


def test_the_last_map_is_torchvisions_and_its_files_old_names_fit() -> None:
    # Beside a CPU build of PyTorch torchvision can be imported only once reid_core has been.
    from torchvision import models

    reference = models.densenet121(weights=None).eval()
    give_statistics(reference)
    weights = old_names(reference.state_dict())
    assert "features.denseblock1.denselayer1.norm.1.weight" in weights
    backbone = build_backbone("densenet121", last_stride=2).eval()
    transfer = load_backbone_weights(backbone, weights, source="torchvision's weights")
    assert transfer.left_out == ("classifier.bias", "classifier.weight")
    assert transfer.kept == ()
    with torch.no_grad():
        maps = backbone(make_images())
        torch.testing.assert_close(maps[-1], functional.relu(reference.features(make_images())))
    assert [each.shape[1:] for each in maps] == [(256, 16, 8), (512, 8, 4), (1024, 4, 2), (1024, 2, 1)]
    assert tuple(each.shape[1] for each in maps) == backbone.channels


def test_with_last_stride_1_the_last_map_has_the_third_ones_size() -> None:
    maps = build_backbone("densenet121", last_stride=1)(make_images())
    assert maps[3].shape[2:] == maps[2].shape[2:] == (4, 2)


def test_a_dropped_last_stage_leaves_the_first_three_maps() -> None:
    whole = build_backbone("densenet121", last_stride=2).eval()
    short = build_backbone("densenet121", last_stride=2).eval()
    short.drop_last_stage(last_stride=2)
    load_backbone_weights(short, whole.state_dict(), source="the whole")
    with torch.no_grad():
        for own, wanted in zip(short(make_images()), whole(make_images())[:3], strict=True):
            assert torch.equal(own, wanted)
    assert len(short.channels) == 3
    assert not any("denseblock4" in name for name in short.state_dict())


def test_densenet161_has_its_published_widths_and_parameters() -> None:
    with torch.device("meta"):
        backbone = DenseNet("densenet161", last_stride=2)
        shapes = [each.shape for each in backbone(make_images(256, 128).to("meta"))]
    assert backbone.channels == (384, 768, 2112, 2208)
    assert shapes == [(2, 384, 64, 32), (2, 768, 32, 16), (2, 2112, 16, 8), (2, 2208, 8, 4)]
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    # torchvision's number, less its classifier of 1,000 classes.
    assert parameters == 28_681_000 - (2208 * 1000 + 1000)


@pytest.mark.parametrize("last_stride", [1, 2])
def test_every_densenet_parameter_learns(last_stride: int) -> None:
    backbone = build_backbone("densenet121", last_stride=last_stride)
    backbone(make_images())[-1].square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in backbone.parameters())
