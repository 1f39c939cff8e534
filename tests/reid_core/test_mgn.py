"""The Multiple Granularity Network: its branches, its eight features, and weights for all of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from reid_core.backbones import BackboneName, build_backbone
from reid_core.backbones.branched import BranchedBackbone
from reid_core.backbones.weights import copy_matching, load_backbone_weights
from reid_core.heads.mgn import MgnHead
from reid_core.networks.mgn import MgnNetwork, ProgressiveMgnNetwork
from reid_core.networks.progressive import PlainNetwork


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121"])
def test_with_a_backbones_weights_every_tail_ends_as_the_backbone_does(name: BackboneName) -> None:
    torch.manual_seed(0)
    whole = {stride: build_backbone(name, last_stride=stride).eval() for stride in (1, 2)}
    whole[1].load_state_dict(whole[2].state_dict())
    branched = BranchedBackbone(name, (2, 1)).eval()
    transfer = load_backbone_weights(branched, whole[2].state_dict(), source="a backbone")
    assert transfer.kept == transfer.left_out == ()
    images = random(2, 3, 64, 32)
    with torch.no_grad():
        (stem, first, second, shared), tails = branched(images)
        for tail, stride in zip(tails, (2, 1), strict=True):
            torch.testing.assert_close(tail, whole[stride](images)[-1])
        torch.testing.assert_close(stem, whole[2].stem(images))
        for own, wanted in zip((first, second), whole[2](images)[:2], strict=True):
            torch.testing.assert_close(own, wanted)
    assert [each.shape[1] for each in (stem, first, second, shared)] == [*branched.trunk_channels]
    assert [64 // each.shape[2] for each in (stem, first, second, shared)] == [*branched.trunk_strides]


def test_resnet50_is_shared_up_to_the_first_block_of_its_third_layer() -> None:
    with torch.device("meta"):
        branched = BranchedBackbone("resnet50", (2, 1, 1))
    trunk = {name.split(".conv")[0] for name, _ in branched.trunk.named_parameters() if "layer3" in name}
    tails = {".".join(name.split(".")[1:3]) for name, _ in branched.tails.named_parameters()}
    assert {name[:8] for name in trunk} == {"layer3.0"}
    assert tails == {*(f"layer3.{block}" for block in range(1, 6)), *(f"layer4.{block}" for block in range(3))}
    assert branched.trunk_channels == (64, 256, 512, 1024)


def test_branches_begin_equal_and_learn_apart() -> None:
    network = MgnNetwork("resnet18", 5)
    first, second, _ = network.backbone.tails
    for own, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(own, other)
        assert own is not other
    output = network(random(4, 3, 48, 16))
    functional.cross_entropy(output.logits[0], torch.arange(4)).backward()
    assert all(parameter.grad.any() for parameter in first.parameters())
    assert not any(parameter.grad.any() for parameter in second.parameters())


def test_weights_of_a_plain_network_fit_and_go_to_every_branch() -> None:
    plain, network = PlainNetwork("mobilenet_v2", 5, last_stride=2), MgnNetwork("mobilenet_v2", 5)
    transfer = copy_matching(network, plain.state_dict())
    assert set(transfer.kept) == {name for name in network.state_dict() if name.startswith("head.")}
    assert set(transfer.left_out) == {name for name in plain.state_dict() if name.startswith("classifier.")}
    wanted = plain.backbone.features[18][0].weight
    assert all(torch.equal(tail.features[18][0].weight, wanted) for tail in network.backbone.tails)


def test_weights_of_another_mgn_keep_the_branches_apart() -> None:
    given, network = MgnNetwork("mobilenet_v2", 5), MgnNetwork("mobilenet_v2", 7)
    with torch.no_grad():
        for parameter in given.parameters():
            parameter.normal_()
    transfer = copy_matching(network, given.state_dict())
    assert set(transfer.kept) == {f"head.classifiers.{number}.weight" for number in range(8)}
    for own, wanted in zip(network.backbone.parameters(), given.backbone.parameters(), strict=True):
        assert torch.equal(own, wanted)


def test_the_features_are_maxima_of_whole_maps_and_of_their_stripes() -> None:
    maps = [random(4, 6, 3, 2), random(4, 6, 12, 4, seed=1), random(4, 6, 12, 4, seed=2)]
    head = MgnHead(6, 5, feature_size=7).eval()
    areas = [
        *maps,
        maps[1][:, :, :6],
        maps[1][:, :, 6:],
        maps[2][:, :, :4],
        maps[2][:, :, 4:8],
        maps[2][:, :, 8:],
    ]
    with torch.no_grad():
        head.norm.running_mean.copy_(random(56, seed=3))
        output = head(maps)
        for number, area in enumerate(areas):
            reduced = area.amax(dim=(2, 3)) @ head.reduction.weight.T
            mean = head.norm.running_mean[number * 7 : number * 7 + 7]
            wanted = ((reduced - mean) / (1 + head.norm.eps) ** 0.5).clamp(min=0)
            torch.testing.assert_close(output.features[:, number], wanted)
            torch.testing.assert_close(output.logits[:, number], wanted @ head.classifiers[number].weight.T)


def test_each_feature_is_normalised_by_itself() -> None:
    head = MgnHead(6, 5, feature_size=7)
    maps = [random(32, 6, 6, 2), 100 * random(32, 6, 6, 2, seed=1), random(32, 6, 6, 2, seed=2)]
    features = head(maps).features
    assert features.mean(dim=(0, 2)).detach().numpy() == pytest.approx(0.4, abs=0.1)


@pytest.mark.parametrize("network", [MgnNetwork, ProgressiveMgnNetwork])
@pytest.mark.parametrize("size", [(32, 16), (50, 30), (96, 32)])
def test_eight_features_come_of_small_images_too(network: type[MgnNetwork], size: tuple[int, int]) -> None:
    output = network("mobilenet_v2", 5)(random(2, 3, *size))
    assert output.embedding.shape == (2, 8 * 256)
    assert [each.shape for each in output.features] == 3 * [(2, 256)]
    assert [each.shape for each in output.logits] == 8 * [(2, 5)]
    torch.testing.assert_close(torch.cat(output.features, dim=1), output.embedding[:, : 3 * 256])


@pytest.mark.parametrize("network", [MgnNetwork, ProgressiveMgnNetwork])
def test_every_parameter_learns(network: type[MgnNetwork]) -> None:
    torch.manual_seed(0)
    made = network("resnet18", 5)
    for step in range(2):
        made.zero_grad()
        output = made(random(4, 3, 96, 32, seed=step))
        sum(functional.cross_entropy(logits, torch.arange(4)) for logits in output.logits).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_the_cells_reach_every_feature() -> None:
    network = ProgressiveMgnNetwork("mobilenet_v2", 5).eval()
    images = random(2, 3, 64, 32)
    before = network(images).embedding.unflatten(1, (8, -1))
    with torch.no_grad():
        for cell in network.branch.last_cells:
            cell.gates.bias.add_(1)
    after = network(images).embedding.unflatten(1, (8, -1))
    assert all((before != after).any(dim=2).all(dim=0))
