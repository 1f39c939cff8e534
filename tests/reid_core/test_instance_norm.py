"""Instance normalisation inside the backbones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reid_core.backbones import BackboneName, build_backbone
from reid_core.backbones.instance_norm import INSERTED, HalfInstanceNorm, InstanceNorm, insert_instance_norm
from reid_core.backbones.weights import load_backbone_weights
from reid_core.errors import SettingsError, WeightsError

BACKBONES: tuple[BackboneName, ...] = ("resnet18", "resnet50", "mobilenet_v2")


def built(name: BackboneName, variant: InstanceNorm) -> nn.Module:
    backbone = build_backbone(name, last_stride=1)
    insert_instance_norm(backbone, variant)
    return backbone


def count(backbone: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in backbone.modules())


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize(("variant", "layers"), [("none", 0), ("block", 2), ("ibn-b", 3)])
def test_so_many_layers_are_added(name: BackboneName, variant: InstanceNorm, layers: int) -> None:
    assert count(built(name, variant), nn.InstanceNorm2d) == layers


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 6), ("resnet50", 13), ("mobilenet_v2", 13)])
def test_ibn_a_halves_the_first_norm_of_every_block_of_three_stages(name: BackboneName, blocks: int) -> None:
    assert count(built(name, "ibn-a"), HalfInstanceNorm) == blocks


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("variant", ["none", "block", "ibn-a", "ibn-b"])
def test_maps_keep_their_shape(name: BackboneName, variant: InstanceNorm) -> None:
    images = torch.randn(2, 3, 64, 32)
    plain = [tuple(each.shape) for each in built(name, "none")(images)]
    assert [tuple(each.shape) for each in built(name, variant)(images)] == plain


@pytest.mark.parametrize("name", BACKBONES)
def test_the_norm_of_block_removes_an_images_own_contrast(name: BackboneName) -> None:
    """With the layer in evaluation mode the first stage's map has zero mean before what follows it."""
    backbone = built(name, "block").eval()
    seen: list[torch.Tensor] = []
    for module in backbone.modules():
        if isinstance(module, nn.InstanceNorm2d):
            module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))
    backbone(torch.randn(2, 3, 64, 32))
    assert len(seen) == 2
    for output in seen:
        assert output.mean(dim=(2, 3)).abs().max() < 1e-4


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("variant", ["block", "ibn-a", "ibn-b"])
def test_weights_of_the_plain_backbone_fit_but_for_what_was_inserted(name: BackboneName, variant: InstanceNorm) -> None:
    plain, changed = built(name, "none"), built(name, variant)
    transfer = load_backbone_weights(changed, plain.state_dict(), source="a plain backbone")
    assert all(torch.equal(changed.state_dict()[key], plain.state_dict()[key]) for key in transfer.taken)
    inserted = tuple(key for key, module in changed.named_modules() if isinstance(module, INSERTED))
    assert transfer.kept
    assert all(key.startswith(inserted) for key in transfer.kept)


def test_weights_of_another_backbone_are_refused() -> None:
    with pytest.raises(WeightsError, match="does not fit"):
        load_backbone_weights(built("resnet50", "block"), built("resnet18", "none").state_dict(), source="another")


def test_dense_blocks_take_no_instance_norm() -> None:
    with pytest.raises(SettingsError, match="not defined for dense blocks"):
        built("densenet121", "block")


@pytest.mark.parametrize("name", BACKBONES)
def test_a_dropped_last_stage_leaves_three_maps(name: BackboneName) -> None:
    backbone = build_backbone(name, last_stride=1)
    whole = backbone(torch.zeros(2, 3, 64, 32))
    backbone.drop_last_stage(last_stride=2)
    maps = backbone(torch.zeros(2, 3, 64, 32))
    assert [tuple(each.shape) for each in maps] == [tuple(each.shape) for each in whole[:3]]
    assert len(backbone.channels) == 3
