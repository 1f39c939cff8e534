"""Jobs outlive crashes: every part of a real service is killed while it trains."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import Celery
from safetensors.torch import load_file

from reid_core.sample_data import write_sample_data
from service.queue.tasks import TRAINING_QUEUE, make_celery, send_job
from tests.waiting import wait_until
from tests.worker.service import Service

TRAINING: dict[str, Any] = {
    "backbone": "mobilenet_v2",
    "image": {"height": 32, "width": 16},
    "batch": {"identities": 4, "images_per_identity": 2},
    "schedule": {"epochs": 24, "base_lr": 1e-3},
    "augmentation": {"padding": 1},
    "precision": "fp32",
}

# A healthy run takes a minute each; where others need the processor too it may take many.
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "people"
    write_sample_data(folder, identities=10, cameras=2, seed=1)
    return folder


@pytest.fixture
def service(tmp_path: Path, people: Path) -> Iterator[Service]:
    service = Service(tmp_path / "home", people.parent)
    service.start()
    yield service
    if service.processes():
        service.kill_everything()


def start_training(service: Service, name: str, **settings: Any) -> str:
    body = {"kind": "train", "method": "bnneck-camera", "dataset": "people", "model_name": name, "device": "cpu"}
    rest = {"init_from": None, "settings": {**TRAINING, **settings}, "seed": 7}
    return str(service.post("/jobs", {**body, **rest})["id"])


def wait_until_training(service: Service, job_id: str, fraction: float = 0.1, attempt: int = 1) -> None:
    def far_enough() -> bool:
        job = service.job(job_id)
        assert job["state"] in ("queued", "running", "interrupted"), job
        return bool(job["attempt"] >= attempt and job["progress"]["fraction"] >= fraction)

    wait_until(far_enough)


def the_process(service: Service, *words: str) -> psutil.Process:
    """The only process with the words in its command line; a child has its parent's until it is started."""
    while len(found := service.processes(*words)) != 1:
        assert found, f"no process of {words}"
        time.sleep(0.01)
    return found[0]


def kill(service: Service, *words: str) -> None:
    the_process(service, *words).send_signal(signal.SIGKILL)


def celery_of(service: Service) -> Celery:
    return make_celery(the_process(service, "worker").environ()["REID_BROKER_URL"])


def test_a_training_killed_again_and_again_ends_as_an_undisturbed_one(service: Service, people: Path) -> None:
    service.register("people", people)
    undisturbed = start_training(service, "undisturbed")
    service.wait_for(undisturbed, "succeeded")

    killed = start_training(service, "killed")
    wait_until_training(service, killed, 0.1)
    kill(service, "worker.run", killed)
    wait_until_training(service, killed, 0.3, attempt=2)
    kill(service, "worker")
    # Without its supervisor the child ends by itself; `reid up` starts another worker, which goes on.
    wait_until_training(service, killed, 0.5, attempt=3)
    service.kill_everything()
    service.start()
    job = service.wait_for(killed, "succeeded")

    assert job["attempt"] == 4
    assert service.get(f"/jobs/{killed}/metrics") == service.get(f"/jobs/{undisturbed}/metrics")
    first, second = (
        load_file(service.home / "models" / service.job(job_id)["result"]["model"] / "weights.safetensors")
        for job_id in (undisturbed, killed)
    )
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)
    assert not list((service.home / "jobs" / killed).rglob("checkpoint*"))
    service.stop()
    assert not service.processes()


def test_two_deliveries_of_a_job_start_one_training(service: Service, people: Path) -> None:
    service.register("people", people)
    job_id = start_training(service, "once")
    celery = celery_of(service)
    for _ in range(3):
        send_job(celery, job_id, TRAINING_QUEUE)
    job = service.wait_for(job_id, "succeeded")
    assert job["attempt"] == 1
    other = start_training(service, "after", schedule={"epochs": 1})
    service.wait_for(other, "succeeded")
    assert service.job(job_id)["attempt"] == 1
    started = [
        e
        for e in service.http.get(f"/jobs/{job_id}/events", headers={"Accept": "application/json"}).json()["items"]
        if e["event"] == "started"
    ]
    assert len(started) == 1


def test_cancelled_means_that_no_process_is_left_and_resume_goes_on(service: Service, people: Path) -> None:
    service.register("people", people)
    job_id = start_training(service, "stopped")
    wait_until_training(service, job_id)
    service.post(f"/jobs/{job_id}/cancel")
    service.wait_for(job_id, "cancelled")
    assert not service.processes("worker.run")
    step = max(step for step, _ in service.get(f"/jobs/{job_id}/metrics")["loss"])
    service.post(f"/jobs/{job_id}/resume")
    job = service.wait_for(job_id, "succeeded")
    assert job["attempt"] == 2
    events = service.http.get(f"/jobs/{job_id}/events", headers={"Accept": "application/json"}).json()["items"]
    resumed = [event["data"]["resumed_at_step"] for event in events if event["event"] == "checkpoint"]
    assert len(resumed) == 1
    assert resumed[0] >= step


def test_a_training_that_always_crashes_fails_with_its_log_named(tmp_path: Path, people: Path) -> None:
    service = Service(tmp_path / "home", people.parent, REID_MAX_ATTEMPTS="2")
    service.start()
    service.register("people", people)
    job_id = start_training(service, "crashing", schedule={"epochs": 500})
    for attempt in (1, 2):
        wait_until_training(service, job_id, 0.0, attempt=attempt)
        wait_until(lambda: bool(service.processes("worker.run", job_id)))
        kill(service, "worker.run", job_id)
    job = service.wait_for(job_id, "failed")
    assert job["error"]["type"] == "/problems/job-crashed"
    assert "SIGKILL" in job["error"]["detail"]
    assert "logs" in job["error"]["hint"]
    service.stop()
