"""A network that training teaches nothing is told from one that learns, while it trains and in the result."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_core.data.preprocessing import Preprocessing
from reid_core.data.reader import read
from reid_core.data.records import ImageRecord
from reid_core.methods import METHODS
from reid_core.retrieval.encoder import torch_encoder
from reid_core.sample_data import write_sample_data
from reid_core.settings import override
from reid_core.training.chain import fit_chain
from reid_core.training.loop import Observer, Plan, Result, fit
from reid_core.training.progress import Progress
from reid_core.training.recognition import Sample, check_learning, draw_sample, measure_rank1
from reid_core.training.warnings import TrainingWarning, check_length
from tests.reid_core.images import make_images
from tests.reid_core.small import SMALL

CPU = torch.device("cpu")
METHOD = METHODS["bnneck"]
TOO_FAST: dict[str, Any] = {"schedule": {"base_lr": 0.5}}
"""At this rate the network forgets what it saw; the loss stays finite."""


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRecord]:
    """96 images of 12 drawn people, of whom a fresh network recognises some."""
    folder = tmp_path_factory.mktemp("data") / "people"
    write_sample_data(folder, identities=24, cameras=2, seed=1)
    return read(folder).images["train"]


def plan(images: list[ImageRecord], changes: dict[str, Any] | None = None) -> Plan:
    settings = override(override(METHOD.recipe, SMALL | {"preset": "small"}), changes or {})
    return Plan(METHOD, settings, images, seed=3, device=CPU)


def train(plan: Plan, folder: Path, observer: Observer | None = None) -> Result:
    folder.mkdir()
    return fit(plan, folder, observer)


def sampled(images: list[ImageRecord], others: list[ImageRecord] | None = None, seed: int = 1) -> Sample:
    sample = draw_sample(images, others or [], seed)
    assert sample is not None
    return sample


def test_a_sample_has_at_most_four_images_of_32_people_of_several_cameras(tmp_path: Path) -> None:
    images = make_images(tmp_path, identities=40, each=3)
    once = [replace(images[0], identity=f"once-{number}") for number in range(9)]
    sample = sampled([*images, *once])
    assert sorted(Counter(image.identity for image in sample.images).values()) == [4] * 32
    cameras = Counter((image.identity, image.camera) for image in sample.images)
    assert set(cameras.values()) == {2}, "cameras in turn"
    assert len(set(sample.images)) == len(sample.images)
    assert not set(sample.images) & set(once)
    assert sample == sampled([*images, *once])
    assert sample != sampled([*images, *once], seed=2)
    assert draw_sample(once, [], seed=1) is None


def test_people_who_are_not_trained_on_are_sampled_where_they_are_enough(tmp_path: Path) -> None:
    images, others = (make_images(tmp_path / name, identities=8, each=3) for name in ("train", "test"))
    sample = sampled(images, others)
    assert (set(sample.images) <= set(others), sample.curve) == (True, "new_people_rank1")
    few = [image for image in others if image.identity != others[0].identity]
    assert (set(sampled(images, few).images) <= set(images), sampled(images, few).curve) == (True, "training_rank1")


def test_without_cameras_any_other_image_counts(tmp_path: Path) -> None:
    images = [replace(image, camera="") for image in make_images(tmp_path, identities=9, each=3)]
    sample = sampled(images)
    assert len({image.camera for image in sample.images}) == len(sample.images) == 36
    assert sample.curve == "training_rank1"


def test_an_image_is_recognised_where_its_nearest_of_another_camera_is_of_the_same_person(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    people = make_images(tmp_path, identities=30)
    encoder = torch_encoder(METHOD.build_network(plan(people).settings, 12), Preprocessing(32, 16), CPU, torch.float32)
    embeddings = encoder.embed_files([image.path for image in people])
    right = 0
    for one, own in enumerate(people):
        label, camera = people[one].identity, people[one].camera
        others = [index for index, other in enumerate(people) if (other.identity, other.camera) != (label, camera)]
        nearest = min(others, key=lambda index: float((embeddings[one] - embeddings[index]).norm()))
        right += people[nearest].identity == own.identity
    assert 0 < right < len(people)
    assert measure_rank1(encoder, Sample(tuple(people))) == pytest.approx(right / len(people))


@pytest.mark.parametrize(
    ("before", "after", "warned"),
    [(0.2, 0.1, True), (0.2, 0.2, True), (0.2, 0.21, False), (0.9, 0.8, False), (0.6, 0.4, True)],
)
def test_no_better_than_before_and_mostly_wrong_is_told(before: float, after: float, warned: bool) -> None:
    history = {"training_rank1_before": [(0, before)], "training_rank1": [(5, 1.0), (10, after)]}
    warnings = check_learning(history, Sample(()), METHOD.recipe)
    assert bool(warnings) is warned
    if warned:
        assert f"After 10 steps {after:.1%}" in warnings[0].detail
        assert f"it was {before:.1%}" in warnings[0].detail
        assert f"{METHOD.recipe.schedule.base_lr:g}" in warnings[0].hint
        assert 'settings.preset "small"' in warnings[0].hint
    assert check_learning({}, Sample(()), METHOD.recipe) == []
    assert check_learning(history, Sample((), "new_people_rank1"), METHOD.recipe) == []
    assert check_learning(history, None, METHOD.recipe) == []


def test_a_training_that_forgets_says_so_and_one_that_learns_does_not(
    people: list[ImageRecord], tmp_path: Path
) -> None:
    told: list[tuple[int, TrainingWarning]] = []
    progress: list[Progress] = []
    observer = Observer(
        on_progress=progress.append,
        on_warning=lambda warning: told.append((progress[-1].epoch, warning)),
    )
    wild = train(plan(people, TOO_FAST | {"validation": {"every_epochs": 2}}), tmp_path / "wild", observer)
    assert [epoch for epoch, _ in told] == [2, 4]
    assert wild.warnings == (told[-1][1],)
    assert [step for step, _ in wild.history["training_rank1_before"]] == [0]
    assert len(wild.history["training_rank1"]) == 2
    assert progress[0].values == {"training_rank1_before": wild.history["training_rank1_before"][0][1]}

    calm = train(plan(people, {"schedule": {"epochs": 12}}), tmp_path / "calm")
    assert calm.warnings == ()
    assert calm.history["training_rank1"][-1][1] > calm.history["training_rank1_before"][0][1]


def test_a_chain_tells_which_stage_learned_nothing_also_when_it_goes_on_after_it(
    people: list[ImageRecord], tmp_path: Path
) -> None:
    plans = [plan(people, TOO_FAST), plan(people, {"schedule": {"epochs": 0}})]
    for _ in range(2):  # the second time from the checkpoint of the first
        result = fit_chain(plans, tmp_path / "run")
        assert [warning.stage for warning in result.warnings] == [1]


def test_people_seen_once_are_trained_without_the_measure(people: list[ImageRecord], tmp_path: Path) -> None:
    once = list({image.identity: image for image in people}.values())
    result = train(plan(once, {"schedule": {"epochs": 1}}), tmp_path / "run")
    assert result.warnings == ()
    assert "training_rank1" not in result.history


@pytest.mark.parametrize(
    ("name", "steps"), [("bnneck", 24_240), ("qaconv-gs", 10_716), ("finetune-resnet50", 20_200), ("qaconv", 24_255)]
)
def test_steps_of_a_papers_recipe_are_counted_on_market_1501(name: str, steps: int) -> None:
    assert METHODS[name].paper_steps == steps


def test_a_run_of_few_of_its_papers_steps_is_told_before_its_first(people: list[ImageRecord], tmp_path: Path) -> None:
    told: list[tuple[str, bool]] = []
    progress: list[Progress] = []
    observer = Observer(
        on_progress=progress.append, on_warning=lambda warning: told.append((warning.code, bool(progress)))
    )
    asked = {"preset": "paper", "schedule": {"epochs": 1}}
    result = train(plan(people, asked), tmp_path / "run", observer)
    assert told[0] == ("too-short-for-preset", False)
    assert result.warnings[0].detail.startswith("This training has about 8 steps; the paper's settings were made for")
    assert 'settings.preset "small"' in result.warnings[0].hint

    recipe = METHOD.recipe
    enough = override(recipe, {"schedule": {"epochs": 30}})
    assert check_length(METHOD, enough, 751, 12_936) == []
    assert len(check_length(METHOD, override(recipe, {"schedule": {"epochs": 29}}), 751, 12_936)) == 1
    assert check_length(METHOD, override(recipe, {"preset": "small", "schedule": {"epochs": 1}}), 751, 12_936) == []
    assert check_length(METHOD, override(recipe, {"schedule": {"epochs": 0}}), 751, 12_936) == []
