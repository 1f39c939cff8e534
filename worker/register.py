"""Registration jobs: a data set is read, examined and recorded."""

from __future__ import annotations

from service.datasets.registration import register
from worker.work import Outcome, Work


def run(work: Work) -> Outcome:
    """Reads the data set that POST /datasets named."""
    result = register(
        work.database,
        work.settings,
        work.job.spec["dataset"],
        on_progress=work.progress("examine"),
        should_stop=work.should_stop,
    )
    return Outcome(result)
