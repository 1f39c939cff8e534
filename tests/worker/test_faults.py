"""Uploads, erasures, full disks and `kill -9` at random moments: afterwards a plain dictionary and the service agree.

FAULTS_SEED chooses another run, FAULTS_ROUNDS a shorter or longer one; both are printed, so that a failure can be
repeated as far as the machine's own timing allows.
"""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch

from reid_core.sample_data import write_sample_data
from service.db.schema import upgrade
from service.db.session import open_database
from service.settings import Settings
from tests.service.galleries.conftest import MATCHER_ID
from tests.service.galleries.stock import MATCHER_SIZE, add_model_row, save_tiny_matcher
from tests.waiting import wait_until
from tests.worker.ledger import HALL, Ledger, Operation
from tests.worker.service import Service
from tests.worker.test_durability import TRAINING

DISK_BYTES = 512 * 1024**2
ACCEPTABLE = {200, 201, 204}
REFUSED = {503, 507}

Kill = tuple[str, ...]
API: Kill = ("service.cli", "api")
WORKER: Kill = ("worker",)
BROKER: Kill = ("broker",)
CHILD: Kill = ("worker.run",)
EVERYTHING: Kill = ()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, so that it can be full."""
    home = tmp_path / "home"
    home.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(home)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a full disk needs a small one: this may not mount a tmpfs (run as root)")
    yield home
    subprocess.run(["umount", "--lazy", str(home)], check=True)


@pytest.fixture
def service(tmp_path: Path, home: Path) -> Iterator[Service]:
    """With a tiny network that matches locally, a data set to train on and the empty gallery `hall`."""
    settings = Settings(home=home)
    upgrade(settings.database_url)
    save_tiny_matcher(settings.models_dir / MATCHER_ID)
    database = open_database(settings.database_url)
    add_model_row(database, MATCHER_ID, "matcher", method="qaconv-pk", size=MATCHER_SIZE)
    database.close()
    people = tmp_path / "data" / "people"
    write_sample_data(people, identities=10, cameras=2, seed=1)
    # Every kill counts as a crash of the job, and a checkpoint is due after every step.
    service = Service(home, people.parent, REID_MAX_ATTEMPTS="1000", REID_CHECKPOINT_SECONDS="0")
    service.start()
    service.register("people", people)
    service.post("/galleries", {"name": HALL, "model": "matcher", "index": "hnsw"}, expect=201)
    yield service
    if service.processes():
        service.kill_everything()


class Rounds:
    """Runs rounds, each with operations on the gallery and at most one fault at a random moment of them."""

    def __init__(self, service: Service, seed: int) -> None:
        self._service = service
        self._chance = random.Random(seed)
        self._ledger = Ledger(self._chance)
        self.done: Counter[str] = Counter()

    def run(self, number: int) -> None:
        """One round; every fourth kills a job."""
        if number % 4 == 0:
            kind: Callable[[], str] = self._chance.choice([self._while_indexing, self._while_training])
        else:
            kind = self._chance.choice([self._undisturbed, self._full_disk, self._killed, self._killed, self._killed])
        began, self._hit = time.monotonic(), False
        name = kind()
        while number % 4 == 0 and not self._hit:  # the job was over before it could be killed
            name = kind()
        self._ledger.check(self._service)
        self.done[name] += 1
        images, seconds = len(self._ledger.images), time.monotonic() - began
        print(f"round {number}: {name}, {images} images, {seconds:.0f} s", flush=True)

    def finish(self) -> None:
        """The last look at the whole disk."""
        self._ledger.check_all_bytes(self._service)

    def _undisturbed(self) -> str:
        lost = self._operate()
        assert lost is None
        self._ledger.settle(self._service, lost)
        return "undisturbed"

    def _full_disk(self) -> str:
        ballast = self._service.home / "ballast"
        left = self._chance.choice([0, 4096, 65_536, 262_144])
        _fill_up(ballast, left)
        try:
            lost = self._operate(may_be_refused=True)
        finally:
            ballast.unlink()
        assert lost is None
        self._ledger.settle(self._service, lost)
        return "full disk"

    def _killed(self) -> str:
        words = self._chance.choice([API, API, WORKER, BROKER, EVERYTHING])
        lost = self._operate(lambda: self._kill(words))
        self._service.recover(*(words if words != BROKER else API))
        self._ledger.settle(self._service, lost)
        return f"killed {' '.join(words) or 'everything'}"

    def _while_indexing(self) -> str:
        body = {"kind": "index", "gallery": HALL, "embed": self._chance.random() < 0.7}
        job_id = self._service.post("/jobs", body)["id"]
        wait_until(lambda: bool(self._service.processes(*CHILD)))
        words = self._chance.choice([CHILD, CHILD, WORKER, EVERYTHING])
        lost = self._operate(lambda: self._kill(words), within_seconds=6)
        self._service.recover(*(words if words != CHILD else API))
        self._ledger.settle(self._service, lost)
        self._service.wait_for(job_id, "succeeded")
        return f"killed {' '.join(words) or 'everything'} while indexing"

    def _while_training(self) -> str:
        body = {"kind": "train", "method": "bnneck-camera", "dataset": "people", "device": "cpu", "seed": 7}
        settings = {**TRAINING, "schedule": {"epochs": 3, "base_lr": 1e-3}}
        job_id = str(self._service.post("/jobs", {**body, "init_from": None, "settings": settings})["id"])
        wait_until(lambda: bool(self._service.processes(*CHILD)))
        words = self._chance.choice([CHILD, CHILD, WORKER, EVERYTHING])
        reached: list[int | None] = []

        def kill() -> None:
            self._kill(words)
            reached.append(self._checkpointed_step(job_id))

        lost = self._operate(kill, within_seconds=15)
        self._service.recover(*(words if words != CHILD else API))
        self._ledger.settle(self._service, lost)
        job = self._service.wait_for(job_id, "succeeded")
        if job["attempt"] > 1 and reached[0] is not None:
            assert reached[0] in self._resumed_steps(job_id), "more than the last checkpoint was lost"
        model = job["result"]["model"]
        assert self._service.http.delete(f"/models/{model}").status_code == 204
        return f"killed {' '.join(words) or 'everything'} while training"

    def _operate(
        self, kill: Callable[[], None] | None = None, *, may_be_refused: bool = False, within_seconds: float = 1.0
    ) -> Operation | None:
        """Some operations one after the other, `kill` at a random moment; the one whose answer was lost."""
        lost: list[Operation] = []
        count, moment = self._chance.randint(1, 4), self._chance.uniform(0, within_seconds)
        worker = threading.Thread(target=self._send_all, args=(count, may_be_refused, lost, errors := []))
        worker.start()
        if kill is not None:
            time.sleep(moment)
            kill()
        worker.join()
        assert not errors, errors
        return lost[0] if lost else None

    def _send_all(self, count: int, may_be_refused: bool, lost: list[Operation], errors: list[str]) -> None:
        with httpx.Client(base_url=self._service.address, headers=self._service.http.headers, timeout=60) as client:
            for _ in range(count):
                operation = self._ledger.choose()
                try:
                    status = operation.send(client).status_code
                except httpx.TransportError:
                    lost.append(operation)
                    return
                if status in ACCEPTABLE:
                    self._ledger.images = operation.apply(self._ledger.images)
                elif not (may_be_refused and status in REFUSED):
                    errors.append(f"{operation.name}: {status}")
                    return

    def _kill(self, words: Kill) -> None:
        processes = [self._service.broker()] if words == BROKER else self._service.processes(*words)
        pids = {process.pid for process in processes}
        self._hit = bool(pids)
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        wait_until(lambda: all(_is_dead(pid) for pid in pids))

    def _checkpointed_step(self, job_id: str) -> int | None:
        """The step of the checkpoint that lies there now, while nobody writes one."""
        path = self._service.home / "jobs" / job_id / "stage-1" / "checkpoint.pt"
        if not path.exists():
            return None
        return int(torch.load(path, weights_only=True)["position"]["step"])

    def _resumed_steps(self, job_id: str) -> list[int]:
        answer = self._service.http.get(f"/jobs/{job_id}/events", headers={"Accept": "application/json"})
        events: list[dict[str, Any]] = answer.json()["items"]
        return [event["data"]["resumed_at_step"] for event in events if event["event"] == "checkpoint"]


def _is_dead(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _fill_up(ballast: Path, left: int) -> None:
    """Makes `ballast` take all of its disk but about `left` bytes."""
    with ballast.open("wb") as file:
        for step in (1024**2, 4096):
            with suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), ballast.stat().st_size, step)
        file.truncate(max(0, ballast.stat().st_size - left))


def run(service: Service, rounds: int, seed: int) -> Counter[str]:
    print(f"\nFAULTS_SEED={seed} FAULTS_ROUNDS={rounds}", flush=True)
    all_rounds = Rounds(service, seed)
    for number in range(1, rounds + 1):
        all_rounds.run(number)
    all_rounds.finish()
    print("\n".join(f"{count:4} {name}" for name, count in all_rounds.done.most_common()), flush=True)
    return all_rounds.done


@pytest.mark.faults
def test_whatever_happens_the_service_and_a_dictionary_agree(service: Service) -> None:
    seed = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(10**6))
    rounds = int(os.environ.get("FAULTS_ROUNDS") or 200)
    done = run(service, rounds, seed)
    assert sum(count for name, count in done.items() if "while" in name) >= rounds // 4
