"""`reid demo` in a service that runs already: it uses that one and leaves nothing in it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reid_core.sample_data import write_sample_data
from tests.waiting import HANG_SECONDS, wait_until
from tests.worker.service import Service

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with enough people for one batch of eight."""
    folder = tmp_path_factory.mktemp("drawn") / "people"
    write_sample_data(folder, identities=16, cameras=2, seed=1)
    return Path(shutil.make_archive(str(folder), "zip", folder))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    home = tmp_path / "home"
    service = Service(home, tmp_path, REID_DATABASE_URL=f"sqlite:///{home / 'reid.db'}")
    service.environment["REID_PORT"] = str(service.port)
    service.start()
    yield service
    service.kill_everything()


def start_demo(environment: dict[str, str], data: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", "service.cli", "demo", "--data", str(data), "--out", f"{data.parent}/out"]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell has jobs in its background ignore Ctrl-C, and their children with them: a test run may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def left_in(service: Service) -> dict[str, Any]:
    """All that the service has, and the files of its home that belong to something in it; hidden ones are its locks."""
    rows = {path: service.get(path)["items"] for path in ("/datasets", "/models", "/galleries")}
    folders = [service.home / name for name in ("models", "galleries", "uploads", "jobs")]
    return rows | {"files": [path for folder in folders for path in folder.rglob("[!.]*") if path.is_file()]}


NOTHING = {"/datasets": [], "/models": [], "/galleries": [], "files": []}


def test_it_uses_the_service_and_removes_what_it_made(service: Service, archive: Path) -> None:
    demo = start_demo(service.environment, archive)
    said, _ = demo.communicate(timeout=HANG_SECONDS)
    assert demo.returncode == 0, said
    assert (archive.parent / "out" / "contact-sheet.png").read_bytes().startswith(b"\x89PNG")
    kinds = [job["kind"] for job in service.get("/jobs")["items"]]
    assert sorted(kinds) == ["evaluate", "evaluate", "index", "register", "train", "train"]
    assert left_in(service) == NOTHING


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_its_training_it_leaves_nothing_behind(
    service: Service, archive: Path, number: signal.Signals
) -> None:
    demo = start_demo(service.environment, archive)
    wait_until(lambda: "running" in [job["state"] for job in service.get("/jobs", kind="train")["items"]])
    demo.send_signal(number)
    said, _ = demo.communicate(timeout=HANG_SECONDS)
    assert demo.returncode != 0, said
    assert left_in(service) == NOTHING


def test_refused_by_the_service_it_says_why_and_leaves_nothing_behind(service: Service, tmp_path: Path) -> None:
    write_sample_data(tmp_path / "two", identities=2, cameras=2, seed=1)
    demo = start_demo(service.environment, tmp_path / "two")
    said, _ = demo.communicate(timeout=HANG_SECONDS)
    assert demo.returncode == 1
    assert "identities" in said
    assert left_in(service) == NOTHING


def test_a_service_that_does_not_answer_is_named(service: Service, archive: Path) -> None:
    service.environment["REID_PORT"] = "1"
    said, _ = start_demo(service.environment, archive).communicate(timeout=HANG_SECONDS)
    told = " ".join(said.split())
    assert "The service at http://127.0.0.1:1 does not answer" in told
    assert "REID_DATABASE_URL" in told
    service.environment["REID_HOME"] = f"{service.home}-other"
    said, _ = start_demo(service.environment, archive).communicate(timeout=HANG_SECONDS)
    assert "admin.key" in "".join(said.split())  # lines break anywhere in a long path
