"""The batch-related convolutional cell, the branch of cells beside a backbone, and the network around them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from reid_core.backbones import BackboneName
from reid_core.heads.bconv import BConvCell
from reid_core.heads.classifier import ThreeLayerClassifier
from reid_core.networks.mgn import MgnNetwork, ProgressiveMgnNetwork
from reid_core.networks.progressive import PlainNetwork, ProgressiveNetwork


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_cell(*, stride: int = 1, carry_state: bool = True) -> BConvCell:
    cell = BConvCell(3, 4, stride=stride, carry_state=carry_state)
    with torch.no_grad():
        for seed, parameter in enumerate(cell.parameters()):
            parameter.copy_(random(*parameter.shape, seed=seed) / 2)
    return cell


def make_network(**changes: bool) -> ProgressiveNetwork:
    torch.manual_seed(0)
    return ProgressiveNetwork("resnet18", 5, last_stride=2, **changes)


def equation_1(cell: BConvCell, image: Tensor, before: Tensor | float) -> tuple[Tensor, Tensor]:
    """Output and new latent state of one image, gate by gate as the paper writes them."""

    def convolve(gate: int) -> Tensor:
        rows = slice(gate * 4, gate * 4 + 4)
        weight, bias = cell.gates.weight[rows], cell.gates.bias[rows]
        return functional.conv2d(image[None], weight, bias, stride=cell.gates.stride, padding=1)[0]

    i = 1 / (1 + torch.exp(-convolve(0)))
    f = 1 / (1 + torch.exp(-convolve(1)))
    o = 1 / (1 + torch.exp(-convolve(2)))
    state = f * before + i * torch.tanh(convolve(3))
    return o * torch.tanh(state), state


def all_states(network: nn.Module) -> list[Tensor]:
    return [module.state for module in network.modules() if isinstance(module, BConvCell)]


@pytest.mark.parametrize("stride", [1, 2])
def test_a_cell_follows_equation_1_over_several_batches(stride: int) -> None:
    cell = make_cell(stride=stride)
    states: list[Tensor | float] = [0.0, 0.0]
    for step in range(4):
        batch = random(2, 3, 7, 5, seed=step)
        output = cell(batch)
        for place, image in enumerate(batch):
            wanted, states[place] = equation_1(cell, image, states[place])
            torch.testing.assert_close(output[place], wanted)
            torch.testing.assert_close(cell.state[place], states[place])


def test_after_a_reset_a_cell_answers_as_at_the_start() -> None:
    cell, batch = make_cell(), random(2, 3, 6, 4)
    first, second = cell(batch), cell(batch)
    assert not torch.allclose(first, second)
    cell.reset()
    assert torch.equal(cell(batch), first)


def test_a_smaller_batch_changes_only_the_places_it_fills() -> None:
    cell = make_cell()
    cell(random(3, 3, 6, 4))
    before = cell.state
    output = cell(random(1, 3, 6, 4, seed=1))
    wanted, state = equation_1(cell, random(1, 3, 6, 4, seed=1)[0], before[0])
    torch.testing.assert_close(output[0], wanted)
    torch.testing.assert_close(cell.state, torch.cat([state[None], before[1:]]))


def test_a_larger_batch_finds_zeros_at_its_new_places() -> None:
    cell, batch = make_cell(), random(4, 3, 6, 4, seed=1)
    cell(random(2, 3, 6, 4))
    before = [*cell.state, 0.0, 0.0]
    output = cell(batch)
    for place, image in enumerate(batch):
        torch.testing.assert_close(output[place], equation_1(cell, image, before[place])[0])
    assert len(cell.state) == 4


def test_evaluation_starts_from_zeros_and_leaves_the_state_alone() -> None:
    cell, batch = make_cell(), random(2, 3, 6, 4)
    first = cell(batch)
    carried = cell.state.clone()
    cell.eval()
    assert torch.equal(cell(batch), first)
    assert torch.equal(cell.state, carried)


def test_without_carried_state_every_batch_starts_from_zeros() -> None:
    cell, batch = make_cell(carry_state=False), random(2, 3, 6, 4)
    assert torch.equal(cell(batch), cell(batch))
    assert cell.state.numel() == 0


def test_no_gradient_flows_into_earlier_batches() -> None:
    cell = make_cell()
    earlier, later = random(2, 3, 6, 4).requires_grad_(), random(2, 3, 6, 4, seed=1).requires_grad_()
    cell(earlier)
    assert not cell.state.requires_grad
    cell(later).sum().backward()
    assert earlier.grad is None
    assert later.grad is not None


def test_under_bf16_autocast_the_state_stays_float32() -> None:
    cell, exact = make_cell(), make_cell()
    for step in range(5):
        batch = random(2, 3, 6, 4, seed=step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = cell(batch)
        wanted = exact(batch)
        assert output.dtype == torch.bfloat16
        torch.testing.assert_close(output.float(), wanted, atol=0.05, rtol=0)
    assert cell.state.dtype == torch.float32
    torch.testing.assert_close(cell.state, exact.state, atol=0.05, rtol=0)


def test_a_network_loaded_in_the_middle_of_an_epoch_goes_on_bit_for_bit(tmp_path: Path) -> None:
    unbroken = make_network().to(memory_format=torch.channels_last)
    for size in (4, 3):
        unbroken(random(size, 3, 32, 16))
    torch.save(unbroken.state_dict(), tmp_path / "state.pt")
    resumed = make_network().to(memory_format=torch.channels_last)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for size in (2, 5):
        batch = random(size, 3, 32, 16, seed=size)
        assert torch.equal(resumed(batch).logits[0], unbroken(batch).logits[0])
    for own, wanted in zip(all_states(resumed), all_states(unbroken), strict=True):
        assert torch.equal(own, wanted)


def test_a_reset_network_fits_one_that_never_saw_a_batch(tmp_path: Path) -> None:
    trained, fresh = make_network(), make_network()
    trained(random(3, 3, 32, 16))
    trained.reset_state()
    save_file(trained.state_dict(), tmp_path / "weights.safetensors")
    assert not any(state.numel() for state in all_states(trained))
    fresh.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    batch = random(3, 3, 32, 16, seed=1)
    assert torch.equal(fresh(batch).embedding, trained(batch).embedding)


@pytest.mark.parametrize("make", [make_network, lambda: ProgressiveMgnNetwork("mobilenet_v2", 5)])
def test_an_embedding_depends_on_its_image_alone(make: Callable[[], nn.Module]) -> None:
    network, images = make(), random(64, 3, 32, 16)
    for seed in range(2):
        network.train()(random(8, 3, 32, 16, seed=seed))
    network.eval()
    with torch.inference_mode():
        alone = network(images[:1]).embedding
        for batch in (images[:3], images, images[:3]):
            torch.testing.assert_close(network(batch).embedding[:1], alone, atol=1e-5, rtol=1e-5)
        backwards = network(images.flip(0)).embedding.flip(0)
        torch.testing.assert_close(backwards, network(images).embedding, atol=1e-5, rtol=1e-5)
        assert torch.equal(network(images[:1]).embedding, alone)


def test_the_carried_state_changes_training_and_not_embeddings() -> None:
    carrying, forgetting = make_network(), make_network(carry_state=False)
    batch = random(4, 3, 32, 16)
    assert torch.equal(carrying(batch).logits[0], forgetting(batch).logits[0])
    assert not torch.allclose(carrying(batch).logits[0], forgetting(batch).logits[0])
    forgetting.load_state_dict({**forgetting.state_dict(), **_without_state(carrying)})
    carrying.eval(), forgetting.eval()
    assert torch.equal(carrying(batch).embedding, forgetting(batch).embedding)


def _without_state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(".state")}


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2"])
def test_every_parameter_learns_once_a_state_is_carried(backbone: BackboneName) -> None:
    torch.manual_seed(0)
    network = ProgressiveNetwork(backbone, 5, last_stride=1)
    for step in range(2):
        network.zero_grad()
        logits = network(random(6, 3, 64, 32, seed=step)).logits[0]
        functional.cross_entropy(logits, torch.arange(6) % 5).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name
    for module in network.modules():
        if isinstance(module, BConvCell):
            assert all(gate.any() for gate in module.gates.weight.grad.chunk(4))


def test_the_backbone_is_not_fed_by_the_cells() -> None:
    network = make_network().eval()
    images = random(2, 3, 32, 16)
    maps = network.backbone(images)
    with torch.no_grad():
        for parameter in network.branch.parameters():
            parameter.normal_()
    before = network(images).embedding
    for own, wanted in zip(network.backbone(images), maps, strict=True):
        assert torch.equal(own, wanted)
    with torch.no_grad():
        network.branch.last_cells[0].gates.weight.zero_()
    assert not torch.equal(network(images).embedding, before)


def test_on_resnet50_the_cells_have_the_published_widths() -> None:
    with torch.device("meta"):
        branch = ProgressiveMgnNetwork("resnet50", 751).branch
    cells = [module for module in branch.modules() if isinstance(module, BConvCell)]
    assert [(cell.gates.in_channels, cell.gates.out_channels // 4, cell.gates.stride[0]) for cell in cells] == [
        (3, 16, 2),
        (16, 32, 2),
        (64, 64, 1),
        (128, 256, 2),
        (256, 512, 2),
        (512, 128, 2),
        (512, 128, 1),
        (512, 128, 1),
    ]
    fusions = [fusion[0] for fusion in branch.fusions]
    assert [(fusion.in_channels, fusion.out_channels) for fusion in fusions] == [
        (64 + 32, 64),
        (256 + 64, 128),
        (512 + 256, 256),
        (1024 + 512, 512),
    ]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121"])
@pytest.mark.parametrize(("size", "last_stride"), [((64, 32), 1), ((75, 45), 2)])
def test_cells_fit_beside_every_backbone(name: BackboneName, size: tuple[int, int], last_stride: int) -> None:
    with torch.device("meta"):
        network, images = ProgressiveNetwork(name, 5, last_stride=last_stride), torch.empty(2, 3, *size)
        output = network(images)
        last = network.backbone(images)[-1]
    assert output.embedding.shape == (2, network.embedding_size)
    assert output.feature_map.shape[2:] == last.shape[2:]


def test_the_classifier_is_three_layers_with_relu_between() -> None:
    classifier = ThreeLayerClassifier(8, 3)
    feature = random(5, 8)
    first, second, third = (layer for layer in classifier if isinstance(layer, nn.Linear))
    hidden = (feature @ first.weight.T + first.bias).clamp(min=0)
    hidden = (hidden @ second.weight.T + second.bias).clamp(min=0)
    torch.testing.assert_close(classifier(feature), hidden @ third.weight.T + third.bias)
    assert (first.out_features, second.out_features) == (4, 4)


@pytest.mark.parametrize(
    ("make", "millions"),
    [
        (lambda: PlainNetwork("resnet50", 1041, last_stride=2), 28),
        (lambda: ProgressiveNetwork("resnet50", 1041, last_stride=2), 35),
        (lambda: PlainNetwork("densenet161", 1041, last_stride=2), 32),
        (lambda: ProgressiveNetwork("densenet161", 1041, last_stride=2), 42),
        (lambda: MgnNetwork("resnet50", 751), 66),
    ],
)
def test_parameters_are_as_many_as_the_paper_counts(make: Callable[[], nn.Module], millions: int) -> None:
    with torch.device("meta"):
        network = make()
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == pytest.approx(millions * 1e6, rel=0.03)
