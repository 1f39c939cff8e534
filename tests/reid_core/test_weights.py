"""Weights files are recognised as those of a backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from reid_core.backbones import Backbone, BackboneName, build_backbone
from reid_core.backbones.instance_norm import InstanceNorm, insert_instance_norm
from reid_core.backbones.weights import Transfer, check_imagenet_weights, find_backbone, load_backbone_weights
from reid_core.errors import WeightsError


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "mobilenet_v2"])
def test_a_backbone_is_known_by_its_weights(name: BackboneName) -> None:
    weights = build_backbone(name, last_stride=1).state_dict() | {"fc.weight": torch.zeros(1000, 512)}
    assert find_backbone(weights, source="a file") == name


def test_weights_of_no_backbone_are_refused_with_the_known_ones() -> None:
    with pytest.raises(WeightsError, match="fits none") as caught:
        find_backbone({"conv1.weight": torch.zeros(1)}, source="a file")
    assert "mobilenet_v2" in caught.value.hint


def state(name: BackboneName, variant: InstanceNorm = "none") -> dict[str, Tensor]:
    backbone = build_backbone(name, last_stride=1)
    insert_instance_norm(backbone, variant)
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for key, value in backbone.state_dict().items()
    }


def loaded(name: BackboneName, weights: dict[str, Tensor], variant: InstanceNorm = "none") -> tuple[Transfer, Backbone]:
    backbone = build_backbone(name, last_stride=1)
    insert_instance_norm(backbone, variant)
    return load_backbone_weights(backbone, weights, source="a file"), backbone


def timm_mobilenet(name: str) -> str:
    """timm's name of a torchvision MobileNetV2 tensor, from the table of blocks of its paper."""
    repeats = (1, 2, 3, 4, 3, 3, 1)
    stages = [(stage, block) for stage, count in enumerate(repeats) for block in range(count)]
    _, number, *rest = name.split(".")
    if number in ("0", "18"):
        layer = {"0": ("conv_stem", "bn1"), "18": ("conv_head", "bn2")}[number][int(rest[0])]
        return ".".join([layer, *rest[1:]])
    stage, block = stages[int(number) - 1]
    first = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
    others = {"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2", "2": "conv_pwl", "3": "bn3"}
    layers, place = (first, others)[stage > 0], ".".join(rest[1:-1])
    return f"blocks.{stage}.{block}.{layers[place]}.{rest[-1]}"


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "base.", "module.model.backbone."])
def test_prefixes_of_trainers_are_understood(prefix: str) -> None:
    ours = state("resnet18")
    head = {"heads.weight": torch.zeros(3), f"{prefix}fc.weight": torch.zeros(3)}
    transfer, backbone = loaded("resnet18", {prefix + name: tensor for name, tensor in ours.items()} | head)
    assert len(transfer.renamed) == len(transfer.taken) == len(ours)
    torch.testing.assert_close(backbone.state_dict(), ours)


def test_timms_mobilenet_is_understood() -> None:
    ours = state("mobilenet_v2")
    transfer, backbone = loaded("mobilenet_v2", {timm_mobilenet(name): tensor for name, tensor in ours.items()})
    assert (len(transfer.taken), transfer.left_out, transfer.kept) == (len(ours), (), ())
    torch.testing.assert_close(backbone.state_dict(), ours)


@pytest.mark.parametrize("variant", ["ibn-a", "ibn-b"])
def test_weights_of_ibn_net_load_whole(variant: InstanceNorm) -> None:
    ours = state("resnet50", variant)
    theirs = {name.replace(".instance.", ".IN.").replace(".batch.", ".BN."): tensor for name, tensor in ours.items()}
    assert any(".IN." in name for name in theirs)
    transfer, backbone = loaded("resnet50", theirs, variant)
    assert (len(transfer.taken), transfer.left_out, transfer.kept) == (len(ours), (), ())
    torch.testing.assert_close(backbone.state_dict(), ours)


def test_weights_with_instance_normalisation_are_refused_without_it_and_with_another() -> None:
    ours = state("resnet50", "ibn-a")
    theirs = {name.replace(".instance.", ".IN.").replace(".batch.", ".BN."): tensor for name, tensor in ours.items()}
    with pytest.raises(WeightsError, match=r"lacks: .* first 'layer1\.0\.bn1\.batch\.bias'") as caught:
        loaded("resnet50", theirs)
    assert "ibn-a" in caught.value.hint
    with pytest.raises(WeightsError):
        loaded("resnet50", theirs, "ibn-b")


def test_torchvisions_weights_leave_inserted_layers_as_initialised() -> None:
    transfer, _ = loaded("resnet18", state("resnet18"), "block")
    assert {name.rpartition(".")[0] for name in transfer.kept} == {"layer1.1.instance", "layer2.1.instance"}


def test_weights_that_lack_a_tensor_are_refused_with_its_name() -> None:
    weights = state("resnet18")
    del weights["layer3.1.conv2.weight"]
    with pytest.raises(WeightsError, match=r"layer3\.1\.conv2\.weight"):
        loaded("resnet18", weights)


def test_what_may_be_missing_is_named() -> None:
    weights = {name: tensor for name, tensor in state("resnet18").items() if not name.startswith("layer4.")}
    backbone = build_backbone("resnet18", last_stride=1)
    transfer = load_backbone_weights(backbone, weights, source="a file", allow_missing=("layer4.",))
    assert {name.split(".")[0] for name in transfer.kept} == {"layer4"}
    with pytest.raises(WeightsError, match=r"layer4\.0\.conv1\.weight") as caught:
        load_backbone_weights(backbone, weights, source="a file", allow_missing=("layer4.1.",))
    assert "allow_missing" in caught.value.hint


def test_imagenet_means_torchvisions_first_version_and_the_second_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    for name, file in {"imagenet": "resnet50-0676ba61.pth", "imagenet-v2": "resnet50-11ad3fa6.pth"}.items():
        (cache / file).write_bytes(b"")
        check_imagenet_weights("resnet50", name)  # found in the cache: nothing is asked elsewhere
        (cache / file).unlink()
    with pytest.raises(WeightsError, match=r"no IMAGENET1K_V2 weights of 'resnet18'") as caught:
        check_imagenet_weights("resnet18", "imagenet-v2")
    assert caught.value.hint == "It has imagenet."
