"""Every route names its scope in OpenAPI and keeps to it, under both addresses; problems are declared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from jsonschema_rs import Draft202012Validator

from service.auth import SCOPES
from service.keys.lifecycle import create_key
from service.main import create_app
from service.settings import Settings
from tests.service.serving import open_client, serve

PUBLIC = {"/healthz/live", "/healthz/ready", "/version", "/problems", "/problems/{slug}", "/"}

CURVES = "GET /jobs/{job_id}/metrics 200"
"""Its properties are the names of the curves."""

Operation = tuple[str, str, dict[str, Any]]


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def address(app: FastAPI) -> Iterator[str]:
    with serve(app) as address:
        yield address


def test_every_operation_but_the_public_ones_names_one_scope(app: FastAPI) -> None:
    for method, path, operation in operations(app):
        scopes = scopes_of(operation)
        if path in PUBLIC:
            assert scopes == set(), f"{method} {path} is public, yet names {scopes}"
        else:
            assert len(scopes) == 1, f"{method} {path} names {scopes or 'no scope'}"
            assert scopes <= set(SCOPES)
            assert {"bearer", "header"} == {name for way in operation["security"] for name in way}


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_every_operation_demands_its_scope(app: FastAPI, address: str, prefix: str) -> None:
    with app.state.database.write() as session:
        keys = {scope: create_key(session, name=scope, scopes=[scope])[1] for scope in SCOPES if scope != "admin"}
    with open_client(address + prefix) as client:
        for method, path, operation in operations(app):
            if path in PUBLIC:
                assert client.request(method, _filled(path)).status_code not in (401, 403)
                continue
            (needed,) = scopes_of(operation)
            assert client.request(method, _filled(path)).status_code == 401, f"{method} {path}"
            for scope, key in keys.items():
                answer = client.request(method, _filled(path), headers={"X-API-Key": key})
                assert (answer.status_code == 403) is (scope != needed), f"{method} {path} with {scope}: {answer.text}"


def test_nothing_is_served_beside_the_schema(app: FastAPI) -> None:
    hidden = {path for path in app.openapi()["paths"] if path.startswith("/v1")}
    assert hidden == set(), "the second mount would double every operation of generated clients"
    beside = {route.path for route in app.routes if hasattr(route, "path")}
    assert beside <= {"/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}


def test_operation_names_are_unique(app: FastAPI) -> None:
    names = [operation["operationId"] for _, _, operation in operations(app)]
    assert sorted(set(names)) == sorted(names)


def test_every_problem_is_declared_by_its_status(app: FastAPI) -> None:
    schema = app.openapi()
    assert {"ProblemAnswer", "WrongValue"} <= set(schema["components"]["schemas"])
    for method, path, operation in operations(app):
        problems = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert {"401", "422", "503"} <= problems.keys(), f"{method} {path}"
        for status, answer in problems.items():
            assert status.isdecimal(), f"{method} {path} declares {status}, which no checker can test"
            assert list(answer["content"]) == ["application/problem+json"], f"{method} {path} {status}"


def test_every_json_answer_has_a_schema(app: FastAPI) -> None:
    components = app.openapi()["components"]["schemas"]
    answers = list(json_answers(app))
    assert len(answers) > 40
    for where, schema in answers:
        named = components.get(schema.get("$ref", "").rpartition("/")[2], schema)
        assert named.get("properties") or where == CURVES, f"{where} answers {schema or 'anything'}"


def test_examples_fit_their_schemas(app: FastAPI) -> None:
    schema = app.openapi()
    with_examples = {name: body for name, body in schema["components"]["schemas"].items() if "examples" in body}
    assert {"DatasetAnswer", "JobAnswer", "ModelAnswer", "GalleryAnswer", "SearchAnswer"} <= set(with_examples)
    for name, body in with_examples.items():
        validator = Draft202012Validator({**body, "components": schema["components"]})
        for example in body["examples"]:
            assert [error.message for error in validator.iter_errors(example)] == [], name


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/datasets", "GET, POST"),
        ("/v1/datasets/x", "DELETE, GET, PATCH"),
        ("/galleries/x/identities/erase", "DELETE, GET, PATCH, POST"),
    ],
)
def test_allow_lists_every_method_of_the_address(address: str, path: str, allowed: str) -> None:
    with open_client(address) as client:
        answer = client.put(path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)


def test_every_post_takes_an_idempotency_key(app: FastAPI) -> None:
    for schema in (app.openapi(), app.openapi()):  # it is built once and must not grow
        for path, operations in schema["paths"].items():
            if "post" in operations:
                names = [parameter["name"] for parameter in operations["post"]["parameters"]]
                assert names.count("Idempotency-Key") == 1, path


def test_gets_take_no_body(app: FastAPI) -> None:
    assert [path for method, path, operation in operations(app) if method == "GET" and "requestBody" in operation] == []


def test_the_documentation_is_served(address: str) -> None:
    with open_client(address) as client:
        assert client.get("/openapi.json").json()["info"]["title"] == "Re-ID Search"
        assert client.get("/docs").status_code == 200


def operations(app: FastAPI) -> list[Operation]:
    paths = app.openapi()["paths"]
    return [(method.upper(), path, op) for path, methods in paths.items() for method, op in methods.items()]


def json_answers(app: FastAPI) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the place of each declared JSON answer, and its schema."""
    for method, path, operation in operations(app):
        for status, answer in operation["responses"].items():
            for media_type, content in answer.get("content", {}).items():
                if media_type.endswith("json"):
                    yield f"{method} {path} {status}", content.get("schema", {})


def scopes_of(operation: dict[str, Any]) -> set[str]:
    return {scope for way in operation.get("security", []) for scopes in way.values() for scope in scopes}


def _filled(path: str) -> str:
    return path.replace("{", "x-").replace("}", "")
