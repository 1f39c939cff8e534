"""Training without labels: pseudo-identities by clusters, epoch by epoch, the same however often it is interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reid_core.clustering import Clustering, Clusters
from reid_core.errors import DatasetError, SettingsError, Stopped
from reid_core.methods import METHODS
from reid_core.settings import override
from reid_core.training.adaptation import Adaptation, Reliability, adapt, choose_reliable, names_of_identities
from reid_core.training.checkpoint import History
from reid_core.training.loop import Observer
from reid_core.training.progress import Progress
from reid_core.training.validation import HeldOut
from tests.reid_core.images import make_images
from tests.reid_core.small import SMALL
from tests.reid_core.test_methods import SMALL_OF

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


def plan(folder: Path, method: str = "bnneck", **changes: Any) -> Adaptation:
    """Of an untrained network, which tells these people apart by their colours: 64 images of eight people."""
    asked = SMALL | SMALL_OF.get(method, {}) | {"validation": {"every_epochs": 1}}
    settings = override(METHODS[method].recipe, asked)
    settings = override(settings, {"schedule": {"epochs": 2}})
    torch.manual_seed(0)
    network = METHODS[method].build_network(settings, 5).to(memory_format=torch.channels_last)
    images = make_images(folder, identities=8, each=4, seed=2)
    clustering = Clustering(threshold=0.6, k1=5, k2=2)
    made = Adaptation(METHODS[method], settings, images, network, seed=3, device=CPU, clustering=clustering)
    return replace(made, reliability=Reliability(0.0, cross_camera=False), **changes)


def test_an_adaptation_interrupted_anywhere_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    made = plan(tmp_path / "images")
    made = replace(made, labelled=HeldOut(tuple(made.images[::4]), tuple(made.images[1::4])))
    told: list[tuple[int, int]] = []
    unbroken = adapt(
        made, tmp_path / "unbroken", on_clusters=lambda epoch, found, taken: told.append((epoch, len(taken)))
    )
    asked, resumed = 0, list[History]()

    def stop_now_and_then() -> bool:
        nonlocal asked
        asked += 1
        return asked % 9 == 0

    observer = Observer(should_stop=stop_now_and_then, on_resume=lambda step, curves: resumed.append(curves))
    for _attempt in range(100):
        try:
            result = adapt(made, tmp_path / "broken", observer)
            break
        except Stopped:
            continue
    assert len(resumed) > 1
    assert result.history == unbroken.history
    for name, tensor in unbroken.network.state_dict().items():
        assert torch.equal(tensor, result.network.state_dict()[name]), name
    assert [epoch for epoch, _ in told] == [0, 1]
    assert [value for _, value in result.history["clusters"]] == [count for _, count in told]
    assert {"rank1_before", "mAP_before"} <= set(result.history)
    assert len(result.history["mAP"]) == 2
    assert all(curves["clusters"][0][0] == 0 for curves in resumed)
    assert len(list((tmp_path / "broken").glob("*/checkpoint.pt"))) == 1


def test_identities_of_the_images_are_not_looked_at(tmp_path: Path) -> None:
    made = plan(tmp_path / "images")
    hidden = replace(made, images=[replace(image, identity="unknown") for image in made.images])
    first, second = (adapt(each, tmp_path / name) for each, name in ((made, "first"), (hidden, "second")))
    assert first.history == second.history
    assert first.num_classes > 1


@pytest.mark.parametrize("method", ["bnneck-camera", "qaconv-gs", "pyramid", "ptl-resnet50"])
def test_other_methods_adapt_with_their_own_samplers_and_losses(method: str, tmp_path: Path) -> None:
    made = plan(tmp_path / "images", method)
    made = replace(made, settings=override(made.settings, {"schedule": {"epochs": 1}}))
    result = adapt(made, tmp_path / "run")
    assert result.num_classes == result.history["clusters"][0][1] > 1
    assert np.isfinite([value for _, value in result.history["loss"]]).all()


@pytest.mark.parametrize("name", [name for name in METHODS if "densenet" not in name])
def test_what_depends_on_the_number_of_identities_is_known_of_every_method(name: str) -> None:
    method = METHODS[name]
    settings = override(method.recipe, SMALL | SMALL_OF.get(name, {}))
    names = names_of_identities(method, settings)
    five, seven = (method.build_network(settings, count).state_dict() for count in (5, 7))
    assert names == {each for each in five if five[each].shape != seven[each].shape}
    assert not any(each.startswith("backbone.") for each in names)


def test_progress_counts_through_all_epochs(tmp_path: Path) -> None:
    points: list[Progress] = []
    adapt(plan(tmp_path / "images"), tmp_path / "run", Observer(on_progress=points.append))
    assert {point.epochs for point in points} == {2}
    assert next(point.phase for point in points if point.epoch == 2) == "cluster"
    fractions = [point.fraction for point in points]
    assert fractions == sorted(fractions)
    steps = [point.total_step for point in points if point.phase == "train"]
    assert steps == list(range(1, len(steps) + 1))


def test_what_cannot_be_trained_on_is_refused_with_a_way_out(tmp_path: Path) -> None:
    made = plan(tmp_path / "images")
    with pytest.raises(DatasetError, match="no reliable cluster") as error:
        adapt(replace(made, images=made.images[:1]), tmp_path / "none")
    assert "start from a model" in error.value.hint
    many = override(made.settings, {"batch": {"identities": 100}})
    with pytest.raises(SettingsError, match="A batch needs 100 identities") as refused:
        adapt(replace(made, settings=many), tmp_path / "few")
    assert refused.value.faults[0].pointer == "/batch/identities"


def test_only_sure_clusters_of_several_cameras_are_reliable() -> None:
    clusters = Clusters(np.array([0, 0, 1, 1, 2, 2, 3, 3, -1]), np.array([0.9, 0.9, 0.4, 1.0]))
    cameras = np.array([0, 1, 0, 0, 0, 1, -1, 1, 0])

    def chosen(reliability: Reliability) -> Sequence[int]:
        return choose_reliable(clusters, cameras, reliability)

    assert chosen(Reliability(0.5)) == [0]
    assert chosen(Reliability(0.5, cross_camera=False)) == [0, 1, 3]
    assert chosen(Reliability(0.0)) == [0, 2]
