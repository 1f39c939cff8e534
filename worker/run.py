"""`python -m worker.run <job id> <attempt>`: the process that carries out one attempt of one job."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable

from reid_core.errors import CoreError, Stopped
from service.db.session import open_database
from service.db.tables import Job
from service.errors import Problem, problem_from_core
from service.jobs.kinds import KINDS
from service.jobs.lifecycle import LeaseLost, fail, find_job, succeed
from service.settings import get_settings
from worker.curves import follow_curves
from worker.reporter import Reporter
from worker.work import Outcome, Work

logger = logging.getLogger(__name__)


def main() -> None:
    """Runs the attempt and writes its end; leaves no end behind when it was told to stop."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    job_id, attempt = sys.argv[1], int(sys.argv[2])
    stop = threading.Event()
    # Only a flag: an exception out of a handler can be swallowed by whatever runs at that moment.
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_supervisor, daemon=True).start()

    settings = get_settings()
    database = open_database(settings.database_url)
    with database.read() as session:
        job = find_job(session, job_id)
    reporter = Reporter(database, job_id, attempt, settings.lease_seconds, follow_curves(settings, job))
    reporter.start()
    work = Work(settings, database, job, attempt, reporter, lambda: stop.is_set() or reporter.cancelling)
    try:
        outcome = _carry_out(work)
        reporter.close("FAILED" if isinstance(outcome, Problem) else "FINISHED" if outcome else "KILLED")
        if isinstance(outcome, Problem):
            fail(database, job_id, attempt, outcome)
        elif outcome is not None:
            with database.write() as session:
                session.add_all(outcome.rows)
                succeed(session, job_id, attempt, outcome.result)
            if job.kind in ("train", "adapt"):
                _delete_checkpoints(work)
            if outcome.clean_up is not None:
                outcome.clean_up()
    except LeaseLost:
        logger.warning("attempt %s of %s is over; its result is dropped", attempt, job_id)


def _carry_out(work: Work) -> Outcome | Problem | None:
    try:
        return _runner(work)(work)
    except Stopped:
        logger.info("stopped as asked")
        return None
    except Problem as problem:
        logger.exception("the job failed")
        return problem
    except CoreError as error:
        logger.exception("the job failed")
        return problem_from_core(error)
    except LeaseLost:
        raise
    except Exception as error:
        logger.exception("the job failed unexpectedly")
        return _unexpected(error, work.job)


def _runner(work: Work) -> Callable[[Work], Outcome]:
    kind = KINDS[work.job.kind]
    if kind.uses_networks:
        import torch

        torch.set_num_threads(work.settings.threads or os.cpu_count() or 1)
    run: Callable[[Work], Outcome] = importlib.import_module(kind.worker).run
    return run


def _delete_checkpoints(work: Work) -> None:
    from reid_core.training.loop import CHECKPOINT_NAME

    for checkpoint in work.folder.glob(f"*/{CHECKPOINT_NAME}"):
        checkpoint.unlink()


def _unexpected(error: Exception, job: Job) -> Problem:
    return Problem(
        "internal",
        f"The job failed unexpectedly: {type(error).__name__}: {error}.",
        hint=f"GET /jobs/{job.id}/logs has the details.",
    )


def _end_with_supervisor() -> None:
    """Ends this process group when the supervisor is gone, which closes our standard input."""
    while os.read(sys.stdin.fileno(), 1):  # not through its buffer, whose lock a process that ends cannot take
        pass
    logger.warning("the supervisor is gone; this attempt ends")
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
