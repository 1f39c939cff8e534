"""`python -m worker --queues training,short`: a Celery worker whose tasks each supervise one job process."""

from __future__ import annotations

import argparse
import os
import socket
import threading
import warnings
from functools import partial

from celery import Celery, signals
from celery.exceptions import SecurityWarning

from service.db.session import Database, open_database
from service.jobs.dispatch import dispatch
from service.queue.tasks import QUEUES, RUN_JOB, make_celery
from service.settings import Settings, get_settings
from worker.supervisor import Supervisor
from worker.watch import watch


def main() -> None:
    """Works until SIGTERM or SIGINT; running jobs are then interrupted and go on when a worker starts again."""
    arguments = _parse_arguments()
    settings = get_settings()
    if settings.broker_url is None:
        raise SystemExit("A worker needs REID_BROKER_URL, e.g. redis://localhost:6379/0; `reid up` brings its own.")
    database, celery = open_database(settings.database_url), make_celery(settings.broker_url)
    name = f"{arguments.queues}@{socket.gethostname()}:{os.getpid()}"
    _serve(settings, database, celery, name, arguments.queues.split(","), arguments.concurrency)


def _serve(
    settings: Settings, database: Database, celery: Celery, name: str, queues: list[str], concurrency: int
) -> None:
    shutdown, send = threading.Event(), partial(dispatch, celery, database)
    supervisor = Supervisor(settings, database, name, send, shutdown)
    celery.task(name=RUN_JOB)(supervisor.run_job)
    beat = threading.Thread(target=watch, args=(settings, database, name, queues, send, shutdown), daemon=True)

    signals.worker_ready.connect(lambda **_: beat.start(), weak=False)
    signals.worker_shutting_down.connect(lambda **_: shutdown.set(), weak=False)

    # Messages are JSON and hold an id: whoever can write them cannot make this process run code of theirs.
    warnings.filterwarnings("ignore", message=".*superuser privileges", category=SecurityWarning)
    celery.worker_main(
        [
            *(
                "--quiet",
                "worker",
                "--pool",
                "threads",
                "--concurrency",
                str(concurrency),
                "--queues",
                ",".join(queues),
            ),
            *("--hostname", name.replace("@", "-"), "--loglevel", "warning"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
    )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="worker", description=__doc__)
    parser.add_argument("--queues", default=",".join(QUEUES), help=f"of {', '.join(QUEUES)}, separated by commas")
    parser.add_argument("--concurrency", type=int, default=1, help="jobs at a time")
    return parser.parse_args()


if __name__ == "__main__":
    main()
