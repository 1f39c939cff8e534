"""Every failure is one RFC 9457 problem that says what happened, where, and what to do."""

from __future__ import annotations

import errno
import importlib
import logging
import pkgutil
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, File, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from pydantic import Field
from sqlalchemy import select

import reid_core
from reid_core.errors import CoreError, Fault, ImageError, SettingsError
from service.api.dependencies import DatabaseDep, refuse_unknown_query
from service.api.error_handlers import problem_from
from service.db.tables import Job
from service.errors import KINDS, Problem, problem_from_core
from service.main import create_app
from service.schemas import Body, Name
from service.settings import Settings
from tests.service.serving import open_client, serve

FIELDS = {"type", "title", "status", "detail", "instance", "request_id", "hint", "errors"}


class Image(Body):
    height: int
    width: int = 1


class Train(Body):
    kind: Literal["train"]
    name: Name = "x"
    images: tuple[Image, ...] = ()
    dataset: str | list[str] = ""


class Index(Body):
    kind: Literal["index"]


trouble = APIRouter()


@trouble.post("/trouble/body")
def take_body(body: Annotated[Train | Index, Field(discriminator="kind")], top_k: int = 1) -> None: ...


@trouble.post("/trouble/form")
def take_form(file: Annotated[UploadFile, File()]) -> None: ...


@trouble.get("/trouble/{kind}")
def fail(kind: str, request: Request, database: DatabaseDep) -> None:
    match kind:
        case "problem":
            raise Problem("name-taken", "taken", hint="pick another", headers={"Retry-After": "3"})
        case "core":
            raise ImageError("not an image", hint="send a JPEG")
        case "nul":
            with database.read() as session:
                session.scalars(select(Job).where(Job.kind == "\0")).all()
        case "database":
            request.app.state.database.close()
            with database.read() as session:
                session.connection().exec_driver_sql("SELECT * FROM no_such_table")
        case "unforeseen":
            raise ZeroDivisionError("the secret is 42")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    settings = Settings(home=tmp_path_factory.mktemp("home"), min_free_bytes=0)
    with serve(_app(settings)) as address, open_client(address) as client:
        yield client


def test_a_problem_carries_every_field(client: httpx.Client) -> None:
    answer = client.get("/trouble/problem", headers={"X-Request-ID": "my-request.1"})
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "3"
    assert answer.json() == {
        "type": "/problems/name-taken",
        "title": KINDS["name-taken"].title,
        "status": 409,
        "detail": "taken",
        "instance": "/trouble/problem",
        "request_id": "my-request.1",
        "hint": "pick another",
        "errors": [],
    }


def test_an_error_of_the_core_keeps_its_words(client: httpx.Client) -> None:
    problem = _problem(client.get("/trouble/core"), 415, "invalid-picture")
    assert (problem["detail"], problem["hint"]) == ("not an image", "send a JPEG")


def test_faults_of_settings_point_into_the_body() -> None:
    error = SettingsError("impossible", faults=[Fault("/image/height", "less_than", "must be at least 32")])
    problem = problem_from_core(error, below="/settings").as_json(instance="/jobs/job_1")
    assert (problem["status"], problem["instance"]) == (422, "/jobs/job_1")
    assert problem["errors"] == [
        {"pointer": "/settings/image/height", "code": "less_than", "message": "must be at least 32"}
    ]


def test_every_error_of_the_core_has_its_kind() -> None:
    for module in pkgutil.walk_packages(reid_core.__path__, "reid_core."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name != "triton":  # comes with torch's CUDA builds only
                raise
    assert {error.slug for error in _descendants(CoreError)} <= set(KINDS)


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"kind": "train", "images": [{"height": 1}, {"height": "tall"}]}, ["/images/1/height"]),
        ({"kind": "train", "images": [{}]}, ["/images/0/height"]),
        ({"kind": "train", "a/b~c": 1}, ["/a~1b~0c"]),
        ({"kind": "train", "dataset": 3}, ["/dataset", "/dataset"]),
        ({"kind": "train", "dataset": ["a", 3]}, ["/dataset", "/dataset/1"]),
        ({"kind": "train", "name": "a/b"}, ["/name"]),
        ({"kind": "index", "name": "x"}, ["/name"]),
        ({"kind": "other"}, [""]),
        ([1], [""]),
    ],
)
def test_wrong_values_are_pointed_at(client: httpx.Client, body: Any, pointers: list[str]) -> None:
    problem = _problem(client.post("/trouble/body", json=body), 422, "invalid-request")
    assert [error["pointer"] for error in problem["errors"]] == pointers
    assert all(error["code"] and error["message"] for error in problem["errors"])


def test_a_wrong_query_value_is_told_apart_from_the_body(client: httpx.Client) -> None:
    problem = _problem(client.post("/trouble/body?top_k=many", json={"kind": "index"}), 422, "invalid-request")
    assert [error["pointer"] for error in problem["errors"]] == ["/query/top_k"]


