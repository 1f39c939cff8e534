"""Caller, scope and size are judged before a byte of a body is read, and bodies share one budget of memory."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI

from service.api.forms import SPOOLED_BYTES
from service.api.operations import find_operation, operations_of
from service.auth import SCOPES
from service.keys.lifecycle import create_key
from service.main import create_app
from service.settings import Settings
from tests.service.serving import open_client, serve
from tests.service.test_openapi import PUBLIC, operations, scopes_of
from tests.waiting import HANG_SECONDS, wait_until


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def address(app: FastAPI) -> Iterator[str]:
    with serve(app) as address:
        yield address


def test_the_route_tells_the_scope_that_openapi_names(app: FastAPI) -> None:
    known = operations_of(app)
    for method, path, operation in operations(app):
        for prefix in ("", "/v1"):
            address = prefix + path.replace("{", "x-").replace("}", "")
            found = find_operation(known, {"app": app, "method": method, "path": address})
            assert {found.scope} - {None} == scopes_of(operation), f"{method} {path}"
            content = operation.get("requestBody", {}).get("content", {})
            assert found.takes_files is ("multipart/form-data" in content)
            assert found.scope is not None or path in PUBLIC


def test_a_body_is_not_asked_for_where_the_scope_is_missing(app: FastAPI, address: str) -> None:
    with app.state.database.write() as session:
        keys = {scope: create_key(session, name=scope, scopes=[scope])[1] for scope in SCOPES if scope != "admin"}
    for method, path, operation in operations(app):
        if "requestBody" not in operation:
            continue
        (needed,) = scopes_of(operation)
        wrong = next(key for scope, key in keys.items() if scope != needed)
        for key, status in ((wrong, b"403"), ("", b"401")):
            assert status in ask(address, method, path, key), f"{method} {path}"


def test_only_what_takes_files_is_sent_more_than_json(app: FastAPI, address: str, settings: Settings) -> None:
    key, limit = settings.admin_key_path.read_text().strip(), settings.max_json_bytes
    for method, path, operation in operations(app):
        content = operation.get("requestBody", {}).get("content")
        if content is not None and "multipart/form-data" not in content:
            answer = ask(address, method, path, key, length=limit + 1)
            assert b"413" in answer, f"{method} {path}"
            assert b"REID_MAX_JSON_BYTES" in answer


def test_a_read_only_key_spools_nothing(app: FastAPI, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with app.state.database.write() as session:
        _, key = create_key(session, name="reader", scopes=["read"])

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a body is spooled")

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", refuse)
    form = {"image": b"x" * 1_000_000}
    with open_client(address, {"X-API-Key": key, "Idempotency-Key": "k"}) as client:
        assert client.post("/search", files=form).status_code == 403
        assert client.post("/nowhere", files=form).status_code == 404


def test_bodies_that_arrive_share_a_budget(settings: Settings) -> None:
    one = settings.max_json_bytes + SPOOLED_BYTES
    app = create_app(settings.model_copy(update={"body_memory_bytes": one}))
    body = b'{"name": "camera", "scopes": ["read"]' + b" " * 3_500_000
    with serve(app) as address:
        key = settings.admin_key_path.read_text().strip()
        headers = {"X-API-Key": key, "Content-Type": "application/json"}
        with begin(address, "POST", "/api-keys", key, len(body) + 1) as first, open_client(address, headers) as client:
            first.sendall(body)
            wait_until(lambda: app.state.body_memory._free < one - len(body) + 1)
            busy = client.post("/api-keys", content=body + b"}")
            assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
            assert "REID_BODY_MEMORY_BYTES" in busy.json()["detail"]
            assert client.get("/methods").status_code == 200
            first.sendall(b"}")
            assert b"201 Created" in first.recv(65536)
            wait_until(lambda: app.state.body_memory._free == one)
            assert client.post("/api-keys", content=body + b"}").json()["type"] == "/problems/name-taken"


def test_the_budget_has_room_for_one_body(settings: Settings) -> None:
    with pytest.raises(ValueError, match=r"REID_BODY_MEMORY_BYTES is 1,000.*raise the one or lower the other"):
        Settings(home=settings.home, body_memory_bytes=1000)


def ask(address: str, method: str, path: str, key: str, length: int = 1000) -> bytes:
    """The answer to a request whose body is announced and does not come."""
    with begin(address, method, path, key, length) as connection:
        return connection.recv(65536)


def begin(address: str, method: str, path: str, key: str, length: int) -> socket.socket:
    parts, where = urlsplit(address), path.replace("{", "x-").replace("}", "")
    kind = "application/json" if length != 1000 else "multipart/form-data; boundary=b"
    head = f"{method} {where} HTTP/1.1\r\nHost: here\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n"
    connection = socket.create_connection((parts.hostname, parts.port), HANG_SECONDS)
    connection.sendall(f"{head}{f'X-API-Key: {key}' if key else 'X-A: b'}\r\n\r\n".encode())
    return connection
