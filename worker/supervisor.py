"""The Celery task: a thin supervisor that claims a job, runs it as a process group of its own, and settles its end.

The work is not done in the worker itself: CUDA starts clean in a new interpreter, loader processes may be started,
cancelling is real, memory comes back, and a crash takes no worker with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time

from service.db.session import Database
from service.jobs.lifecycle import LeaseLost, claim, find_job, held_state, interrupt, renew, settle_cancelled
from service.jobs.sweep import Send
from service.settings import Settings

logger = logging.getLogger(__name__)

LOG_NAME = "log.txt"
_POLL_SECONDS = 0.25
_START_SECONDS = 60.0
_GROUP_GONE_SECONDS = 10.0

CHILD_ENVIRONMENT = {
    # torch and faiss bring an OpenMP runtime each; idle threads of one must not spin against the other.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Large blocks stay with the process: returning every activation to the system costs a fifth of the speed.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(32 * 1024**3),
    "MALLOC_TOP_PAD_": str(256 * 1024**2),
}


class Supervisor:
    """Runs jobs by id; any number of threads may call it."""

    def __init__(
        self, settings: Settings, database: Database, name: str, send: Send, shutdown: threading.Event
    ) -> None:
        self._settings = settings
        self._database = database
        self._name = name
        self._send = send
        self._shutdown = shutdown

    def run_job(self, job_id: str) -> None:
        """Carries the job to an end of this attempt; does nothing when someone else has it or it is over."""
        if self._shutdown.is_set():
            return
        attempt = claim(self._database, job_id, self._name, self._settings.lease_seconds)
        if attempt is None:
            return
        child = self._start(job_id, attempt)
        try:
            self._wait(child, job_id, attempt)
        finally:
            _kill_group(child, self._settings.cancel_grace_seconds if child.poll() is None else 0)
        self._settle(job_id, attempt, child.returncode)

    def _start(self, job_id: str, attempt: int) -> subprocess.Popen[bytes]:
        folder = self._settings.jobs_dir / job_id
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOG_NAME).open("ab") as log:
            # The child reads its standard input until this process is gone, and then ends itself.
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "worker.run", job_id, str(attempt)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | CHILD_ENVIRONMENT,
                start_new_session=True,
            )

    def _wait(self, child: subprocess.Popen[bytes], job_id: str, attempt: int) -> None:
        started = time.monotonic()
        while child.poll() is None:
            if self._shutdown.is_set() or held_state(self._database, job_id, attempt) != "running":
                return
            # A new interpreter needs seconds to import what it needs; until then it cannot renew the lease itself.
            if time.monotonic() - started < _START_SECONDS:
                self._renew(job_id, attempt)
            try:
                child.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue

    def _renew(self, job_id: str, attempt: int) -> None:
        with self._database.write() as session, contextlib.suppress(LeaseLost):
            renew(session, job_id, attempt, self._settings.lease_seconds)

    def _settle(self, job_id: str, attempt: int, returncode: int) -> None:
        """Writes the end of the attempt where its process has not: cancelled, interrupted, or failed after crashes."""
        try:
            state = held_state(self._database, job_id, attempt)
            if state == "cancelling":
                settle_cancelled(self._database, job_id, attempt)
            elif state == "running" and self._shutdown.is_set():
                interrupt(self._database, job_id, attempt, "the worker was shut down", max_crashes=None)
            elif state == "running":
                reason = f"its process ended with {_describe(returncode)}"
                crashes = self._settings.max_attempts
                if interrupt(self._database, job_id, attempt, reason, max_crashes=crashes) == "interrupted":
                    self._send_again(job_id)
        except LeaseLost:
            logger.info("job %s went on elsewhere", job_id)

    def _send_again(self, job_id: str) -> None:
        with self._database.read() as session:
            kind = find_job(session, job_id).kind
        self._send(job_id, kind)


def _kill_group(child: subprocess.Popen[bytes], grace_seconds: float) -> None:
    """Ends every process of the child's group: SIGTERM once to the child, SIGKILL to all after the grace time."""
    if grace_seconds > 0:
        child.terminate()
        try:
            child.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            logger.info("process %s is killed after %s seconds", child.pid, grace_seconds)
    deadline = time.monotonic() + _GROUP_GONE_SECONDS
    while time.monotonic() < deadline:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            break
        child.poll()
        time.sleep(0.02)
    child.wait()
    if child.stdin:
        child.stdin.close()


def _describe(returncode: int) -> str:
    if returncode >= 0:
        return f"exit status {returncode}"
    return f"signal {signal.Signals(-returncode).name}"
