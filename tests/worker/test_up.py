"""`reid up` as its users meet it: what dies comes back, one service has the home, Ctrl-C ends all of it soon."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from reid_core.sample_data import write_sample_data
from service.cli.own import start_service
from tests.waiting import HANG_SECONDS, wait_until
from tests.worker.service import Service

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    write_sample_data(tmp_path / "people", identities=4, cameras=2, seed=1)
    service = Service(tmp_path / "home", tmp_path)
    service.start()
    yield service
    if service.processes():
        service.kill_everything()


def test_every_part_that_is_killed_comes_back_and_is_told_of_once(service: Service) -> None:
    parts = {"API": service.processes("api")[0], "worker": service.processes("worker")[0], "broker": service.broker()}
    for name, process in parts.items():
        process.kill()
        wait_until(lambda name=name: f"{name} was killed by SIGKILL" in service.output())
        wait_until(service.is_ready)
    told = re.findall(r"^(\w+) was killed by SIGKILL; it is started again in 0.5 s", service.output(), re.MULTILINE)
    assert told == list(parts)
    service.register("people", service.home.parent / "people")
    service.stop()


def test_a_job_that_waits_while_the_broker_and_the_worker_are_dead_is_done(service: Service) -> None:
    service.broker().kill()
    service.processes("worker")[0].kill()
    service.register("people", service.home.parent / "people")


def test_a_jobs_start_and_end_are_lines_of_json(tmp_path: Path) -> None:
    write_sample_data(tmp_path / "people", identities=4, cameras=2, seed=1)
    service = Service(tmp_path / "home", tmp_path, REID_LOG_LEVEL="info")
    service.start()
    service.register("people", tmp_path / "people")
    service.stop()
    lines = [json.loads(line) for line in service.output().splitlines() if line.startswith("{")]
    told = [line for line in lines if line["logger"] == "worker.supervisor"]
    assert [(line["event"], line["attempt"]) for line in told] == [("job started", 1), ("job succeeded", 1)]
    assert (told[0]["job"], told[1]["kind"]) == (told[1]["job"], "register")
    assert not [line for line in lines if line.get("path", "").startswith("/healthz") and line["status"] == 200]
    assert not re.search(r"^INFO:", service.output(), re.MULTILINE)  # uvicorn's lines are JSON too


def test_the_demo_leaves_a_database_of_the_environment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sample_data(tmp_path / "people", identities=4, cameras=2, seed=1)
    theirs = tmp_path / "theirs.db"
    monkeypatch.setenv("REID_DATABASE_URL", f"sqlite:///{theirs}")
    monkeypatch.setenv("REID_BROKER_URL_FILE", str(tmp_path / "missing"))
    with start_service(tmp_path / "home", [tmp_path], None) as client:
        assert client.get("/models")["items"] == []
    assert not theirs.exists()
    assert (tmp_path / "home" / "reid.db").exists()


def test_a_second_service_on_the_same_home_is_refused_and_the_first_is_named(service: Service) -> None:
    second = subprocess.run(
        [sys.executable, "-P", "-m", "service.cli", "up", "--port", "1"],
        env=service.environment,
        capture_output=True,
        text=True,
    )
    assert second.returncode == 1
    assert service.address in second.stderr
    assert "REID_HOME" in second.stderr
    assert service.is_ready()


def test_everything_in_the_home_is_for_its_owner_only(service: Service) -> None:
    service.register("people", service.home.parent / "people")
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in [service.home, *service.home.rglob("*")]}
    assert [path for path, mode in modes.items() if mode & 0o077 and not path.is_socket()] == []


def test_ready_it_says_where_it_is_and_how_to_go_on(service: Service) -> None:
    wait_until(lambda: "Ready:" in service.output())
    told = service.output()
    assert f"{service.address}/docs" in told
    command = told.partition("Go on with: ")[2].strip()
    answer = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert '"bnneck"' in answer.stdout, answer.stderr


def test_ctrl_c_kills_what_does_not_end_by_itself(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    (api,) = service.processes("api")
    api.send_signal(signal.SIGSTOP)  # cannot end in order
    service.stop()
    assert not psutil.pid_exists(api.pid)


def test_a_port_that_is_taken_ends_the_start_with_its_reason(service: Service, tmp_path: Path) -> None:
    other = subprocess.run(
        [sys.executable, "-P", "-m", "service.cli", "up", "--port", str(service.port)],
        env=service.environment | {"REID_HOME": str(tmp_path / "other")},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert other.returncode == 1
    assert "Address already in use" in other.stderr
    assert "--port" in other.stderr


@pytest.mark.parametrize(("lease", "held"), [(2, 8), pytest.param(20, 180, marks=pytest.mark.slow)])
def test_a_start_that_takes_longer_than_a_lease_loses_no_attempt(tmp_path: Path, lease: int, held: int) -> None:
    """A machine so busy that a child needs several leases (seconds, as `held`) to come to its first line."""
    (tmp_path / "slow").mkdir()
    hook = f'import sys, time\nif "worker.run" in sys.orig_argv:\n    time.sleep({held})\n'
    (tmp_path / "slow" / "sitecustomize.py").write_text(hook)
    write_sample_data(tmp_path / "people", identities=4, cameras=2, seed=1)
    path = os.pathsep.join(filter(None, [str(tmp_path / "slow"), os.environ.get("PYTHONPATH")]))
    service = Service(tmp_path / "home", tmp_path, REID_LEASE_SECONDS=str(lease), PYTHONPATH=path)
    service.start()
    try:
        made = service.post("/datasets", {"name": "people", "path": "people"})
        wait_until(lambda: "attempt 1 is starting" in service.http.get(f"/jobs/{made['job']}/logs").text)
        assert service.wait_for(made["job"], "succeeded", "failed", "interrupted")["state"] == "succeeded"
        assert service.job(made["job"])["attempt"] == 1
    finally:
        service.kill_everything()
