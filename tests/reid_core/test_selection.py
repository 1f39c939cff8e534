"""The epoch that a training keeps, and trainings that end when they no longer get better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from reid_core.data.reader import read
from reid_core.data.records import ImageRecord
from reid_core.errors import DatasetError, SettingsError, Stopped
from reid_core.methods import METHODS
from reid_core.retrieval.encoder import torch_encoder
from reid_core.sample_data import write_sample_data
from reid_core.settings import override
from reid_core.training.chain import fit_chain
from reid_core.training.loop import Observer, Plan, Result, fit
from reid_core.training.validation import hold_out, validate
from tests.reid_core.small import SMALL

CPU = torch.device("cpu")
METHOD = METHODS["bnneck"]
FORGETS: dict[str, Any] = {"schedule": {"base_lr": 0.3, "epochs": 6, "warmup": 0.9, "warmup_start": 0.001}}
"""The rate rises until the network forgets what it saw, so that an early epoch is the best."""


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRecord]:
    folder = tmp_path_factory.mktemp("data") / "people"
    write_sample_data(folder, identities=24, cameras=2, seed=1)
    return read(folder).images["train"]


def plan(people: list[ImageRecord], **validation: Any) -> Plan:
    changes = {**FORGETS, "validation": {"fraction": 0.5, "every_epochs": 1, **validation}}
    settings = override(override(METHOD.recipe, SMALL | {"preset": "small"}), changes)
    return Plan(METHOD, settings, people, seed=3, device=CPU)


def train(plan: Plan, folder: Path, observer: Observer | None = None) -> Result:
    folder.mkdir(exist_ok=True)
    return fit(plan, folder, observer)


def measure(result: Result, plan: Plan) -> float:
    _, held_out = hold_out(plan.images, plan.settings.validation.fraction, plan.seed)
    assert held_out is not None
    encoder = torch_encoder(result.network, result.preprocessing, CPU, torch.float32)
    return validate(encoder, held_out)["mAP"]


def test_the_best_epochs_network_is_kept_and_named(people: list[ImageRecord], tmp_path: Path) -> None:
    best = train(plan(people, keep="best"), tmp_path / "best")
    last = train(plan(people), tmp_path / "last")
    curve = [value for _, value in best.history["mAP"]]
    assert best.history["mAP"] == last.history["mAP"]
    assert max(curve) > curve[-1], "the case needs an epoch better than the last"
    assert (best.kept.epoch, best.kept.epochs, best.kept.mAP) == (curve.index(max(curve)) + 1, 6, max(curve))
    assert (last.kept.rule, last.kept.epoch, last.kept.mAP) == ("last", 6, curve[-1])
    assert measure(best, plan(people)) == pytest.approx(max(curve), abs=1e-6)
    assert measure(last, plan(people)) == pytest.approx(curve[-1], abs=1e-6)


def test_patience_ends_the_run_and_a_stage_after_it_starts_from_the_best(
    people: list[ImageRecord], tmp_path: Path
) -> None:
    impatient = plan(people, keep="best", patience=2)
    result = train(impatient, tmp_path / "run")
    curve = [value for _, value in result.history["mAP"]]
    best = curve.index(max(curve)) + 1
    assert (result.kept.stopped_early, result.kept.epoch, result.kept.epochs) == (True, best, best + 2)
    assert len(curve) == best + 2 < 6

    still = plan(people)
    still = Plan(METHOD, override(still.settings, {"schedule": {"epochs": 0}}), people, seed=3, device=CPU)
    chained = fit_chain([impatient, still], tmp_path / "chain")
    for name, tensor in result.network.state_dict().items():
        assert torch.equal(tensor, chained.network.state_dict()[name]), name


def test_a_run_that_is_broken_anywhere_keeps_the_same_network(people: list[ImageRecord], tmp_path: Path) -> None:
    impatient = plan(people, keep="best", patience=2)
    unbroken = train(impatient, tmp_path / "unbroken")
    steps = unbroken.history["loss"][-1][0]
    stops = iter(range(1, steps * 2, 3))
    taken = 0

    def should_stop() -> bool:
        nonlocal taken, stop
        taken += 1
        return taken >= stop

    for stop in stops:  # noqa: B007 - should_stop reads it
        taken = 0
        try:
            broken = train(impatient, tmp_path / "broken", Observer(should_stop=should_stop))
            break
        except Stopped:
            continue
    assert broken.kept == unbroken.kept
    for name, tensor in unbroken.network.state_dict().items():
        assert torch.equal(tensor, broken.network.state_dict()[name]), name


def test_nobody_held_out_leaves_nothing_to_choose_by(people: list[ImageRecord], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="a fraction of identities to hold out"):
        override(METHOD.recipe, {"validation": {"keep": "best"}})
    with pytest.raises(SettingsError, match="a fraction of identities to hold out"):
        override(METHOD.recipe, {"validation": {"patience": 3}})
    few = [image for image in people if image.identity in sorted({image.identity for image in people})[:4]]
    with pytest.raises(DatasetError, match="holds nobody out"):
        train(plan(few, keep="best", fraction=0.01), tmp_path / "few")
