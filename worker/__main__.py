"""`python -m worker --queues training=1,short=2`: a Celery worker whose tasks each supervise one job process."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import threading
import warnings
from collections.abc import Mapping
from functools import partial

from celery import Celery, signals
from celery.exceptions import SecurityWarning

from service.db.schema import await_schema
from service.db.session import Database, open_database
from service.home import keep_private
from service.jobs.dispatch import dispatch
from service.logs import configure_logging
from service.queue.tasks import QUEUES, RUN_JOB, make_celery
from service.settings import Settings, get_settings
from worker.supervisor import Supervisor
from worker.watch import watch
from worker.webhooks import deliver_webhooks


def main() -> None:
    """Works until SIGTERM or SIGINT; running jobs are then interrupted and go on when a worker starts again."""
    arguments = _parse_arguments()
    settings = get_settings()
    keep_private()
    configure_logging(settings.log_level)
    if settings.broker_url is None:
        raise SystemExit("A worker needs REID_BROKER_URL, e.g. redis://localhost:6379/0; `reid up` brings its own.")
    database, celery = open_database(settings.database_url), make_celery(settings.broker_url)
    name = f"{'-'.join(arguments.queues)}@{socket.gethostname()}:{os.getpid()}"
    _serve(settings, database, celery, name, arguments.queues)


def _serve(settings: Settings, database: Database, celery: Celery, name: str, slots: Mapping[str, int]) -> None:
    shutdown, send = threading.Event(), partial(dispatch, celery, database)
    supervisor = Supervisor(settings, database, name, slots, send, shutdown)
    await_schema(database)
    celery.task(name=RUN_JOB)(supervisor.run_job)
    beat = threading.Thread(target=watch, args=(settings, database, name, list(slots), send, shutdown), daemon=True)

    signals.setup_logging.connect(lambda **_: None, weak=False)  # Celery's own would leave out the lines of our jobs
    logging.getLogger("celery").setLevel(logging.WARNING)
    post = threading.Thread(target=deliver_webhooks, args=(settings, database, shutdown), daemon=True)
    signals.worker_ready.connect(lambda **_: beat.start(), weak=False)
    signals.worker_ready.connect(lambda **_: post.start(), weak=False)
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
                str(sum(slots.values()) + 1),  # one more, which reads the messages that come while all slots are taken
                "--queues",
                ",".join(slots),
            ),
            *("--hostname", name.replace("@", "-")),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
    )


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="worker", description=__doc__)
    parser.add_argument(
        "--queues",
        type=_read_slots,
        default=",".join(QUEUES),
        help=f"of {', '.join(QUEUES)}, separated by commas; with =N, N jobs of that queue at a time instead of one",
    )
    return parser.parse_args()


def _read_slots(text: str) -> dict[str, int]:
    """`training=1,short` as {"training": 1, "short": 1}."""
    slots = {}
    for part in text.split(","):
        queue, _, count = part.partition("=")
        if queue not in QUEUES or not (count or "1").isdecimal() or int(count or 1) < 1:
            raise argparse.ArgumentTypeError(f"{part!r} is not one of {', '.join(QUEUES)}, perhaps with =N behind it")
        slots[queue] = int(count or 1)
    return slots


if __name__ == "__main__":
    main()
