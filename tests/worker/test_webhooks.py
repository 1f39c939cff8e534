"""The end of a job reaches its webhook once, signed, whatever the receiver and the service go through meanwhile."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from service.db.schema import upgrade
from service.db.session import Database, open_database
from service.db.tables import WebhookDelivery
from service.errors import Problem
from service.jobs import enqueue
from service.jobs.lifecycle import claim, fail, interrupt, request_cancel, resume, settle_cancelled, succeed
from service.jobs.webhooks import Attempt, Delivery, claim_due, record, retry_seconds
from service.settings import Settings
from tests.receiver import SECRET, receiving, with_status
from tests.service.galleries.conftest import MATCHER_ID
from tests.service.galleries.stock import MATCHER_SIZE, add_model_row, save_tiny_matcher
from tests.waiting import wait_until
from tests.worker.service import Service
from worker.sending import send
from worker.webhooks import deliver_webhooks

LOOPBACK = "127.0.0.0/8"

_SLOW_NAMES = 31
"""All but one of the receivers that are sent something at a time; asyncio has four threads more than processors."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {"home": tmp_path / "home", "webhook_networks": LOOPBACK, "webhook_retry_seconds": 0.1}
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    upgrade(settings.database_url)
    database = open_database(settings.database_url)
    yield database
    database.close()


@contextmanager
def delivering(settings: Settings, database: Database) -> Iterator[None]:
    shutdown = threading.Event()
    thread = threading.Thread(target=deliver_webhooks, args=(settings, database, shutdown))
    thread.start()
    try:
        yield
    finally:
        shutdown.set()
        thread.join()


def _job(database: Database, url: str) -> str:
    with database.write() as session:
        return enqueue(session, "index", {"gallery": "gal_1"}, webhook=(url, SECRET)).id


def _end(database: Database, job_id: str) -> None:
    attempt = claim(database, job_id, "w", 60)
    assert attempt is not None
    with database.write() as session:
        succeed(session, job_id, attempt, {"gallery": "gal_1"})


def _deliveries(database: Database, job_id: str) -> list[WebhookDelivery]:
    with database.read() as session:
        return list(session.scalars(select(WebhookDelivery).where(WebhookDelivery.job_id == job_id)))


def _all_over(database: Database) -> bool:
    with database.read() as session:
        return session.scalar(select(WebhookDelivery.id).where(WebhookDelivery.state == "waiting").limit(1)) is None


def _end_in_every_way(database: Database, url: str) -> dict[str, str]:
    """The state in which each of the jobs ended."""
    jobs = [_job(database, url) for _ in range(6)]
    succeeded, failed, cancelled, waiting, crashed, interrupted = jobs
    _end(database, succeeded)
    fail(database, failed, claim(database, failed, "w", 60) or 0, Problem("internal", "It broke."))
    attempt = claim(database, cancelled, "w", 60) or 0
    with database.write() as session:
        request_cancel(session, cancelled)
    settle_cancelled(database, cancelled, attempt)
    with database.write() as session:
        request_cancel(session, waiting)
    interrupt(database, crashed, claim(database, crashed, "w", 60) or 0, "it died", max_crashes=1)
    interrupt(database, interrupted, claim(database, interrupted, "w", 60) or 0, "it died", max_crashes=5)
    states = ("succeeded", "failed", "cancelled", "cancelled", "failed")
    return dict(zip(jobs[:-1], states, strict=True))


def test_each_end_comes_once_signed_though_the_receiver_fails_three_times(
    settings: Settings, database: Database
) -> None:
    with receiving(*[with_status(503)] * 3) as receiver, delivering(settings, database):
        ended = _end_in_every_way(database, receiver.url)
        wait_until(lambda: _all_over(database))
    events = receiver.events()
    assert {tries[-1]["data"]["id"]: tries[-1]["data"]["state"] for tries in events.values()} == ended
    assert len(events) == len(ended)
    for tries in events.values():
        assert tries == [tries[0]] * 4, "every attempt sends the same"
        assert tries[0]["type"] == f"job.{tries[0]['data']['state']}"
    for job_id in ended:
        (delivery,) = _deliveries(database, job_id)
        assert (delivery.state, delivery.attempts, delivery.status, delivery.fault) == ("delivered", 4, 204, None)


