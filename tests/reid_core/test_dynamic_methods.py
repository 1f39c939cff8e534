"""Methods that draw random or identity-balanced batches as the dynamic scheme decides."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reid_core.data.loading import number_labels
from reid_core.data.records import ImageRecord
from reid_core.errors import Stopped
from reid_core.methods import METHODS
from reid_core.methods.method import Losses, Method, Moment
from reid_core.network import Batch, Output
from reid_core.retrieval.encoder import Encoding
from reid_core.sampling import Draw, Epoch
from reid_core.sampling.alternating import BALANCED, RANDOM, draw_random_and_balanced
from reid_core.sampling.identities import draw_identity_batches
from reid_core.settings import IdentityBatch, TrainingSettings, override
from reid_core.training.loop import Observer, Plan, Result, fit
from tests.reid_core.images import make_images
from tests.reid_core.small import SMALL

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")
CURVES = {f"{loss}_loss{part}" for loss in ("identity", "triplet") for part in ("", "_k", "_p", "_fl")}
IDENTITIES = np.repeat(np.arange(7), 9)


@pytest.fixture(params=["bnneck", "bnneck-camera"])
def baseline(request: pytest.FixtureRequest) -> Method:
    return METHODS[request.param]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRecord]:
    return make_images(tmp_path_factory.mktemp("people"), identities=5, each=4)


def small(method: Method, **changes: Any) -> TrainingSettings:
    return override(method.recipe, SMALL | changes)


def train(
    method: Method,
    settings: TrainingSettings,
    images: list[ImageRecord],
    folder: Path,
    observer: Observer | None = None,
) -> Result:
    folder.mkdir(exist_ok=True)
    return fit(Plan(method, settings, images, seed=3, device=CPU), folder, observer, checkpoint_seconds=1e9)


def begin(identities: np.ndarray = IDENTITIES) -> Epoch:
    return Epoch(0, identities, np.random.default_rng(0), nn.Module(), encode=lambda indices: Encoding(torch.empty(0)))


def values(result: Result, name: str) -> list[float]:
    return [value for _, value in result.history[name]]


def test_as_many_balanced_batches_are_drawn_as_random_ones() -> None:
    batch = IdentityBatch(identities=3, images_per_identity=4)
    random, balanced = draw_random_and_balanced(IDENTITIES, batch, np.random.default_rng(0))
    assert len(random) == len(IDENTITIES) // 12
    assert len({index for chosen in random for index in chosen}) == 12 * len(random)
    assert len(balanced) >= len(random)
    for chosen in balanced:
        assert sorted(Counter(IDENTITIES[chosen]).values()) == [4, 4, 4]


def test_the_baseline_is_as_ever_unless_told_otherwise(baseline: Method, images: list[ImageRecord]) -> None:
    settings = small(baseline)
    criterion = baseline.build_criterion(settings, 5, baseline.build_network(settings, 5))
    expected = draw_identity_batches(IDENTITIES, settings.batch, np.random.default_rng(0))  # type: ignore[arg-type]
    assert baseline.draw_batches(settings, begin()) == Draw((expected,))
    assert baseline.choose_stream(criterion) == 0
    assert set(criterion.state_dict()) == {"center.centers"}
    terms = criterion(*_batch(baseline, settings, images), Moment(0, 0)).terms
    assert list(terms) == ["identity_loss", "triplet_loss", "center_loss"]


def _batch(method: Method, settings: TrainingSettings, images: list[ImageRecord]) -> tuple[Output, Batch]:
    data = number_labels(images)
    chosen = [0, 1, 2, 8, 9, 10]
    inputs = torch.rand(6, 3, 32, 16, generator=torch.Generator().manual_seed(0))
    batch = Batch(inputs, torch.tensor(data.identities[chosen]), torch.tensor(data.cameras[chosen]))
    torch.manual_seed(0)
    return method.build_network(settings, 5)(inputs), batch


def test_each_step_gets_the_batch_that_its_branch_asks_for(
    baseline: Method, images: list[ImageRecord], tmp_path: Path
) -> None:
    seen: list[tuple[list[int], float]] = []

    class Watching(nn.Module):
        def __init__(self, criterion: nn.Module) -> None:
            super().__init__()
            self.criterion = criterion

        def forward(self, output: Output, batch: Batch, moment: Moment) -> Losses:
            losses: Losses = self.criterion(output, batch, moment)
            seen.append((sorted(Counter(batch.identities.tolist()).values()), float(losses.measures["both_losses"])))
            assert ("weighted_triplet_loss" in losses.terms) == ("center_loss" in losses.terms)
            return losses

    watched = replace(
        baseline,
        build_criterion=lambda *given: Watching(baseline.build_criterion(*given)),
        build_optimizers=lambda settings, network, watching: baseline.build_optimizers(
            settings, network, watching.criterion
        ),
        choose_stream=lambda watching: baseline.choose_stream(watching.criterion),
    )
    result = train(watched, small(baseline, dynamic={"enabled": True}), images, tmp_path / "run")
    assert seen[0][1] == 0
    assert {both for _, both in seen} == {0, 1}
    assert all(counts == [3, 3, 3, 3] for counts, both in seen if both)
    assert any(counts != [3, 3, 3, 3] for counts, both in seen if not both)
    assert set(result.history) >= CURVES | {"both_losses"}
    assert values(result, "both_losses") == [both for _, both in seen]


def test_a_dynamic_run_interrupted_twice_ends_as_an_unbroken_one(images: list[ImageRecord], tmp_path: Path) -> None:
    baseline = METHODS["bnneck-camera"]
    settings = small(baseline, dynamic={"enabled": True}, schedule=SMALL["schedule"] | {"epochs": 3})
    unbroken = train(baseline, settings, images, tmp_path / "unbroken")
    assert set(values(unbroken, "both_losses")) == {0, 1}
    steps = 0

    def stop_twice() -> bool:
        nonlocal steps
        steps += 1
        return steps in (4, 8)  # an epoch has 3

    stopping = Observer(should_stop=stop_twice)
    for _ in range(2):
        with pytest.raises(Stopped):
            train(baseline, settings, images, tmp_path / "broken", stopping)
    broken = train(baseline, settings, images, tmp_path / "broken", stopping)
    assert broken.history == unbroken.history
    wanted = unbroken.network.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in broken.network.state_dict().items())


def test_without_a_positive_pair_the_baseline_minimises_the_identity_loss(baseline: Method) -> None:
    settings = small(baseline, dynamic={"enabled": True})
    network = baseline.build_network(settings, 6)
    criterion = baseline.build_criterion(settings, 6, network)
    images = torch.rand(6, 3, 32, 16, generator=torch.Generator().manual_seed(0))
    batch = Batch(images, torch.arange(6), torch.zeros(6, dtype=torch.int64))
    assert list(criterion(network(images), batch, Moment(0, 0)).terms) == ["weighted_identity_loss"]


def test_the_pyramid_without_triplets_takes_random_and_balanced_batches_in_turn() -> None:
    pyramid = METHODS["pyramid"]
    settings = override(pyramid.recipe, SMALL | {"parts": 2, "levels": "11", "triplet": False})
    (stream,) = pyramid.draw_batches(settings, begin()).streams
    random, balanced = draw_random_and_balanced(IDENTITIES, settings.batch, np.random.default_rng(0))  # type: ignore[arg-type]
    assert stream == [random[0], balanced[1], random[2], balanced[3], random[4]]
    for enabled in (True, False):
        chosen = override(settings, {"dynamic": {"enabled": enabled}})
        network = pyramid.build_network(chosen, 5)
        criterion = pyramid.build_criterion(chosen, 5, network)
        batch = Batch(torch.rand(6, 3, 32, 16), torch.tensor([0, 0, 1, 1, 2, 2]), torch.zeros(6, dtype=torch.int64))
        for step in range(3):
            assert pyramid.choose_stream(criterion) == RANDOM == 0
            losses = criterion(network(batch.images), batch, Moment(step, 0))
            assert list(losses.terms) == ["weighted_identity_loss"]
            assert losses.terms["weighted_identity_loss"].detach() == losses.measures["identity_loss"]


def test_the_pyramid_without_the_dynamic_scheme_takes_balanced_batches() -> None:
    pyramid = METHODS["pyramid"]
    settings = override(pyramid.recipe, SMALL | {"parts": 2, "levels": "11", "dynamic": {"enabled": False}})
    criterion = pyramid.build_criterion(settings, 5, pyramid.build_network(settings, 5))
    assert pyramid.choose_stream(criterion) == BALANCED


@pytest.mark.parametrize("changes", [{"dynamic": {"enabled": True}}, {"center": {"weight": 0}}])
def test_steps_without_the_center_loss_pass_the_gradient_scaler(
    images: list[ImageRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    # fp16 is for cards alone, and CPUs take minutes for it; the scaler that comes with it does the same in fp32.
    scaler = torch.amp.GradScaler
    monkeypatch.setattr("torch.amp.GradScaler", lambda device, enabled: scaler(device, enabled=True))
    method = METHODS["bnneck"]
    result = train(method, small(method, **changes), images, tmp_path / "run")
    assert len(values(result, "loss")) > 1


def test_the_pyramids_backbone_may_learn_at_a_rate_of_its_own() -> None:
    method = METHODS["pyramid"]
    settings = override(method.recipe, {"backbone": "resnet18", "backbone_rate": 0.1, "schedule": {"base_lr": 0.2}})
    with torch.device("meta"):
        network = method.build_network(settings, 5)
        criterion = method.build_criterion(settings, 5, network)
    (optimizer,) = method.build_optimizers(settings, network, criterion)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert set(rates) == {id(parameter) for parameter in network.parameters()}
    inside = {id(parameter) for parameter in network.get_submodule("backbone").parameters()}
    assert {rates[parameter] for parameter in inside} == {0.1 * 0.2}
    assert {rates[parameter] for parameter in rates.keys() - inside} == {0.2}
