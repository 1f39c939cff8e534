"""A POST with an Idempotency-Key is done once, however often it is sent, and its answer cannot be read by others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, File, Form, Response, UploadFile
from sqlalchemy import func, select, update

from service.api.dependencies import require
from service.api.idempotency import BodyFingerprint
from service.clock import utc_now
from service.db.answers import STALE_AFTER, forget_old
from service.db.session import Database
from service.db.tables import RememberedAnswer
from service.errors import Problem
from service.main import create_app
from service.settings import Settings
from tests.service.serving import open_client, serve
from tests.waiting import HANG_SECONDS

KEY = {"Idempotency-Key": "k-1"}


class Counter:
    """Counts the requests that reached a route of these tests."""

    def __init__(self) -> None:
        self.done = 0
        self.started = threading.Event()
        self.may_finish = threading.Event()


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def app(settings: Settings, counter: Counter) -> FastAPI:
    app = create_app(settings)
    app.include_router(_routes(counter))
    return app


@pytest.fixture
def client(app: FastAPI, settings: Settings) -> Iterator[httpx.Client]:
    with serve(app) as address:
        key = settings.admin_key_path.read_text().strip()
        with open_client(address, {"X-API-Key": key}) as client:
            yield client


def _routes(counter: Counter) -> APIRouter:
    router = APIRouter(dependencies=[require("write")])

    @router.post("/things", status_code=201)
    def make_thing(body: dict[str, Any], response: Response, mode: str = "") -> dict[str, Any]:
        counter.done += 1
        response.headers["Location"] = f"/things/{counter.done}"
        if body.get("fail"):
            raise Problem("wrong-state", "not now")
        if body.get("crash"):
            raise ZeroDivisionError
        return {"number": counter.done, "mode": mode}

    @router.post("/uploads", openapi_extra={"requestBody": {"content": {"multipart/form-data": {}}}})
    def upload(file: Annotated[UploadFile, File()], name: Annotated[str, Form()]) -> dict[str, Any]:
        counter.done += 1
        return {"number": counter.done, "bytes": len(file.file.read()), "name": name}

    @router.post("/slow")
    def work_slowly() -> dict[str, Any]:
        counter.started.set()
        counter.may_finish.wait(HANG_SECONDS)
        counter.done += 1
        return {"number": counter.done}

    return router


def test_the_first_answer_comes_again(client: httpx.Client, counter: Counter) -> None:
    first = client.post("/things", json={"a": 1}, headers=KEY)
    again = client.post("/things", json={"a": 1}, headers=KEY)
    assert (first.status_code, first.json()) == (201, {"number": 1, "mode": ""})
    assert (again.status_code, again.json()) == (201, {"number": 1, "mode": ""})
    assert again.headers["location"] == "/things/1"
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert counter.done == 1


def test_without_a_key_everything_is_done_again(client: httpx.Client, counter: Counter) -> None:
    for _ in range(2):
        client.post("/things", json={"a": 1})
    assert counter.done == 2


@pytest.mark.parametrize(("query", "body"), [("", {"a": 2}), ("?mode=x", {"a": 1})])
def test_the_same_key_with_another_request_is_422(
    client: httpx.Client, counter: Counter, query: str, body: dict[str, int]
) -> None:
    client.post("/things", json={"a": 1}, headers=KEY)
    answer = client.post(f"/things{query}", json=body, headers=KEY)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert counter.done == 1


def test_a_key_belongs_to_one_address_and_one_caller(client: httpx.Client, counter: Counter) -> None:
    client.post("/things", json={"a": 1}, headers=KEY)
    counter.may_finish.set()
    assert client.post("/slow", headers=KEY).json() == {"number": 2}
    other = client.post("/api-keys", json={"name": "other", "scopes": ["write"]}).json()["key"]
    answer = client.post("/things", json={"a": 1}, headers={**KEY, "X-API-Key": other})
    assert answer.json()["number"] == 3


@pytest.mark.parametrize(("body", "status"), [({"fail": True}, 409), ({"crash": True}, 500), ([1], 422)])
def test_an_error_is_not_remembered(client: httpx.Client, app: FastAPI, body: Any, status: int) -> None:
    for _ in range(2):
        answer = client.post("/things", json=body, headers=KEY)
        assert (answer.status_code, "idempotent-replayed" in answer.headers) == (status, False)
    assert _count(app.state.database) == 0


def test_a_form_sent_again_is_the_same_form(client: httpx.Client, counter: Counter) -> None:
    image = bytes(range(256)) * 20_000  # beyond what is kept in memory
    bodies = [_send_form(client, image, boundary) for boundary in ("aaaaaaaa", "b" * 70)]
    assert [body.json()["bytes"] for body in bodies] == [len(image)] * 2
    assert counter.done == 1
    assert _send_form(client, image + b"!", "cccc").status_code == 422


def test_while_the_first_is_running_the_second_is_told_to_wait(client: httpx.Client, counter: Counter) -> None:
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(client.post("/slow", headers=KEY)))
    thread.start()
    assert counter.started.wait(HANG_SECONDS)
    second = client.post("/slow", headers=KEY)
    assert (second.status_code, second.json()["type"]) == (409, "/problems/request-in-progress")
    assert int(second.headers["retry-after"]) > 0
    counter.may_finish.set()
    thread.join()
    assert client.post("/slow", headers=KEY).json() == answers[0].json() == {"number": 1}


def test_a_client_that_hangs_up_gets_its_answer_later(client: httpx.Client, counter: Counter) -> None:
    with pytest.raises(httpx.ReadTimeout):
        client.post("/slow", headers=KEY, timeout=httpx.Timeout(HANG_SECONDS, read=0.2))
    counter.may_finish.set()
    answer = client.post("/slow", headers=KEY)
    while answer.status_code == 409:
        answer = client.post("/slow", headers=KEY)
    assert answer.json() == {"number": 1}


def test_a_request_lost_with_its_process_may_be_sent_again(client: httpx.Client, app: FastAPI) -> None:
    client.post("/things", json={"a": 1}, headers=KEY)
    _change(app.state.database, status=None)
    assert client.post("/things", json={"a": 1}, headers=KEY).status_code == 409
    _change(app.state.database, created_at=utc_now() - STALE_AFTER)
    assert client.post("/things", json={"a": 1}, headers=KEY).json()["number"] == 2


def test_answers_are_forgotten_in_time(client: httpx.Client, app: FastAPI, settings: Settings) -> None:
    client.post("/things", json={"a": 1}, headers=KEY)
    _change(app.state.database, created_at=utc_now() - timedelta(seconds=settings.idempotency_seconds + 1))
    assert client.post("/things", json={"a": 2}, headers=KEY).json()["number"] == 2
    assert _count(app.state.database) == 1


def test_a_remembered_api_key_cannot_be_read_from_the_database(client: httpx.Client, settings: Settings) -> None:
    body = {"name": "camera", "scopes": ["write"]}
    first = client.post("/api-keys", json=body, headers=KEY).json()
    assert client.post("/api-keys", json=body, headers=KEY).json() == first
    stored = b"".join(path.read_bytes() for path in settings.home.glob("reid.db*"))
    assert first["id"].encode() in stored
    assert first["key"].encode() not in stored


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_an_unusable_key_is_400(client: httpx.Client, key: str) -> None:
    answer = client.post("/things", json={}, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/malformed-request")


def test_a_stranger_claims_nothing(client: httpx.Client, app: FastAPI) -> None:
    answer = client.post("/api-keys", json={}, headers={**KEY, "X-API-Key": "reid_wrong"})
    assert answer.status_code == 401
    assert _count(app.state.database) == 0


def test_it_works_on_postgresql(postgresql_url: str, settings: Settings, counter: Counter) -> None:
    app = create_app(settings.model_copy(update={"database_url": postgresql_url, "migrate": "on"}))
    app.include_router(_routes(counter))
    counter.may_finish.set()
    with serve(app) as address, open_client(address) as client:
        headers = {**KEY, "X-API-Key": settings.admin_key_path.read_text().strip()}
        answers: list[httpx.Response] = []
        threads = [
            threading.Thread(target=lambda: answers.append(client.post("/slow", headers=headers))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counter.done == 1
    assert {answer.status_code for answer in answers} <= {200, 409}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_a_boundary_is_found_however_the_body_is_cut(size: int) -> None:
    assert _fingerprint("xyz", b"1--2-xyz---xyz\r\n--xyz-", size) == _fingerprint("q", b"1--2-xyz---q\r\n--q-", 1000)
    assert _fingerprint("xyz", b"--xyz--xyz", size) != _fingerprint("xyz", b"--xyz--xy", size)


def _fingerprint(boundary: str, body: bytes, size: int) -> str:
    fingerprint = BodyFingerprint(f"multipart/form-data; boundary={boundary}", b"")
    for start in range(0, len(body), size):
        fingerprint.add(body[start : start + size])
    return fingerprint.hexdigest()


def _send_form(client: httpx.Client, image: bytes, boundary: str) -> httpx.Response:
    headers = {**KEY, "Content-Type": f"multipart/form-data; boundary={boundary}"}
    files = {"file": ("p.jpg", image, "image/jpeg")}
    return client.post("/uploads", data={"name": "é"}, files=files, headers=headers)


def _change(database: Database, **values: Any) -> None:
    with database.write() as session:
        session.execute(update(RememberedAnswer).values(**values))


def _count(database: Database) -> int | None:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(RememberedAnswer))


def test_answers_past_their_time_are_deleted_without_another_request(each_database: Database) -> None:
    def answer(key: str, hours: int) -> RememberedAnswer:
        then = utc_now() - timedelta(hours=hours)
        return RememberedAnswer(key=key, api_key_id="", method="POST", path="/", body_hash="", created_at=then)

    with each_database.write() as session:
        session.add_all([answer("old", 25), answer("young", 23)])
    forget_old(each_database, keep=timedelta(days=1))
    with each_database.read() as session:
        assert session.scalars(select(RememberedAnswer.key)).all() == ["young"]