def test_a_job_that_is_resumed_has_an_event_for_each_of_its_ends(settings: Settings, database: Database) -> None:
    with receiving() as receiver, delivering(settings, database):
        job_id = _job(database, receiver.url)
        with database.write() as session:
            request_cancel(session, job_id)
        with database.write() as session:
            resume(session, job_id)
        _end(database, job_id)
        wait_until(lambda: _all_over(database))
    assert [tries[0]["type"] for tries in receiver.events().values()] == ["job.cancelled", "job.succeeded"]


def test_a_receiver_that_never_answers_holds_up_nobody_else(settings: Settings, database: Database) -> None:
    over = threading.Event()
    with receiving(lambda request: over.wait() and None) as dead, receiving() as living, delivering(settings, database):
        for _ in range(50):
            _end(database, _job(database, dead.url))
        wait_until(lambda: len(dead.requests) > 0)
        ended = _job(database, living.url)
        _end(database, ended)
        wait_until(lambda: len(living.events()) == 1)
        assert len(dead.requests) == 1, "one attempt at a time at each receiver"
        over.set()


def _try(settings: Settings, url: str) -> Attempt:
    return asyncio.run(send(settings, Delivery("evt_1", "", url, SECRET, "{}", 1)))


def test_no_redirect_is_followed(settings: Settings) -> None:
    with receiving() as other, receiving(with_status(307, Location=other.url)) as receiver:
        attempt = _try(settings, receiver.url)
    assert (attempt.status, attempt.fault) == (307, "it was answered with 307; redirects are not followed")
    assert other.requests == []


def test_an_answer_that_trickles_is_cut_off(settings: Settings) -> None:
    def trickle(request: BaseHTTPRequestHandler) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 1000:
            request.wfile.write(bytes([byte]))
            request.wfile.flush()
            time.sleep(0.05)

    with receiving(trickle) as receiver:
        attempt = _try(settings.model_copy(update={"webhook_seconds": 0.5}), receiver.url)
    assert attempt == Attempt(None, "there was no answer within 0.5 s")


