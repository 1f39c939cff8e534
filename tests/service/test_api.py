"""The path of every request: keys, pages, limits, health, figures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from reid_core.methods import METHODS
from service.clock import rfc3339, utc_now
from service.db.ids import new_id
from service.db.session import Database
from service.db.tables import Job, Worker
from service.keys.lifecycle import create_key
from service.main import create_app
from service.settings import Settings
from tests.service.serving import open_client, serve


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """The API with small limits."""
    return create_app(settings.model_copy(update={"max_json_bytes": 1000, "max_upload_bytes": 20_000}))


@pytest.fixture
def client(app: FastAPI, settings: Settings) -> Iterator[httpx.Client]:
    with serve(app) as address:
        key = settings.admin_key_path.read_text().strip()
        with open_client(address, {"Authorization": f"Bearer {key}"}) as client:
            yield client


def test_a_key_is_made_shown_once_and_deleted(client: httpx.Client) -> None:
    made = client.post("/api-keys", json={"name": "camera", "scopes": ["write", "read"]})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    key = made.json().pop("key")
    mine = {"Authorization": f"Bearer {key}"}
    assert client.get("/methods", headers=mine).status_code == 200
    assert client.get("/api-keys", headers=mine).status_code == 403

    shown = client.get(made.headers["location"])
    assert key not in shown.text + client.get("/api-keys").text
    assert shown.json()["scopes"] == ["read", "write"]
    assert key.startswith(shown.json()["prefix"])

    assert client.delete("/api-keys/camera").status_code == 204
    assert client.get("/methods", headers=mine).status_code == 401
    assert client.delete("/api-keys/camera").status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "a", "scopes": []}, 422),
        ({"name": "a", "scopes": ["root"]}, 422),
        ({"name": "a/b", "scopes": ["read"]}, 422),
        ({"name": "a", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}, 422),
        ({"name": "a", "scopes": ["read"], "expires_at": "2099-01-01T00:00:00"}, 422),
        ({"name": "a", "scopes": ["read"], "expires_at": "0001-01-01T00:00:00+23:00"}, 422),
        ({"name": "a", "scopes": ["read"], "expires_at": 99999999999}, 422),
        ({"name": "key_" + "0" * 26, "scopes": ["read"]}, 422),
        ({"name": "admin", "scopes": ["read"]}, 409),
    ],
)
def test_impossible_keys_are_refused(client: httpx.Client, body: dict[str, object], status: int) -> None:
    answer = client.post("/api-keys", json=body)
    assert answer.status_code == status
    assert status == 409 or answer.json()["errors"][0]["pointer"].startswith(("/name", "/scopes", "/expires_at"))


def test_times_are_rfc_3339_in_utc(client: httpx.Client) -> None:
    expires = "2099-06-01T12:00:00+02:00"
    made = client.post("/api-keys", json={"name": "guest", "scopes": ["read"], "expires_at": expires}).json()
    assert made["expires_at"] == "2099-06-01T10:00:00Z"
    assert made["created_at"] == rfc3339(datetime.fromisoformat(made["created_at"]))
    assert made["last_used_at"] is None


def test_the_audit_log_tells_who_made_and_deleted_keys(client: httpx.Client) -> None:
    made = client.post("/api-keys", json={"name": "camera", "scopes": ["read"]}).json()
    client.delete("/api-keys/camera")
    (admin,) = client.get("/api-keys").json()["items"]
    entries = client.get("/audit").json()["items"]
    assert [(entry["action"], entry["target"]) for entry in entries] == [
        ("api_key.delete", made["id"]),
        ("api_key.create", made["id"]),
    ]
    assert {entry["key"] for entry in entries} == {admin["id"]}
    assert entries[1]["detail"] == {"scopes": ["read"]}
    assert client.get("/audit?action=api_key.create").json()["items"] == entries[1:]
    assert client.get("/audit?target=nothing").json()["items"] == []


def test_pages_join_to_the_whole_list(client: httpx.Client, app: FastAPI) -> None:
    with app.state.database.write() as session:
        for number in range(7):
            create_key(session, name=f"key {number}", scopes=["read"])
    everything = client.get("/api-keys").json()
    assert everything["next_cursor"] is None
    assert [item["name"] for item in everything["items"]] == ["admin", *(f"key {number}" for number in range(7))]
    items, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        page = client.get("/api-keys", params={"limit": 3} | ({"cursor": cursor} if cursor else {})).json()
        items, cursor, pages = items + page["items"], page["next_cursor"], pages + 1
    assert (items, pages) == (everything["items"], 3)


def test_rows_that_come_and_go_move_no_page(client: httpx.Client, app: FastAPI) -> None:
    _make_keys(app.state.database, "a", "b", "c", "d")
    first = client.get("/api-keys?limit=3").json()
    client.delete("/api-keys/a")
    _make_keys(app.state.database, "e")
    second = client.get("/api-keys", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [item["name"] for item in second["items"]] == ["c", "d", "e"]


def test_a_list_takes_only_its_own_cursors(client: httpx.Client, app: FastAPI) -> None:
    _make_keys(app.state.database, "a")
    cursor = client.get("/api-keys?limit=1").json()["next_cursor"]
    huge = "QXVkaXRFbnRyeS5pZDo5OTk5OTk5OTk5OTk5OTk5OTk5OTk5"  # AuditEntry.id:9999...
    for path in (f"/audit?cursor={cursor}", f"/audit?cursor={huge}", "/api-keys?cursor=", "/api-keys?cursor=%00ü"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid-cursor")


@pytest.mark.parametrize("limit", ["0", "201", "-1", "many"])
def test_a_limit_out_of_range_is_422(client: httpx.Client, limit: str) -> None:
    answer = client.get(f"/api-keys?limit={limit}")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/query/limit")


def test_a_parameter_that_takes_one_value_is_given_once(client: httpx.Client) -> None:
    answer = client.get("/jobs?state=queued&state=failed&limit=1")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/query/state")
    cameras = client.get("/search?gallery=none&image_id=none&camera=1&camera=2")
    assert cameras.json()["type"] == "/problems/not-found"


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_beyond_its_limit_is_413_and_names_the_setting(client: httpx.Client, announced: bool) -> None:
    body = b'{"name": "' + b"x" * 2000 + b'"}'
    answer = _post(client, "/api-keys", body, "application/json", announced)
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-large")
    assert "REID_MAX_JSON_BYTES = 1,000 bytes" in answer.json()["detail"]


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("announced", [True, False])
def test_files_have_a_limit_of_their_own(client: httpx.Client, announced: bool, idempotent: bool) -> None:
    client.headers.update({"Idempotency-Key": os.urandom(4).hex()} if idempotent else {})
    whole = _post(client, "/datasets", _form(10_000), FORM, announced)
    assert (whole.status_code, whole.json()["type"]) == (415, "/problems/unsupported-media")
    answer = _post(client, "/datasets", _form(30_000), FORM, announced)
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-large")
    assert "REID_MAX_UPLOAD_BYTES" in answer.json()["detail"]


@pytest.mark.parametrize("announced", [True, False])
def test_who_has_no_key_sends_no_files(client: httpx.Client, announced: bool) -> None:
    client.headers["Authorization"] = "Bearer reid_wrong"
    assert _post(client, "/datasets", _form(10_000), FORM, announced).status_code == 401


def test_readiness_names_each_part(client: httpx.Client, app: FastAPI, settings: Settings) -> None:
    answer = client.get("/healthz/ready", headers={"Authorization": ""})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    checks = answer.json()["checks"]
    assert {name for name, check in checks.items() if not check["ok"]} == {"broker", "worker"}
    assert set(checks) == {"database", "broker", "worker", "disk", "engine"}

    app.state.ping_broker = lambda: None
    _beat(app.state.database, seconds_ago=settings.lease_seconds + 1)
    assert client.get("/healthz/ready").json()["detail"] == "Not ready: worker."
    _beat(app.state.database, seconds_ago=1)
    answer = client.get("/healthz/ready")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")

    with app.state.database.write() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    assert "run `reid migrate`" in client.get("/healthz/ready").json()["checks"]["database"]["detail"]
    assert client.get("/healthz/live").status_code == 200


def test_only_readers_and_this_machine_learn_what_is_wrong(client: httpx.Client, app: FastAPI) -> None:
    with app.state.database.write() as session:
        keys = {scope: create_key(session, name=scope, scopes=[scope])[1] for scope in ("read", "write")}
    stranger = {"Authorization": "", "X-Forwarded-For": "203.0.113.7"}
    for headers, readiness, metrics in (
        ({"Authorization": ""}, True, 200),
        (stranger, False, 401),
        ({"Authorization": "", "Host": "evil.example"}, False, 401),
        ({"Authorization": "", "Sec-Fetch-Site": "cross-site"}, False, 401),
        (stranger | {"X-API-Key": keys["write"]}, False, 403),
        (stranger | {"X-API-Key": keys["read"]}, True, 200),
    ):
        ready = client.get("/healthz/ready", headers=headers)
        assert (ready.status_code, "checks" in ready.json()) == (503, readiness)
        assert ("broker" in ready.text) is readiness
        assert client.get("/metrics", headers=headers).status_code == metrics


def test_a_full_disk_is_not_ready(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"min_free_bytes": 10**18}))
    with serve(app) as address, open_client(address) as client:
        assert "REID_MIN_FREE_BYTES" in client.get("/healthz/ready").json()["checks"]["disk"]["detail"]


def test_figures_count_requests_by_route_and_jobs_by_state(client: httpx.Client, app: FastAPI) -> None:
    with app.state.database.write() as session:
        for state in ("queued", "queued", "failed"):
            session.add(Job(id=new_id("job"), kind="train", state=state, spec={}))
    for path in ("/problems/erased", "/v1/problems/in-use", "/problems/unheard-of", "/no/such/thing"):
        client.get(path)
    answer = client.get("/metrics")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert found["reid_http_requests_total", "GET", "/problems/{slug}", "200"] == 2
    assert found["reid_http_requests_total", "GET", "/problems/{slug}", "404"] == 1
    assert found["reid_http_requests_total", "GET", "unmatched", "404"] == 1
    assert found["reid_http_request_seconds_count", "GET", "/problems/{slug}"] == 3
    assert (found["reid_jobs", "train", "queued"], found["reid_jobs", "train", "failed"]) == (2, 1)


def test_methods_and_formats_are_described(client: httpx.Client) -> None:
    methods = client.get("/methods").json()["items"]
    assert [method["name"] for method in methods] == list(METHODS)
    for method in methods:
        assert method["settings_schema"]["properties"]["schedule"]
        assert method["title"]
        assert method["paper"]
    formats = client.get("/dataset-formats").json()["items"]
    assert "market1501" in {format["name"] for format in formats}


def test_without_keys_only_this_machine_is_served(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"auth": "off"}))
    with serve(app) as address, open_client(address) as client:
        assert client.get("/api-keys").status_code == 200
        assert client.get("/api-keys", headers={"Host": "localhost:8000"}).status_code == 200
        rebound = client.get("/api-keys", headers={"Host": "evil.example"})
        assert (rebound.status_code, "'evil.example'" in rebound.json()["detail"]) == (401, True)
        forged = client.post(
            "/api-keys", json={"name": "x", "scopes": ["admin"]}, headers={"Sec-Fetch-Site": "cross-site"}
        )
        assert forged.status_code == 401
        made = client.post("/api-keys", json={"name": "x", "scopes": ["read"]}, headers={"Idempotency-Key": "k"})
        assert made.status_code == 201
        assert client.get("/audit").json()["items"][0]["key"] is None


FORM = "multipart/form-data; boundary=b"


def _form(size: int) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="archive"; filename="f"\r\n\r\n'
    name = b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\na\r\n'
    return name + head + b"x" * size + b"\r\n--b--\r\n"


def _post(client: httpx.Client, path: str, body: bytes, content_type: str, announced: bool) -> httpx.Response:
    pieces = (body[start : start + 5000] for start in range(0, len(body), 5000))
    return client.post(path, content=body if announced else pieces, headers={"Content-Type": content_type})


def _make_keys(database: Database, *names: str) -> None:
    for name in names:
        with database.write() as session:
            create_key(session, name=name, scopes=["read"])


def _beat(database: Database, *, seconds_ago: float) -> None:
    with database.write() as session:
        at = utc_now() - timedelta(seconds=seconds_ago)
        session.merge(Worker(name="w", queues=["short"], heartbeat_at=at))
