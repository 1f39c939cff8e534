"""The Celery task: a thin supervisor that claims a job, runs it as a process group of its own, and settles its end.

The work is not done in the worker itself: CUDA starts clean in a new interpreter, loader processes may be started,
cancelling is real, memory comes back, and a crash takes no worker with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from service.clock import rfc3339, utc_now
from service.db.session import Database
from service.db.tables import Job
from service.jobs.kinds import KINDS
from service.jobs.lifecycle import (
    LeaseLost,
    claim,
    find_job,
    held_state,
    interrupt,
    oldest_waiting,
    renew,
    settle_cancelled,
)
from service.jobs.sweep import Send
from service.settings import Settings

log = structlog.get_logger(__name__)

LOG_NAME = "log.txt"
_POLL_SECONDS = 0.25
_RENEWALS_PER_LEASE = 4
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
    """Runs jobs, of each queue as many at a time as it has `slots`; any number of threads may call it."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        name: str,
        slots: Mapping[str, int],
        send: Send,
        shutdown: threading.Event,
    ) -> None:
        self._settings = settings
        self._database = database
        self._name = name
        self._slots = {queue: threading.BoundedSemaphore(count) for queue, count in slots.items()}
        self._send = send
        self._shutdown = shutdown

    def run_job(self, job_id: str) -> None:
        """Carries the job to an end of this attempt, and then those that wait in its queue, the oldest first.

        A message is a hint, the row is the truth: where no slot is free the job waits for one to become so, and where
        someone else has it or it is over nothing happens.
        """
        with self._database.read() as session:
            kind = session.scalar(select(Job.kind).where(Job.id == job_id))
        if kind is None:  # a message that outlived its database
            return
        queue = KINDS[kind].queue
        slots = self._slots[queue]
        next_job: str | None = job_id
        while next_job is not None and slots.acquire(blocking=False):
            try:
                while next_job is not None and not self._shutdown.is_set():
                    self._carry_out(next_job)
                    next_job = oldest_waiting(self._database, queue)
            finally:
                slots.release()
            # Once more: a job may have come while the slot was still taken, and its message was no use.
            next_job = None if self._shutdown.is_set() else oldest_waiting(self._database, queue)

    def _carry_out(self, job_id: str) -> None:
        attempt = claim(self._database, job_id, self._name, self._settings.lease_seconds)
        if attempt is None:
            return
        began = time.monotonic()
        log.info("job started", job=job_id, attempt=attempt)
        child = self._start(job_id, attempt)
        try:
            self._wait(child, job_id, attempt)
        finally:
            _kill_group(child, self._settings.cancel_grace_seconds if child.poll() is None else 0)
        self._settle(job_id, attempt, child.returncode)
        self._log_end(job_id, attempt, time.monotonic() - began)

    def _start(self, job_id: str, attempt: int) -> subprocess.Popen[bytes]:
        folder = self._settings.jobs_dir / job_id
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOG_NAME).open("ab") as file:
            # Before the first import: on a busy machine those take minutes, and an empty log tells nothing.
            file.write(f"{rfc3339(utc_now())} attempt {attempt} is starting\n".encode())
            file.flush()
            # The child reads its standard input until this process is gone, and then ends itself.
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "worker.run", job_id, str(attempt)],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                env=os.environ | CHILD_ENVIRONMENT,
                start_new_session=True,
            )

    def _wait(self, child: subprocess.Popen[bytes], job_id: str, attempt: int) -> None:
        renewed = 0.0
        while child.poll() is None:
            if self._shutdown.is_set():
                return
            try:
                if held_state(self._database, job_id, attempt) != "running":
                    return
                # A living child is not a lost one, however long a busy machine takes to start it or lets it stall.
                if time.monotonic() - renewed > self._settings.lease_seconds / _RENEWALS_PER_LEASE:
                    self._renew(job_id, attempt)
                    renewed = time.monotonic()
            except SQLAlchemyError as error:  # no reason to end a job; its own writes are fenced
                log.warning("the database does not answer", job=job_id, error=str(error).splitlines()[0])
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_POLL_SECONDS)

    def _renew(self, job_id: str, attempt: int) -> None:
        with self._database.write() as session, contextlib.suppress(LeaseLost):
            renew(session, job_id, attempt, self._settings.lease_seconds)

    def _log_end(self, job_id: str, attempt: int, seconds: float) -> None:
        with self._database.read() as session:
            job = find_job(session, job_id)
        fields = {"job": job_id, "kind": job.kind, "attempt": attempt, "seconds": round(seconds, 1)}
        if job.state in ("succeeded", "cancelled"):
            log.info(f"job {job.state}", **fields)
        else:
            log.warning(f"job {job.state}", **fields, error=(job.error or {}).get("detail"))

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
            log.info("job went on elsewhere", job=job_id, attempt=attempt)

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
            log.info("process is killed", pid=child.pid, grace_seconds=grace_seconds)
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