def test_names_that_are_slow_to_resolve_hold_up_nobody_else(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, asked, resolve = threading.Event(), set[str](), socket.getaddrinfo

    def slow(host: str, *arguments: Any, **options: Any) -> Any:
        if host.endswith(".example"):
            asked.add(host)
            over.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    patient = settings.model_copy(update={"webhook_seconds": 600})
    with receiving() as living, delivering(patient, database):
        try:
            for number in range(_SLOW_NAMES):
                _end(database, _job(database, f"http://slow-{number}.example/"))
            wait_until(lambda: len(asked) == _SLOW_NAMES)
            _end(database, _job(database, living.url))
            wait_until(lambda: len(living.events()) == 1)
        finally:
            over.set()


def test_a_name_is_judged_by_the_addresses_that_it_leads_to(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with receiving() as receiver:
        url = receiver.url.replace("127.0.0.1", "localhost")
        assert _try(settings, url) == Attempt(204, None)
        assert receiver.requests[0][1]["host"] == url.split("/")[2]
        attempt = _try(settings.model_copy(update={"webhook_networks": ()}), url)
    assert attempt.status is None
    assert attempt.fault == "localhost leads to no public address; its network is not in REID_WEBHOOK_NETWORKS"
    assert "127.0.0.1" in caplog.text, "the operator is told the addresses, the caller is not"
    assert len(receiver.requests) == 1


def test_proxies_of_the_environment_are_passed_by(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as receiver, receiving() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        assert _try(settings, receiver.url) == Attempt(204, None)
    assert (len(receiver.requests), proxy.requests) == (1, [])


def test_it_is_given_up_after_so_many_attempts_or_when_the_receiver_is_gone(
    settings: Settings, database: Database
) -> None:
    few = settings.model_copy(update={"webhook_attempts": 2})
    with receiving(*[with_status(500)] * 9) as broken, receiving(with_status(410)) as gone, delivering(few, database):
        first, second = _job(database, broken.url), _job(database, gone.url)
        _end(database, first)
        _end(database, second)
        wait_until(lambda: _all_over(database))
    for job_id, attempts, status in ((first, 2, 500), (second, 1, 410)):
        (delivery,) = _deliveries(database, job_id)
        assert (delivery.state, delivery.attempts, delivery.status) == ("failed", attempts, status)
        assert delivery.fault == f"it was answered with {status}"
        assert delivery.due_at is None


def test_pauses_double_and_are_spread(settings: Settings) -> None:
    for attempt in (1, 2, 5):
        pauses = [retry_seconds(settings, attempt) for _ in range(200)]
        mean = settings.webhook_retry_seconds * 2 ** (attempt - 1)
        assert 0.5 * mean <= min(pauses) < 0.7 * mean < 1.3 * mean < max(pauses) <= 1.5 * mean


def test_two_workers_never_take_the_same_delivery(settings: Settings, database: Database) -> None:
    _end(database, _job(database, "http://127.0.0.1:9/"))
    (delivery,) = claim_due(database, settings, busy=[], most=9)
    assert claim_due(database, settings, busy=[], most=9) == []
    record(database, settings, delivery, Attempt(None, "refused"))
    wait_until(lambda: bool(claim_due(database, settings, busy=[], most=9)))
    record(database, settings, delivery, Attempt(204, None))  # too late: the second attempt counts
    with database.read() as session:
        assert session.get_one(WebhookDelivery, delivery.id).state == "waiting"


def test_nothing_is_lost_when_the_whole_service_is_killed_between_attempts(tmp_path: Path) -> None:
    home = tmp_path / "home"
    upgrade(Settings(home=home).database_url)
    database = open_database(Settings(home=home).database_url)
    save_tiny_matcher(Settings(home=home).models_dir / MATCHER_ID)
    add_model_row(database, MATCHER_ID, "matcher", method="qaconv-pk", size=MATCHER_SIZE)
    database.close()
    pauses = {"REID_WEBHOOK_RETRY_SECONDS": "1", "REID_WEBHOOK_SECONDS": "1", "REID_LEASE_SECONDS": "5"}
    service = Service(home, tmp_path, REID_WEBHOOK_NETWORKS=LOOPBACK, **pauses)
    with receiving(*[with_status(500)] * 3) as receiver:
        service.start()
        try:
            service.post("/galleries", {"name": "hall", "model": "matcher", "maps": "none"}, expect=201)
            body = {"kind": "index", "gallery": "hall", "webhook": {"url": receiver.url, "secret": SECRET}}
            jobs = [service.post("/jobs", body)["id"] for _ in range(2)]
            wait_until(lambda: len(receiver.events()) == 2)
            service.kill_everything()
            tries_before = len(receiver.requests)
            service.start()
            wait_until(lambda: all(_is_over(service, job_id) for job_id in jobs))
            assert tries_before < 8, "it was killed before all attempts were made"
            assert sorted(tries[0]["data"]["id"] for tries in receiver.events().values()) == sorted(jobs)
            assert [len(tries) for tries in receiver.events().values()] == [4, 4]
            assert SECRET not in service.output()
            service.stop()
        finally:
            if service.processes():
                service.kill_everything()


def _is_over(service: Service, job_id: str) -> bool:
    (delivery,) = service.get(f"/jobs/{job_id}/deliveries")["items"]
    return bool(delivery["state"] == "delivered")
