"""Transfer chains as jobs: one job, one progress, one model, however often its process is lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.db.ids import new_ids
from service.db.schema import upgrade
from service.db.session import Database, open_database
from service.db.tables import Dataset, DatasetImage, Job, Model
from service.jobs.body_schemas import TrainBody
from service.jobs.lifecycle import claim, enqueue, read_events
from service.jobs.planning import resolve
from service.jobs.recording import add_points, read_curves
from service.settings import Settings
from tests.reid_core.images import make_images
from tests.waiting import wait_until
from worker import train
from worker.reporter import Reporter
from worker.supervisor import Supervisor
from worker.work import Work

TRAINING: dict[str, Any] = {
    "kind": "train",
    "method": "finetune-resnet50",
    "device": "cpu",
    "init_from": None,
    "settings": {
        "backbone": "mobilenet_v2",
        "image": {"height": 32, "width": 16},
        "batch": {"size": 12},
        "schedule": {"epochs": 2, "base_lr": 0.01},
        "augmentation": {"padding": 1},
        "precision": "fp32",
    },
}
SIZES = {"lobby": 2, "hall": 3, "yard": 3, "gate": 4}
"""Identities of each data set, with six images each."""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of this process and of the processes that it starts."""
    values = {"home": str(tmp_path / "home"), "checkpoint_seconds": "0", "threads": "1", "min_free_bytes": "0"}
    for name, value in values.items():
        monkeypatch.setenv(f"REID_{name.upper()}", value)
    return Settings()


@pytest.fixture
def database(settings: Settings, tmp_path: Path) -> Iterator[Database]:
    """One that knows the data sets."""
    upgrade(settings.database_url)
    database = open_database(settings.database_url)
    for name, identities in SIZES.items():
        add_dataset(database, tmp_path / name, identities)
    yield database
    database.close()


def add_dataset(database: Database, folder: Path, identities: int) -> None:
    images = make_images(folder, identities=identities, seed=identities)
    name, ids = folder.name, new_ids("img", len(images))
    row = {"path": str(folder), "format": "auto", "state": "ready", "fingerprint": f"of-{name}", "uploaded": False}
    with database.write() as session:
        session.add(Dataset(id=f"ds_{name}", name=name, **row))
        session.flush()
        for position, (key, one) in enumerate(zip(ids, images, strict=True)):
            place = {"split": "train", "position": position, "path": one.path.name}
            labels = {"identity": one.identity, "camera": one.camera}
            session.add(DatasetImage(id=key, dataset_id=f"ds_{name}", **place, **labels))


def add_training(database: Database, settings: Settings, **body: Any) -> Job:
    with database.write() as session:
        resolved = resolve(session, settings, TrainBody.model_validate(TRAINING | body))
        return enqueue(session, resolved.kind, resolved.spec, datasets=resolved.datasets)


