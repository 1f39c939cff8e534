"""Reports of a job process: progress, curves and events, written together with its lease."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from service.db.session import Database
from service.jobs.lifecycle import LeaseLost, add_event, renew
from service.jobs.recording import add_points, replace_curves
from worker.curves import End, Follower

logger = logging.getLogger(__name__)

_FLUSH_SECONDS = 1.0
_EVENT_SECONDS = 2.0
_EVENTS_PER_DOUBLING = 100


class Reporter:
    """Collects from the working thread and writes from its own, once a second, under the attempt's fence.

    When the lease is lost the whole process group ends: another attempt may be running already.
    """

    def __init__(
        self,
        database: Database,
        job_id: str,
        attempt: int,
        lease_seconds: float,
        followers: Sequence[Follower] = (),
    ) -> None:
        self._database = database
        self._job_id = job_id
        self._attempt = attempt
        self._lease_seconds = lease_seconds
        self._followers = followers
        self._lock = threading.Lock()
        self._progress: dict[str, Any] | None = None
        self._latest: dict[str, float] = {}
        self._points: list[tuple[str, int, float]] = []
        self._started = self._last_event = time.monotonic()
        self._closed = threading.Event()
        self._cancelling = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def start(self) -> None:
        """Begins to renew the lease."""
        self._thread.start()

    def close(self, end: End = "FINISHED") -> None:
        """Writes what is left and lets the lease be; followers of the curves are told how the attempt ended."""
        self._closed.set()
        self._thread.join()
        self._flush()
        for follower in self._followers:
            follower.close(end)

    @property
    def cancelling(self) -> bool:
        """True once someone asked for this job's end."""
        return self._cancelling.is_set()

    def progress(self, progress: dict[str, Any], values: Mapping[str, float] | None = None, step: int = 0) -> None:
        """The progress to show, and the values this step adds to the curves."""
        with self._lock:
            self._progress = progress
            if values:
                self._latest |= values
                self._points += [(name, step, value) for name, value in values.items()]

    def event(self, kind: str, data: dict[str, Any]) -> None:
        """Records an event now."""
        with self._database.write() as session:
            renew(session, self._job_id, self._attempt, self._lease_seconds)
            add_event(session, self._job_id, kind, data)

    def restart_curves(self, curves: Mapping[str, Sequence[tuple[int, float]]]) -> None:
        """Makes the curves those of the checkpoint that the job goes on from."""
        with self._lock:
            self._points.clear()
        with self._database.write() as session:
            renew(session, self._job_id, self._attempt, self._lease_seconds)
            replace_curves(session, self._job_id, curves)
        for follower in self._followers:
            follower.restart(curves)

    def _beat(self) -> None:
        while not self._closed.wait(min(_FLUSH_SECONDS, self._lease_seconds / 4)):
            try:
                self._flush()
            except LeaseLost:
                logger.warning("the lease is lost; this attempt ends")
                os.killpg(0, signal.SIGKILL)
            except SQLAlchemyError as error:
                logger.warning("progress could not be written, trying again: %s", error)

    def _flush(self) -> None:
        with self._lock:
            points, self._points = self._points, []
            values: dict[str, Any] = {}
            if self._progress is not None:
                values = {"progress": self._progress, "metrics": dict(self._latest)}
        try:
            with self._database.write() as session:
                state = renew(session, self._job_id, self._attempt, self._lease_seconds, **values)
                add_points(session, self._job_id, points)
                if values and self._event_due():
                    add_event(session, self._job_id, "progress", values)
        except SQLAlchemyError:
            with self._lock:
                self._points = points + self._points
            raise
        for follower in self._followers if points else ():
            follower.add(points)
        if state == "cancelling":
            self._cancelling.set()

    def _event_due(self) -> bool:
        """Progress events thin out as a job gets older, so that a week's training has hundreds, not a million."""
        now = time.monotonic()
        pause = max(_EVENT_SECONDS, (now - self._started) / _EVENTS_PER_DOUBLING)
        if now - self._last_event < pause:
            return False
        self._last_event = now
        return True
