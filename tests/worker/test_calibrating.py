"""Calibration jobs fit what scores mean on people whom the model has not seen, and keep it whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reid_core.calibration.record import FILE_NAME, read_calibrations
from reid_core.data.records import Split
from reid_core.errors import Stopped
from service.db.ids import new_ids
from service.db.schema import upgrade
from service.db.session import Database, open_database
from service.db.tables import Dataset, DatasetImage, Model
from service.jobs.body_schemas import TrainBody
from service.jobs.lifecycle import LeaseLost, claim, enqueue
from service.jobs.planning import resolve
from service.models.lifecycle import describe_file
from service.settings import Settings
from tests.reid_core.images import make_images
from tests.service.galleries.stock import add_model_row
from tests.service.search.stock import EMBEDDING_SIZE, MATCHER_ID, METHOD, save_matching_model
from worker import calibrate, train
from worker.reporter import Reporter
from worker.work import Outcome, Work

PEOPLE = 24


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    save_matching_model(tmp_path / "home" / "models" / MATCHER_ID)
    return Settings(home=tmp_path / "home", min_free_bytes=0, device="cpu", threads=1)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    upgrade(settings.database_url)
    database = open_database(settings.database_url)
    add_model_row(database, MATCHER_ID, "matcher", method=METHOD, size=EMBEDDING_SIZE)
    add_people(database, settings.home / "people")
    yield database
    database.close()


def add_people(database: Database, folder: Path) -> None:
    """The data set `ds_people`: of every two people one is for training, the other in query and gallery."""
    images = make_images(folder, identities=PEOPLE, cameras=2, each=2)
    splits: list[Split] = []
    for image in images:
        shot = int(image.path.stem.split("_")[2])
        splits.append("train" if int(image.identity) % 2 else "gallery" if shot else "query")
    rows = [
        DatasetImage(
            id=key,
            dataset_id="ds_people",
            split=split,
            position=position,
            path=image.path.name,
            identity=image.identity,
            camera=image.camera,
        )
        for position, (key, image, split) in enumerate(zip(new_ids("img", len(images)), images, splits, strict=True))
    ]
    described = {"path": str(folder), "format": "auto", "state": "ready", "uploaded": False, "fingerprint": "f" * 64}
    with database.write() as session:
        session.add(Dataset(id="ds_people", name="people", **described))
        session.flush()
        session.add_all(rows)


def make_work(settings: Settings, database: Database, rerank: str = "none", *, stop: bool = False) -> Work:
    spec = {"model": MATCHER_ID, "dataset": "ds_people", "rerank": rerank}
    with database.write() as session:
        job = enqueue(session, "calibrate", spec)
    assert claim(database, job.id, "worker", 60) == 1
    (settings.jobs_dir / job.id).mkdir(parents=True, exist_ok=True)
    return Work(settings, database, job, 1, Reporter(database, job.id, 1, 60), lambda: stop)


def listed(database: Database) -> dict[str, Any]:
    with database.read() as session:
        return dict(session.get_one(Model, MATCHER_ID).files)


def test_each_way_of_re_ranking_is_added_to_the_models_file(settings: Settings, database: Database) -> None:
    folder = settings.models_dir / MATCHER_ID
    for rerank in ("none", "qaconv", "k_reciprocal"):
        result = calibrate.run(make_work(settings, database, rerank)).result
        assert (result["model"], result["dataset"], result["rerank"]) == (MATCHER_ID, "ds_people", rerank)
        assert result["fitted_on"]["identities"] == PEOPLE
        assert 0 <= result["expected_calibration_error"] <= 1
        kept = read_calibrations(folder)[rerank]
        assert kept.fit.expected_calibration_error == result["expected_calibration_error"]
        assert listed(database)[FILE_NAME] == describe_file(folder / FILE_NAME)
    assert set(read_calibrations(folder)) == {"none", "qaconv", "k_reciprocal"}
    assert kept.fitted_on["fingerprint"] == "f" * 64


@pytest.mark.parametrize("named", [{"id": "ds_people"}, {"id": "ds_elsewhere", "fingerprint": "f" * 64}])
def test_people_who_were_trained_on_are_left_out(settings: Settings, database: Database, named: dict[str, str]) -> None:
    with database.write() as session:
        session.get_one(Model, MATCHER_ID).lineage = {"datasets": [{**named, "split": "train"}]}
    result = calibrate.run(make_work(settings, database)).result
    assert result["fitted_on"]["identities"] == PEOPLE // 2
    assert result["fitted_on"]["people"] == "those of the query split"


def test_what_a_models_parent_was_trained_on_it_has_seen(settings: Settings, database: Database) -> None:
    add_model_row(database, "mdl_parent", "parent")
    with database.write() as session:
        session.get_one(Model, "mdl_parent").lineage = {"datasets": [{"id": "ds_people", "split": "train"}]}
        session.get_one(Model, MATCHER_ID).lineage = {"datasets": [], "parent": "mdl_parent", "teacher": None}
    assert calibrate.run(make_work(settings, database)).result["fitted_on"]["identities"] == PEOPLE // 2


def test_a_job_that_is_stopped_or_has_lost_its_lease_leaves_what_there_was(
    settings: Settings, database: Database
) -> None:
    calibrate.run(make_work(settings, database))
    before = (settings.models_dir / MATCHER_ID / FILE_NAME).read_bytes()
    with pytest.raises(Stopped):
        calibrate.run(make_work(settings, database, "qaconv", stop=True))
    work = make_work(settings, database, "qaconv")
    with pytest.raises(LeaseLost):  # another attempt has the job
        calibrate.run(Work(settings, database, work.job, 2, work.reporter, lambda: False))
    assert (settings.models_dir / MATCHER_ID / FILE_NAME).read_bytes() == before
    assert FILE_NAME in listed(database)


def test_a_damaged_file_is_replaced(settings: Settings, database: Database) -> None:
    (settings.models_dir / MATCHER_ID / FILE_NAME).write_text("{")
    calibrate.run(make_work(settings, database))
    assert set(json.loads((settings.models_dir / MATCHER_ID / FILE_NAME).read_text())["calibrations"]) == {"none"}


def run_training(
    settings: Settings, database: Database, method: str = "bnneck", *, fraction: float = 0.5, **changes: Any
) -> Outcome:
    """The outcome of a training without a step, half of whose twelve people are held out unless told otherwise."""
    chosen = {
        "backbone": "resnet18",
        "image": {"height": 64, "width": 32},
        "batch": {"identities": 4, "images_per_identity": 2},
        "schedule": {"epochs": 0},
        "validation": {"fraction": fraction},
    }
    body = {"kind": "train", "method": method, "init_from": None, "settings": chosen, **changes}
    if "chain" not in body:
        body.setdefault("dataset", {"id": "people", "split": "all"})
    with database.read() as session:
        spec = resolve(session, settings, TrainBody.model_validate(body)).spec
    with database.write() as session:
        job = enqueue(session, "train", spec)
    assert claim(database, job.id, "worker", 60) == 1
    outcome = train.run(Work(settings, database, job, 1, Reporter(database, job.id, 1, 60), lambda: False))
    with database.write() as session:
        session.add_all(outcome.rows)
    return outcome


@pytest.mark.parametrize(("method", "fitted"), [("bnneck", ["none"]), ("qaconv-pk", ["none", "qaconv"])])
def test_a_training_that_holds_people_out_is_published_with_its_calibration(
    settings: Settings, database: Database, method: str, fitted: list[str]
) -> None:
    outcome = run_training(settings, database, method)
    assert outcome.result["calibration"] == {"fitted": fitted, "reason": None}
    kept = read_calibrations(settings.models_dir / outcome.result["model"])
    assert list(kept) == fitted
    assert kept["none"].fitted_on["identities"] == PEOPLE // 2
    assert kept["none"].fitted_on["people"] == "those held out of the training"
    with database.read() as session:
        files = session.get_one(Model, outcome.result["model"]).files
    assert files[FILE_NAME] == describe_file(settings.models_dir / outcome.result["model"] / FILE_NAME)


def test_without_people_held_out_there_is_none_and_the_result_says_so(settings: Settings, database: Database) -> None:
    everybody = run_training(settings, database, fraction=0.0).result
    assert everybody["calibration"]["fitted"] == []
    assert "settings.validation.fraction" in everybody["calibration"]["reason"]
    assert read_calibrations(settings.models_dir / everybody["model"]) == {}

    few = run_training(settings, database, dataset="people").result["calibration"]
    assert few["fitted"] == []
    assert "6 people" in few["reason"]


def test_people_whom_an_earlier_stage_or_model_has_seen_are_not_held_out(
    settings: Settings, database: Database
) -> None:
    part = {"id": "people", "split": "all"}
    no_hold_out = {"validation": {"fraction": 0.0}}
    chain = [{"dataset": part, "settings": no_hold_out}, {"dataset": part}]
    assert run_training(settings, database, chain=chain).result["calibration"]["fitted"] == []

    parent = run_training(settings, database).result
    assert parent["calibration"]["fitted"] == ["none"]
    child = run_training(settings, database, init_from=parent["model"]).result["calibration"]
    assert child["fitted"] == []
    assert "from which it learned" in child["reason"]