def test_a_misspelt_query_parameter_is_refused_with_the_known_ones(client: httpx.Client) -> None:
    problem = _problem(client.post("/trouble/body?topk=3", json={"kind": "index"}), 422, "invalid-request")
    assert problem["errors"] == [
        {"pointer": "/query/topk", "code": "unknown", "message": "unknown parameter; known are: top_k"}
    ]


def test_a_missing_part_of_a_form_is_named(client: httpx.Client) -> None:
    problem = _problem(client.post("/trouble/form", files={"wrong": b"x"}), 422, "invalid-request")
    assert [error["pointer"] for error in problem["errors"]] == ["/file"]
    problem = _problem(client.post("/trouble/form"), 422, "invalid-request")
    assert [error["pointer"] for error in problem["errors"]] == ["/file"]


@pytest.mark.parametrize("content", [b'{"kind": ', b"\xff\xfe\xff", b'"\xc3\x28"'])
def test_a_body_that_is_not_json_is_400(client: httpx.Client, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    _problem(client.post("/trouble/body", content=content, headers=headers), 400, "malformed-request")


def test_json_in_a_field_may_be_wrong_beside_other_fields() -> None:
    other = {"type": "missing", "loc": ("body", "gallery"), "msg": "Field required", "input": None}
    wrong = {
        "type": "json_invalid",
        "loc": ("body", "webhook"),
        "msg": "",
        "input": "x",
        "ctx": {"error": "expected a value"},
    }
    problem = problem_from(RequestValidationError([other, wrong]))
    assert (problem.slug, "expected a value" in problem.detail) == ("malformed-request", True)


def test_a_broken_form_is_400(client: httpx.Client) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    _problem(client.post("/trouble/form", content=b"--x\r\n", headers=headers), 400, "malformed-request")


def test_json_sent_as_something_else_is_415(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = client.post("/trouble/body", content=b'{"kind": "index"}', headers=headers)
    assert "application/json" in _problem(answer, 415, "unsupported-media")["hint"]


def test_unknown_addresses_and_methods(client: httpx.Client) -> None:
    _problem(client.get("/nowhere"), 404, "not-found")
    answer = client.delete("/trouble/body")
    _problem(answer, 405, "method-not-allowed")
    assert "POST" in answer.headers["allow"]


def test_what_nobody_foresaw_is_logged_and_not_told(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        answer = client.get("/trouble/unforeseen")
    problem = _problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert "ZeroDivisionError: the secret is 42" in caplog.text


def test_a_database_that_fails_is_503(client: httpx.Client) -> None:
    answer = client.get("/trouble/database")
    _problem(answer, 503, "unavailable")
    assert int(answer.headers["retry-after"]) > 0


def test_text_that_postgresql_cannot_hold_is_422(postgresql_url: str, settings: Settings) -> None:
    settings = settings.model_copy(update={"database_url": postgresql_url, "migrate": "on"})
    with serve(_app(settings)) as address, open_client(address) as client:
        _problem(client.get("/trouble/nul"), 422, "invalid-request")


@pytest.mark.parametrize("sent", ["", "a b", "x" * 129, "ü"])
def test_a_request_id_that_could_harm_the_log_is_replaced(client: httpx.Client, sent: str) -> None:
    got = client.get("/version", headers={"X-Request-ID": sent.encode()}).headers["x-request-id"]
    assert got != sent
    assert len(got) == 32


def test_a_problem_without_a_hint_of_its_own_has_its_kinds() -> None:
    assert Problem("name-taken", "taken").as_json()["hint"] == KINDS["name-taken"].explanation


def test_every_kind_is_explained_at_its_type(client: httpx.Client) -> None:
    items = client.get("/problems").json()["items"]
    assert [item["type"] for item in items] == [f"/problems/{slug}" for slug in KINDS]
    for item in items:
        assert client.get(item["type"]).json() == item
        assert item["explanation"]
        assert 400 <= item["status"] < 600
    assert "erased" in _problem(client.get("/problems/unheard-of"), 404, "not-found")["hint"]


def _app(settings: Settings) -> FastAPI:
    app = create_app(settings)
    app.include_router(trouble, dependencies=[Depends(refuse_unknown_query)])
    return app


def _problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["type"]) == (status, f"/problems/{slug}"), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(problem) == FIELDS
    assert problem["status"] == status
    return problem


def _descendants(kind: type[CoreError]) -> list[type[CoreError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _descendants(child))]


@pytest.mark.parametrize(
    ("number", "slug"), [(errno.ENOSPC, "disk-full"), (errno.EDQUOT, "disk-full"), (errno.EIO, "internal")]
)
def test_a_full_disk_is_named_and_other_faults_of_disks_are_not_told(number: int, slug: str) -> None:
    problem = problem_from(OSError(number, "at /secret/path"))
    assert (problem.slug, "/secret" in problem.detail) == (slug, False)
