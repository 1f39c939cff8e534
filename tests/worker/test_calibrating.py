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
from service.jobs.lifecycle import LeaseLost, claim, enqueue
from service.models.lifecycle import describe_file
from service.settings import Settings
from tests.reid_core.images import make_images
from tests.service.galleries.stock import add_model_row
from tests.service.search.stock import EMBEDDING_SIZE, MATCHER_ID, METHOD, save_matching_model
from worker import calibrate
from worker.reporter import Reporter
from worker.work import Work

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
