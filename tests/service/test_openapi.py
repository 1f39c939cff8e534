"""Every route names its scope in OpenAPI and keeps to it, under both addresses; problems are declared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from service.auth import SCOPES
from service.keys import create_key
from service.main import create_app
from service.settings import Settings
from tests.service.serving import open_client, serve

PUBLIC = {"/healthz/live", "/healthz/ready", "/version", "/problems", "/problems/{slug}", "/"}

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


def test_problems_are_declared_everywhere(app: FastAPI) -> None:
    schema = app.openapi()
    assert {"ProblemBody", "WrongValue"} <= set(schema["components"]["schemas"])
    for method, path, operation in operations(app):
        for status in ("400", "401", "403", "404", "422", "4XX", "5XX"):
            content = operation["responses"][status]["content"]
            assert list(content) == ["application/problem+json"], f"{method} {path} {status}"


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


def scopes_of(operation: dict[str, Any]) -> set[str]:
    return {scope for way in operation.get("security", []) for scopes in way.values() for scope in scopes}


def _filled(path: str) -> str:
    return path.replace("{", "x-").replace("}", "")