def read_job(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return session.get_one(Job, job_id)


def read_told(database: Database, job_id: str, kind: str) -> list[dict[str, Any]]:
    with database.read() as session:
        return [event.data for event in read_events(session, job_id) if event.kind == kind]


def test_a_chain_killed_in_its_second_stage_goes_on_there_and_tells_all_it_used(
    database: Database, settings: Settings
) -> None:
    long = {"schedule": {"epochs": 4}}
    chain = [{"dataset": "lobby"}, {"dataset": ["hall", "yard"], "settings": long}, {"dataset": "gate"}]
    job = add_training(database, settings, chain=chain)
    supervisor = Supervisor(settings, database, "worker", {"training": 1}, lambda job_id, kind: None, threading.Event())
    folder = settings.jobs_dir / job.id

    first = threading.Thread(target=supervisor.run_job, args=(job.id,))
    first.start()
    wait_until((folder / "stage-2" / "checkpoint.pt").exists)
    (child,) = [child for child in psutil.Process().children() if job.id in child.cmdline()]
    child.kill()
    first.join()

    job = read_job(database, job.id)
    assert (job.state, job.attempt) == ("succeeded", 2), (folder / "log.txt").read_text()
    # 12 images give a step an epoch, 36 three, 24 two.
    ((stage, step),) = [told.values() for told in read_told(database, job.id, "checkpoint")]
    assert stage == 2
    assert 2 < step <= 14
    with database.read() as session:
        curve = read_curves(session, job.id)["loss"]
        (model,) = session.query(Model)
    assert [step for step, _ in curve] == list(range(1, 19))
    check_lineage(model.lineage)
    assert [told["stage"] for told in read_told(database, job.id, "weights")] == [2, 3]
    assert [path.name for path in settings.models_dir.iterdir()] == [model.id]
    assert not list(folder.rglob("checkpoint*"))


def check_lineage(lineage: dict[str, Any]) -> None:
    assert [(row["name"], row["fingerprint"]) for row in lineage["datasets"]] == [
        (name, f"of-{name}") for name in SIZES
    ]
    assert lineage["kept"] == {"rule": "last", "epoch": 2, "epochs": 2, "mAP": None, "stopped_early": False}
    assert [stage["datasets"] for stage in lineage["chain"]] == [["ds_lobby"], ["ds_hall", "ds_yard"], ["ds_gate"]]
    first, *later = [stage["weights"] for stage in lineage["chain"]]
    assert first is None
    for weights in later:
        assert weights["taken"] > 100
        assert all("classifier" in name for name in weights["as_initialised"])


def test_progress_tells_the_stage_and_points_of_a_lost_attempt_are_dropped(
    database: Database, settings: Settings
) -> None:
    job = add_training(database, settings, chain=[{"dataset": "lobby"}, {"dataset": "gate"}])
    assert claim(database, job.id, "worker", 60) == 1
    with database.write() as session:
        add_points(session, job.id, [("loss", 1, 7.0), ("loss", 9, 7.0)])
    reporter = Reporter(database, job.id, 1, 60)
    shown: list[dict[str, Any]] = []

    def look() -> bool:
        shown.append(dict(reporter._progress or {}))
        return False

    reporter.start()
    train.run(Work(settings, database, job, 1, reporter, look))
    reporter.close()

    places = [(one["stage"], one["stages"], one["epoch"], one["epochs"], one["step"]) for one in shown]
    assert places == [
        (1, 2, 1, 2, 1),
        (1, 2, 2, 2, 1),
        *[(2, 2, epoch, 2, step) for epoch in (1, 2) for step in (1, 2)],
    ]
    with database.read() as session:
        assert [step for step, _ in read_curves(session, job.id)["loss"]] == [1, 2, 3, 4, 5, 6]


def test_a_stage_that_learned_nothing_is_told_in_events_log_and_result(
    database: Database, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Few steps leave normalisations that are neither new nor adapted, and the people alike."""
    add_dataset(database, tmp_path / "crowd", 12)
    lengths = {"lobby": 0, "crowd": 1}
    chain = [{"dataset": name, "settings": {"schedule": {"epochs": epochs}}} for name, epochs in lengths.items()]
    job = add_training(database, settings, chain=chain, seed=0)
    assert claim(database, job.id, "worker", 60) == 1
    reporter = Reporter(database, job.id, 1, 60)
    reporter.start()
    with caplog.at_level(logging.WARNING, logger="worker"):
        result = train.run(Work(settings, database, job, 1, reporter, lambda: False)).result
    reporter.close()

    *short, warning = result["warnings"]
    assert [(one["code"], one["stage"]) for one in short] == [("too-short-for-preset", 2)]
    with database.read() as session:
        curves = read_curves(session, job.id)
    ((_, before),), ((last, after),) = curves["training_rank1_before"], curves["training_rank1"]
    assert after <= before
    assert (last, warning["code"], warning["stage"]) == (6, "learned-nothing", 2)
    assert f"After 6 steps {after:.1%}" in warning["detail"]
    assert "base_lr (it is 0.01)" in warning["hint"]
    assert read_told(database, job.id, "warning") == [*short, warning]
    assert warning["detail"] in caplog.text
