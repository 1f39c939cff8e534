"""The input and the outcome of every kind of job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reid_core.errors import Stopped
from reid_core.pace import Pace
from service.db.session import Database
from service.db.tables import Base, Job
from service.jobs.recording import progress_as_json
from service.settings import Settings
from worker.reporter import Reporter


@dataclass(frozen=True, slots=True)
class Work:
    """One attempt of one job. `should_stop` turns True when the process is to end soon."""

    settings: Settings
    database: Database
    job: Job
    attempt: int
    reporter: Reporter
    should_stop: Callable[[], bool]

    @property
    def folder(self) -> Path:
        """The folder of this job's checkpoints and log."""
        return self.settings.jobs_dir / self.job.id

    def progress(self, phase: str) -> Callable[[int, int], None]:
        """A callback (images done, in all) that shows the phase's progress and raises `Stopped` when told to."""
        pace, done_before = Pace(), 0

        def report(done: int, total: int) -> None:
            nonlocal done_before
            fraction = done / max(total, 1)
            estimate = pace.mark(done - done_before, fraction)
            done_before = done
            self.reporter.progress(progress_as_json(fraction, phase, done=done, total=total, **asdict(estimate)))
            if self.should_stop():
                raise Stopped

        return report


@dataclass(frozen=True, slots=True)
class Outcome:
    """A job's result and the rows that come into being in the same moment in which it succeeds.

    `clean_up` is called after that: it removes what another attempt would have gone on from.
    """

    result: dict[str, Any]
    rows: Sequence[Base] = ()
    clean_up: Callable[[], None] | None = None
