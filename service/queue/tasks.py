"""Sending work: the Celery application that the API and the workers share, and the one task's name."""

from __future__ import annotations

from typing import Any

from celery import Celery

RUN_JOB = "reid.run_job"

TRAINING_QUEUE = "training"
SHORT_QUEUE = "short"
QUEUES = (TRAINING_QUEUE, SHORT_QUEUE)
"""Trainings take hours; registrations, indexing and evaluations must not wait behind them."""


def make_celery(broker_url: str) -> Celery:
    """A Celery application on the broker; messages are JSON and hold a job id, results are not kept."""
    app = Celery("reid", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_default_queue=SHORT_QUEUE,
        # Early acknowledgement is safe: a lost message is sent again, and a second delivery is refused by the claim.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "visibility_timeout": 3600,
            "socket_timeout": 5,
            "socket_connect_timeout": 5,
            "retry_on_timeout": True,
        },
    )
    return app


def send_job(app: Celery, job_id: str, queue: str) -> None:
    """Puts the job's id on the queue; raises kombu's OperationalError when the broker cannot be reached."""
    app.send_task(RUN_JOB, args=[job_id], queue=queue, retry=False)


def ping(app: Celery) -> None:
    """Raises when the broker does not answer within seconds."""
    connection: Any
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, timeout=3)
