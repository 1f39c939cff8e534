"""Deliveries to the webhooks of jobs, in a thread of their own beside the worker's jobs and its watch."""

from __future__ import annotations

import asyncio
import logging
import threading

from sqlalchemy.exc import SQLAlchemyError

from service.db.session import Database
from service.jobs.webhooks import Delivery, claim_due, record
from service.settings import Settings

logger = logging.getLogger(__name__)

_AT_ONCE = 32
"""Receivers that are sent something at a time, each of them one delivery."""

_LOOK_SECONDS = 1.0


def deliver_webhooks(settings: Settings, database: Database, shutdown: threading.Event) -> None:
    """Delivers what is due, until shutdown; a receiver that is slow or dead holds up its own deliveries alone."""
    asyncio.run(_deliver(settings, database, shutdown))


async def _deliver(settings: Settings, database: Database, shutdown: threading.Event) -> None:
    underway: dict[str, asyncio.Task[None]] = {}
    while not shutdown.is_set():
        underway = {receiver: task for receiver, task in underway.items() if not task.done()}
        free = _AT_ONCE - len(underway)
        try:
            due = await asyncio.to_thread(claim_due, database, settings, busy=list(underway), most=free)
        except SQLAlchemyError as error:
            logger.warning("webhooks cannot be looked for, trying again: %s", error)
            due = []
        for delivery in due:
            underway[delivery.receiver] = asyncio.create_task(_attempt(settings, database, delivery))
        await asyncio.sleep(_LOOK_SECONDS)


async def _attempt(settings: Settings, database: Database, delivery: Delivery) -> None:
    from worker.sending import send  # brings httpx, which most workers never need

    try:
        attempt = await send(settings, delivery)
        if attempt.fault is not None:
            logger.info("webhook event %s was not delivered: %s", delivery.id, attempt.fault)
        await asyncio.to_thread(record, database, settings, delivery, attempt)
    except Exception as error:  # noqa: BLE001  it is due again when its claim lapses; the others go on
        logger.warning("webhook event %s failed, trying again: %s", delivery.id, error)
