"""Webhooks over the API: what is refused, what is listed, and that the secret is never told."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from service.db.session import Database
from service.db.tables import WebhookDelivery
from service.jobs import enqueue
from service.jobs.lifecycle import request_cancel
from service.jobs.receivers import is_allowed, receiver_of
from service.jobs.signatures import sign
from service.jobs.webhooks import Attempt, claim_due, record
from service.settings import Settings
from tests.service.galleries.stock import add_model_row

SECRET = "a secret that nobody else has seen"
WEBHOOK = {"url": "https://lab.example/end?token=abc", "secret": SECRET}


@pytest.fixture
def body(client: httpx.Client, database: Database) -> dict[str, Any]:
    add_model_row(database, "mdl_1", "first")
    assert client.post("/galleries", json={"name": "hall", "model": "first"}).status_code == 201
    return {"kind": "index", "gallery": "hall", "webhook": WEBHOOK}


def test_the_secret_is_never_shown_and_a_retry_keeps_the_webhook(client: httpx.Client, body: dict[str, Any]) -> None:
    made = client.post("/jobs", json=body, headers={"Idempotency-Key": "1"})
    again = client.post("/jobs", json=body, headers={"Idempotency-Key": "1"})
    assert (made.status_code, again.json()) == (202, made.json())
    here = made.headers["Location"]
    ended = client.post(f"{here}/cancel")
    retried = client.post(f"{here}/retry")
    (delivery,) = client.get(
        retried.json()["links"]["deliveries"].replace(retried.json()["id"], made.json()["id"])
    ).json()["items"]
    assert (delivery["event"], delivery["receiver"]) == ("job.cancelled", "https://lab.example")
    shown = [made, ended, retried, client.get("/jobs"), client.get(f"{here}/deliveries"), client.get("/audit")]
    shown.append(client.get(f"{here}/events", headers={"Accept": "application/json"}))
    for answer in shown:
        assert answer.is_success
        assert SECRET not in answer.text
        assert "token=abc" not in answer.text
    assert "webhook" not in made.json()["spec"]


def test_a_job_without_a_webhook_has_no_deliveries(client: httpx.Client, body: dict[str, Any]) -> None:
    made = client.post("/jobs", json={"kind": "index", "gallery": "hall"}).json()
    assert "deliveries" not in made["links"]
    client.post(f"/jobs/{made['id']}/cancel")
    assert client.get(f"/jobs/{made['id']}/deliveries").json() == {"items": [], "next_cursor": None}
    assert client.get("/jobs/job_x/deliveries").status_code == 404


@pytest.mark.parametrize(
    ("webhook", "pointer", "told"),
    [
        ({"url": "http://127.0.0.1:9000/"}, "/webhook/url", "REID_WEBHOOK_NETWORKS"),
        ({"url": "http://localhost/"}, "/webhook/url", "REID_WEBHOOK_NETWORKS"),
        ({"url": "http://[fe80::1]/"}, "/webhook/url", "REID_WEBHOOK_NETWORKS"),
        ({"url": "http://169.254.169.254/latest"}, "/webhook/url", "REID_WEBHOOK_NETWORKS"),
        ({"url": "ftp://lab.example/"}, "/webhook/url", "https://lab.example/reid"),
        ({"url": "https:///end"}, "/webhook/url", "https://lab.example/reid"),
        ({"url": "https://lab.example:99999/"}, "/webhook/url", "https://lab.example/reid"),
        ({"url": "https://me:word@lab.example/"}, "/webhook/url", "no user"),
        ({"secret": "short-one"}, "/webhook/secret", "openssl rand -hex 24"),
        ({"secret": "whsec_this is no base64 at all"}, "/webhook/secret", "base64"),
    ],
)
def test_what_cannot_be_a_webhook_is_refused(
    client: httpx.Client, body: dict[str, Any], webhook: dict[str, str], pointer: str, told: str
) -> None:
    answer = client.post("/jobs?dry_run=true", json={**body, "webhook": WEBHOOK | webhook})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    assert told in answer.text
    assert webhook.get("secret", SECRET) not in answer.text


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "168.63.129.16", "192.0.0.192", "::1", "fe80::1%eth0", "fd00:ec2::254", "::"),
        *("::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "ff02::1", "2001:0:1::"),
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not is_allowed(address, ())


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_allowed(address, ())


def test_a_setting_allows_networks_and_no_others(settings: Settings) -> None:
    networks = Settings.model_validate({"webhook_networks": "10.1.0.0/16, fd00::/8"}).webhook_networks
    assert is_allowed("10.1.2.3", networks)
    assert is_allowed("::ffff:10.1.2.3", networks)
    assert is_allowed("fd00::1", networks)
    assert not is_allowed("10.2.0.1", networks)


def test_receivers_are_told_apart_by_scheme_host_and_port() -> None:
    assert receiver_of("https://Lab.example:443/a") == receiver_of("https://lab.example/b") == "https://lab.example"
    assert receiver_of("http://[2001:db8::1]:8080/") == "http://[2001:db8::1]:8080"


def test_signatures_are_those_of_standard_webhooks() -> None:
    """The example of the specification's own libraries."""
    secret, event = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"
    body = '{"test": 2432232314}'
    assert sign(secret, event, 1614265330, body) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    plain = base64.b64decode(secret.removeprefix("whsec_"))
    assert len(plain) == 24


def test_one_delivery_of_each_receiver_is_taken_at_a_time(each_database: Database, settings: Settings) -> None:
    urls = ["https://a.example/1", "https://a.example/2", "https://b.example/"]
    with each_database.write() as session:
        jobs = [enqueue(session, "index", {"gallery": "gal_1"}, webhook=(url, SECRET)).id for url in urls]
    for job_id in jobs:
        with each_database.write() as session:
            request_cancel(session, job_id)
    taken = claim_due(each_database, settings, busy=["https://b.example"], most=9)
    assert [(delivery.url, delivery.attempt) for delivery in taken] == [(urls[0], 1)]
    assert {delivery.url for delivery in claim_due(each_database, settings, busy=[], most=9)} == {urls[1], urls[2]}
    record(each_database, settings, taken[0], Attempt(204, None))
    with each_database.read() as session:
        states = [row.state for row in session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id))]
    assert states == ["delivered", "waiting", "waiting"]
