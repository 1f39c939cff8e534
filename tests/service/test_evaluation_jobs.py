"""Evaluations that are asked for are resolved, or refused with a way out."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from service.db.session import Database
from service.db.tables import Dataset
from tests.service.galleries.stock import add_model_row

PLAIN, MATCHER, OTHER = "mdl_plain", "mdl_matcher", "mdl_other"


@pytest.fixture(autouse=True)
def _rows(database: Database) -> None:
    add_model_row(database, PLAIN, "plain")
    add_model_row(database, MATCHER, "matcher", method="qaconv-pk")
    add_model_row(database, OTHER, "other", method="qaconv-gs")
    report = {"evaluable_queries": 3}
    dataset = Dataset(id="ds_1", name="people", path="/", format="auto", state="ready", uploaded=False, report=report)
    with database.write() as session:
        session.add(dataset)


def evaluate(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/jobs", json={"kind": "evaluate", "dataset": "people", **body})


ASKED: list[tuple[dict[str, Any], tuple[str, str | None, int | None]]] = [
    ({"model": "plain"}, ("none", None, None)),
    ({"model": "matcher"}, ("qaconv", MATCHER, None)),
    ({"model": "matcher", "rerank": "none"}, ("none", None, None)),
    ({"model": "matcher", "candidates": 10}, ("qaconv", MATCHER, 10)),
    ({"model": "plain", "rerank": "k_reciprocal"}, ("k_reciprocal", None, None)),
    ({"model": "matcher", "rerank": "qaconv"}, ("qaconv", MATCHER, None)),
    ({"model": "plain", "rerank": "qaconv", "reranker": "matcher"}, ("qaconv", MATCHER, None)),
    ({"model": "matcher", "rerank": "qaconv", "reranker": OTHER, "candidates": 50}, ("qaconv", OTHER, 50)),
    ({"model": "matcher", "rerank": "qaconv+k_reciprocal"}, ("qaconv+k_reciprocal", MATCHER, None)),
]


@pytest.mark.parametrize(("body", "resolved"), ASKED)
def test_the_re_ranking_stands_in_the_spec(client: httpx.Client, body: dict[str, Any], resolved: object) -> None:
    answer = evaluate(client, **body)
    assert answer.status_code == 202, answer.text
    spec = answer.json()["spec"]
    assert (spec["rerank"], spec["reranker"], spec["candidates"]) == resolved


@pytest.mark.parametrize("asked", [True, False, None])
def test_whether_mirror_images_count_stands_in_the_spec(client: httpx.Client, asked: bool | None) -> None:
    assert evaluate(client, model="plain", flip_average=asked).json()["spec"]["flip_average"] is asked
    assert evaluate(client, model="plain").json()["spec"]["flip_average"] is None


def test_how_queries_ask_stands_in_the_spec(client: httpx.Client) -> None:
    plain = evaluate(client, model="plain").json()["spec"]
    assert (plain["multi_query"], plain["open_set"]) == (False, None)
    assert evaluate(client, model="plain", multi_query=True).json()["spec"]["multi_query"]
    asked = evaluate(client, model="plain", open_set={"share": 0.25}).json()["spec"]["open_set"]
    assert asked == {"share": 0.25, "seed": 0}


REFUSED: list[tuple[dict[str, Any], int, str | None]] = [
    ({"model": "plain", "rerank": "qaconv"}, 422, "/rerank"),
    ({"model": "matcher", "rerank": "qaconv", "reranker": "plain"}, 422, "/reranker"),
    ({"model": "matcher", "rerank": "qaconv", "reranker": "nobody"}, 404, None),
    ({"model": "matcher", "rerank": "none", "reranker": "other"}, 422, "/reranker"),
    ({"model": "matcher", "rerank": "k_reciprocal", "reranker": "other"}, 422, "/reranker"),
    ({"model": "plain", "candidates": 10}, 422, "/candidates"),
    ({"model": "matcher", "rerank": "qaconv", "candidates": 0}, 422, "/candidates"),
    ({"model": "matcher", "rerank": "magic"}, 422, "/rerank"),
    ({"model": "plain", "rerank": "qaconv+k_reciprocal"}, 422, "/rerank"),
    ({"model": "matcher", "rerank": "qaconv+k_reciprocal", "candidates": 5}, 422, "/candidates"),
    ({"model": "matcher", "rerank": "qaconv+k_reciprocal", "multi_query": True}, 422, "/multi_query"),
    ({"model": "plain", "multi_query": True, "open_set": {}}, 422, "/multi_query"),
    ({"model": "plain", "open_set": {"share": 1}}, 422, "/open_set/share"),
    ({"model": "plain", "flip_average": "sometimes"}, 422, "/flip_average"),
]


@pytest.mark.parametrize(("body", "status", "pointer"), REFUSED)
def test_an_impossible_re_ranking_is_refused(
    client: httpx.Client, body: dict[str, Any], status: int, pointer: str | None
) -> None:
    answer = evaluate(client, **body)
    problem = answer.json()
    assert answer.status_code == status, answer.text
    assert pointer is None or [fault["pointer"] for fault in problem["errors"]] == [pointer]


def test_the_way_out_names_methods_that_match(client: httpx.Client) -> None:
    hint = evaluate(client, model="plain", rerank="qaconv").json()["hint"]
    assert "qaconv-gs" in hint
    assert "k_reciprocal" in hint
