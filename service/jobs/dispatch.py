"""Putting a committed job on its queue."""

from __future__ import annotations

import logging

from celery import Celery
from kombu.exceptions import OperationalError as BrokerError

from service.db.session import Database
from service.jobs.kinds import KINDS
from service.jobs.sweep import mark_sent
from service.queue.tasks import send_job

logger = logging.getLogger(__name__)


def dispatch(celery: Celery, database: Database, job_id: str, kind: str) -> None:
    """Sends the job's id. A broker that is away loses nothing: the row waits, and a worker's sweep sends it later."""
    try:
        send_job(celery, job_id, KINDS[kind].queue)
    except (BrokerError, OSError) as error:
        logger.warning("job %s is sent later, the broker does not answer: %s", job_id, error)
        return
    mark_sent(database, job_id)
