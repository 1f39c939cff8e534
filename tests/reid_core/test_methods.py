"""One contract over every method: a new paper is tested the moment it is registered."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reid_core.data.loading import BatchLoader, number_labels
from reid_core.data.preprocessing import Preprocessing, preprocessing_of
from reid_core.errors import SettingsError, Stopped, TrainingDiverged
from reid_core.methods import METHODS
from reid_core.methods.method import Method, Moment, Teacher
from reid_core.model import Manifest, TrainedModel, load_model, save_model
from reid_core.network import Batch
from reid_core.retrieval.encoder import Encoding, torch_encoder
from reid_core.sampling import Epoch
from reid_core.settings import TrainingSettings, override
from reid_core.training.loop import Observer, Plan, Result, fit
from tests.reid_core.images import make_images
from tests.reid_core.small import SMALL

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")
RANDOM: dict[str, Any] = {"batch": {"size": 12}, "schedule": SMALL["schedule"] | {"base_lr": 0.01}}
SMALL_OF: dict[str, dict[str, Any]] = {
    "pyramid": {"parts": 2, "levels": "11", "width": 16, "schedule": SMALL["schedule"] | {"base_lr": 0.05}},
    "finetune-resnet50": RANDOM,
    "finetune-densenet161": RANDOM,
    "ptl-resnet50": RANDOM,
    "ptl-densenet161": RANDOM,
    "std": RANDOM,
}
"""What a method needs instead."""


@pytest.fixture(params=list(METHODS))
def method(request: pytest.FixtureRequest) -> Method:
    return METHODS[request.param]


def small(method: Method) -> TrainingSettings:
    return override(method.recipe, SMALL | SMALL_OF.get(method.name, {}))


def make_teacher(method: Method) -> TrainedModel | None:
    """An untrained model with cells, always the same, for a method that learns from one."""
    if method.settle is None:
        return None
    taught_by = METHODS["ptl-resnet50"]
    torch.manual_seed(1)
    settings = small(taught_by)
    network = taught_by.build_network(settings, 5).to(memory_format=torch.channels_last)
    size, preprocessing = int(network.embedding_size), preprocessing_of(settings)
    manifest = Manifest(taught_by.name, settings.model_dump(mode="json"), 5, size, None, preprocessing, "")
    return TrainedModel(manifest, settings, network.eval(), CPU)


def plan(method: Method, folder: Path, **changes: Any) -> Plan:
    images = make_images(folder, identities=5, each=4)
    made = Plan(method, small(method), images, seed=3, device=CPU, teacher=make_teacher(method))
    return replace(made, **changes)


def build_criterion(plan: Plan, num_classes: int, network: nn.Module) -> nn.Module:
    teacher = Teacher(plan.teacher.network, torch.float32) if plan.teacher else None
    return plan.method.build_criterion(plan.settings, num_classes, network, teacher)


def first_batch(plan: Plan) -> tuple[Batch, int]:
    data = number_labels(plan.images)
    epoch = Epoch(
        0, data.identities, np.random.default_rng(0), nn.Module(), encode=lambda indices: Encoding(torch.empty(0))
    )
    batches = plan.method.draw_batches(plan.settings, epoch).streams[0]
    loader = BatchLoader(data, Preprocessing(32, 16), plan.settings.augmentation, seed=0, device=CPU)
    return next(loader.load(batches, epoch=0)), data.num_classes


def train(plan: Plan, folder: Path, observer: Observer | None = None, checkpoint_seconds: float = 1e9) -> Result:
    folder.mkdir(exist_ok=True)
    return fit(plan, folder, observer, checkpoint_seconds=checkpoint_seconds)


def weights_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_every_trainable_parameter_gets_a_finite_gradient(method: Method, tmp_path: Path) -> None:
    made = plan(method, tmp_path)
    batch, num_classes = first_batch(made)
    network = method.build_network(made.settings, num_classes)
    criterion = build_criterion(made, num_classes, network)
    criterion(network(batch.images), batch, Moment(0, 0))  # a class memory is empty at the first step
    losses = criterion(network(batch.images), batch, Moment(1, 0))
    sum(losses.terms.values()).backward()
    for name, parameter in [*network.named_parameters(), *criterion.named_parameters()]:
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


def test_every_trainable_parameter_is_in_exactly_one_optimiser_group(method: Method, tmp_path: Path) -> None:
    made = plan(method, tmp_path)
    network = method.build_network(made.settings, 5)
    criterion = build_criterion(made, 5, network)
    optimizers = method.build_optimizers(made.settings, network, criterion)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    grouped = Counter(id(parameter) for group in groups for parameter in group["params"])
    for name, parameter in [*network.named_parameters(), *criterion.named_parameters()]:
        assert grouped[id(parameter)] == int(parameter.requires_grad), name


def test_the_loss_goes_down_on_learnable_images(method: Method, tmp_path: Path) -> None:
    settings = override(small(method), {"schedule": {"epochs": 15}})
    result = train(plan(method, tmp_path / "pictures", settings=settings), tmp_path / "run")
    losses = [value for _, value in result.history["loss"]]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])


def test_embeddings_have_unit_length_and_do_not_depend_on_the_batch(method: Method, tmp_path: Path) -> None:
    made = plan(method, tmp_path)
    network = method.build_network(made.settings, 5)
    encoder = torch_encoder(network, Preprocessing(32, 16), CPU, torch.float32)
    paths = [image.path for image in made.images]
    together = encoder.embed_files(paths)
    alone = torch.cat([encoder.embed_files([path]) for path in paths])
    assert together.norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)
    assert together.numpy() == pytest.approx(alone.numpy(), abs=1e-5)
    assert network.training


def test_settings_survive_a_round_trip_and_unknown_names_are_refused(method: Method) -> None:
    settings = small(method)
    assert type(settings).model_validate(settings.model_dump(mode="json")) == settings
    with pytest.raises(SettingsError) as caught:
        override(method.recipe, {"image": {"heigth": 64}})
    assert caught.value.faults[0].pointer == "/image/heigth"
    assert "height" in caught.value.faults[0].message


def test_a_saved_model_gives_identical_embeddings(method: Method, tmp_path: Path) -> None:
    made = plan(method, tmp_path / "pictures")
    network = method.build_network(made.settings, 5).to(memory_format=torch.channels_last)
    preprocessing = Preprocessing(32, 16)
    folder = tmp_path / "model"
    folder.mkdir()
    save_model(folder, network, method=method.name, settings=made.settings, num_classes=5, preprocessing=preprocessing)
    paths = [image.path for image in made.images]
    loaded = load_model(folder, CPU)
    before = torch_encoder(network, preprocessing, CPU, torch.float32).embed_files(paths)
    assert torch.equal(loaded.encoder().embed_files(paths), before)
    assert loaded.manifest.embedding_size == before.shape[1]


def test_a_run_interrupted_anywhere_ends_as_an_unbroken_one(method: Method, tmp_path: Path) -> None:
    settings = override(small(method), {"backbone": "mobilenet_v2"})  # few weights: every third step saves them all
    unbroken = train(plan(method, tmp_path / "pictures", settings=settings), tmp_path / "unbroken")
    steps = 0

    def stop_every_third_step() -> bool:
        nonlocal steps
        steps += 1
        return steps % 3 == 0

    broken, interruptions = None, 0
    while broken is None:
        try:
            made = plan(method, tmp_path / "pictures", settings=settings)
            broken = train(made, tmp_path / "broken", Observer(should_stop=stop_every_third_step))
        except Stopped:
            interruptions += 1
    assert interruptions >= 2
    assert broken.history == unbroken.history
    wanted = weights_of(unbroken.network)
    for name, tensor in weights_of(broken.network).items():
        assert torch.equal(tensor, wanted[name]), name


def test_zero_epochs_save_the_network_as_initialised(method: Method, tmp_path: Path) -> None:
    settings = override(small(method), {"schedule": {"epochs": 0}})
    result = train(plan(method, tmp_path / "pictures", settings=settings), tmp_path / "run")
    torch.manual_seed(3)
    fresh = method.build_network(settings, result.num_classes)
    for name, tensor in weights_of(result.network).items():
        assert torch.equal(tensor, fresh.state_dict()[name]), name


def test_a_loss_that_is_not_finite_ends_with_its_name_step_and_rate(method: Method, tmp_path: Path) -> None:
    settings = override(small(method), {"schedule": {"base_lr": 100.0, "epochs": 50}})
    wild = replace(
        method, build_optimizers=lambda s, network, criterion: [torch.optim.SGD(network.parameters(), lr=1e30)]
    )
    with pytest.raises(TrainingDiverged, match=r"loss is (nan|inf|-inf) at step \d+, learning rate"):
        train(plan(wild, tmp_path / "pictures", settings=settings), tmp_path / "run")


def test_held_out_identities_give_accuracy_curves(method: Method, tmp_path: Path) -> None:
    fewer = {} if "size" in (SMALL | SMALL_OF.get(method.name, {}))["batch"] else {"batch": {"identities": 3}}
    settings = override(small(method), {"validation": {"fraction": 0.4, "every_epochs": 2}, **fewer})
    result = train(plan(method, tmp_path / "pictures", settings=settings), tmp_path / "run")
    assert result.num_classes == 3
    assert len(result.history["mAP"]) == 2
    assert all(0 <= value <= 1 for _, value in result.history["rank1"])
