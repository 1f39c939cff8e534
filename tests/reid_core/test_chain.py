"""Transfer chains: one training in several stages, which ends the same however often it is interrupted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_core.backbones.weights import Transfer
from reid_core.errors import Stopped
from reid_core.methods import METHODS
from reid_core.settings import override
from reid_core.training.chain import fit_chain
from reid_core.training.checkpoint import History
from reid_core.training.loop import Observer, Plan, Result, fit
from reid_core.training.progress import Progress
from tests.reid_core.images import make_images

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")
SMALL: dict[str, Any] = {
    "backbone": "resnet18",
    "image": {"height": 32, "width": 16},
    "batch": {"size": 12},
    "schedule": {"epochs": 2, "base_lr": 0.01, "warmup": 0.0, "decay_at": []},
    "augmentation": {"padding": 1},
    "precision": "fp32",
}


def plan(folder: Path, identities: int, *, method: str = "finetune-resnet50", **changes: Any) -> Plan:
    images = make_images(folder / f"of-{identities}", identities=identities, seed=identities)
    settings = override(METHODS[method].recipe, SMALL | changes)
    return Plan(METHODS[method], settings, images, seed=3, device=CPU)


def three_stages(folder: Path) -> list[Plan]:
    """24, 36 and 18 images in 2, 1 and 2 epochs of 2, 3 and 1 steps."""
    longer = SMALL["schedule"] | {"epochs": 1}
    return [plan(folder, 4), plan(folder, 6, schedule=longer), plan(folder, 3)]


def test_a_chain_interrupted_anywhere_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    plans = three_stages(tmp_path)
    unbroken = fit_chain(plans, tmp_path / "unbroken")
    asked, transfers, resumed = 0, list[int](), list[tuple[int, int, History]]()

    def stop_every_second_step() -> bool:
        nonlocal asked
        asked += 1
        return asked % 2 == 0

    def observe(stage: int) -> Observer:
        def stop_between_stages(transfer: Transfer) -> None:
            transfers.append(stage)
            if transfers.count(stage) == 1:
                raise Stopped

        return Observer(
            on_transfer=stop_between_stages,
            on_resume=lambda step, history: resumed.append((stage, step, history)),
            should_stop=stop_every_second_step,
        )

    broken: Result | None = None
    while broken is None:
        try:
            broken = fit_chain(plans, tmp_path / "broken", observe)
        except Stopped:
            continue

    assert broken.history == unbroken.history
    assert transfers == [1, 1, 2, 2]
    # Stopped at step 4 before the stage was finished, and again after it, before the next had a checkpoint.
    assert [(stage, step) for stage, step, _ in resumed] == [(0, 2), (0, 4), (0, 4), (1, 6), (1, 7), (2, 8)]
    for _, step, history in resumed:
        assert history["loss"] == unbroken.history["loss"][:step]
    wanted = unbroken.network.state_dict()
    for name, tensor in broken.network.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name


def test_curves_and_progress_go_on_through_the_stages(tmp_path: Path) -> None:
    told: list[Progress] = []
    result = fit_chain(three_stages(tmp_path), tmp_path / "run", lambda stage: Observer(on_progress=told.append))

    steps = [step for step, _ in result.history["loss"]]
    assert steps == list(range(1, 10))
    assert [each.total_step for each in told if each.phase == "train"] == steps
    fractions = [each.fraction for each in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    # Stages weigh what they have of 48, 36 and 36 images to see.
    ends = [each.fraction for each in told if each.phase == "validate" and each.epoch == each.epochs]
    assert ends == pytest.approx([0.4, 0.7, 1.0])


def test_a_stage_starts_from_the_network_before_but_for_its_classifier(tmp_path: Path) -> None:
    told: dict[int, Transfer] = {}
    idle = SMALL["schedule"] | {"epochs": 0}
    first, second = plan(tmp_path, 4), plan(tmp_path, 6, schedule=idle)

    def observe(stage: int) -> Observer:
        return Observer(on_transfer=lambda transfer: told.update({stage: transfer}))

    chained = fit_chain([first, second], tmp_path / "chain", observe).network.state_dict()

    (tmp_path / "alone").mkdir()
    alone = fit(first, tmp_path / "alone").network.state_dict()
    assert list(told) == [1]
    assert told[1].kept
    assert all("classifier" in name for name in told[1].kept)
    assert {name for name in alone if not torch.equal(alone[name], chained[name])} == set(told[1].kept)


def test_graphs_of_later_stages_are_numbered_after_those_before(tmp_path: Path) -> None:
    changes = {"batch": {"identities": 2, "images_per_identity": 2}}
    plans = [plan(tmp_path, identities, method="qaconv-gs", **changes) for identities in (4, 5)]
    told: list[tuple[int, int]] = []
    observer = Observer(on_graph=lambda epoch, graph, images: told.append((epoch, len(images))))
    fit_chain(plans, tmp_path / "run", lambda stage: observer)
    assert told == [(1, 4), (3, 5)]


def test_a_chain_of_one_is_that_training(tmp_path: Path) -> None:
    only = plan(tmp_path, 4)
    (tmp_path / "alone").mkdir()
    alone = fit(replace(only), tmp_path / "alone")
    chained = fit_chain([only], tmp_path / "chain")
    assert chained.history == alone.history
    for name, tensor in chained.network.state_dict().items():
        assert torch.equal(tensor, alone.network.state_dict()[name]), name
