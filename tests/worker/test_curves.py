"""Curves of jobs in TensorBoard and MLflow are those of the database, also after a resume and a server's absence."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from reid_core.errors import Stopped
from service.db.session import Database
from service.db.tables import Job
from service.jobs.lifecycle import claim
from service.jobs.recording import Points, read_curves
from service.settings import Settings
from tests.worker.test_chains import add_training, database, settings  # noqa: F401 - fixtures
from worker import curves, train
from worker.curves import Follower, describe, follow_curves, job_name
from worker.reporter import Reporter
from worker.work import Work

EXPERIMENT = "people"


@pytest.fixture
def followed(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:  # noqa: F811
    """Settings with both; MLflow's own store of files stands for its server, behind the same client."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    places = {"tensorboard_dir": tmp_path / "boards", "mlflow_url": (tmp_path / "runs").as_uri()}
    return settings.model_copy(update={**places, "mlflow_experiment": EXPERIMENT})


def attempt(settings: Settings, database: Database, job: Job, number: int, stop_after: int | None) -> None:  # noqa: F811
    """One attempt of a training, told to stop after so many steps."""
    assert claim(database, job.id, "worker", 60) == number
    steps = 0

    def should_stop() -> bool:
        nonlocal steps
        steps += 1
        return steps == stop_after

    reporter = Reporter(database, job.id, number, 60, follow_curves(settings, job))
    reporter.start()
    try:
        train.run(Work(settings, database, job, number, reporter, should_stop))
    except Stopped:
        assert stop_after
    finally:
        reporter.close()


def board_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    board = EventAccumulator(str(folder))
    board.Reload()
    return {name: [(one.step, one.value) for one in board.Scalars(name)] for name in board.Tags()["scalars"]}


def test_a_training_that_goes_on_shows_the_curves_of_the_database(
    followed: Settings,
    database: Database,  # noqa: F811
) -> None:
    job = add_training(database, followed, chain=[{"dataset": "lobby"}, {"dataset": "gate"}])
    attempt(followed, database, job, 1, stop_after=4)
    with database.write() as session:
        session.get_one(Job, job.id).state = "queued"
    attempt(followed, database, job, 2, stop_after=None)
    with database.read() as session:
        wanted = read_curves(session, job.id)
    assert [step for step, _ in wanted["loss"]] == [1, 2, 3, 4, 5, 6]

    assert followed.tensorboard_dir is not None
    shown = board_curves(followed.tensorboard_dir / job_name(job))
    assert {name: [step for step, _ in points] for name, points in shown.items()} == {
        name: [step for step, _ in points] for name, points in wanted.items()
    }
    assert [value for _, value in shown["loss"]] == pytest.approx([value for _, value in wanted["loss"]], rel=1e-6)

    client = MlflowClient(tracking_uri=followed.mlflow_url)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.data.tags["reid.job"], run.info.run_name) == (job.id, job_name(job))
    assert run.info.status == "FINISHED"
    assert run.data.params["chain.1.settings.schedule.base_lr"] == "0.01"
    for name, points in wanted.items():
        kept = client.get_metric_history(run.info.run_id, name)
        assert sorted((one.step, one.value) for one in kept) == [(step, pytest.approx(value)) for step, value in points]


class Absent:
    """A server that is away for the first calls."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.taken: list[Any] = []

    def _take(self, what: Any) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("nobody is there")
        self.taken.append(what)

    def restart(self, curves: Mapping[str, Sequence[tuple[int, float]]]) -> None:
        self._take(dict(curves))

    def add(self, points: Points) -> None:
        self._take(points)

    def close(self, end: str) -> None:
        self._take(end)


def test_a_server_that_comes_back_gets_everything_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "_RETRY_SECONDS", (0.01, 0.02))
    server = Absent(failures=5)
    follower = Follower("a server", lambda: server)
    follower.restart({})
    for step in range(3):
        follower.add([("loss", step, 1.0)])
    follower.close("KILLED")
    assert server.taken == [{}, *[[("loss", step, 1.0)] for step in range(3)], "KILLED"]


def test_a_server_that_stays_away_fails_no_training(
    settings: Settings,  # noqa: F811
    database: Database,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(curves, "_CLOSE_SECONDS", 0.5)
    nobody = settings.model_copy(update={"mlflow_url": "http://user:secretpw@127.0.0.1:9"})
    job = add_training(database, nobody, chain=[{"dataset": "lobby"}])
    with caplog.at_level(logging.WARNING, logger="worker.curves"):
        attempt(nobody, database, job, 1, stop_after=None)
    assert "the last points of the curves did not reach MLflow" in caplog.text
    assert "MLflow did not take the curves" in caplog.text
    assert "secretpw" not in caplog.text


def test_settings_are_described_by_dotted_names_and_nothing_else_of_a_job_is() -> None:
    spec = {"method": "bnneck", "settings": {"schedule": {"epochs": 3}}, "webhook": {"secret": "s"}}
    job = Job(id="job_1", kind="train", state="queued", spec={**spec, "model_name": "a/b"})
    assert describe(job) == {"method": "bnneck", "settings.schedule.epochs": "3"}
    assert job_name(job) == "a_b-job_1"
