"""Evaluations compared and looked into over the API."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest

from service.db.ids import new_id
from service.db.session import Database
from service.db.tables import Dataset, DatasetImage, Evaluation, Job
from service.evaluations.queries import QueryResults, write_results
from service.settings import Settings
from tests.service.galleries.stock import add_model_row

DATASET, MODEL = "ds_1", "mdl_1"
PROTOCOL = {"dataset": {"fingerprint": "abc"}, "multi_query": False, "open_set": None, "rerank": "none"}
QUERY, GALLERY = ("a/1", "a/2", "b/1", "c/1"), ("a/3", "b/3", "b/2", "x/1", "b/4")

RESULTS = QueryResults(
    queries=[0, 1, 2, 3],
    people=[0, 0, 1, 2],
    matches=[1, 1, 2, 0],
    average_precision=[0.5, 1.0, 0.75, None],
    first_rank=[2, 1, 1, 0],
    first=[[1, 0], [0, 1], [2, 4], [0, 1]],
    scores=[[0.9, 0.8], [0.9, 0.1], [0.7, 0.6], [0.5, None]],
)


@pytest.fixture(autouse=True)
def _rows(database: Database) -> None:
    add_model_row(database, MODEL, "plain")
    with database.write() as session:
        session.add(Dataset(id=DATASET, name="people", path="/", format="auto", state="ready", uploaded=False))
        session.flush()
        for split, labels in (("query", QUERY), ("gallery", GALLERY)):
            session.add_all(_image(split, place, *label.split("/")) for place, label in enumerate(labels))


def _image(split: str, position: int, identity: str, camera: str) -> DatasetImage:
    return DatasetImage(
        id=f"img_{split}{position}",
        dataset_id=DATASET,
        split=split,
        position=position,
        path=f"{split}/{position}.jpg",
        identity=identity,
        camera=camera,
    )


def add_evaluation(
    database: Database, settings: Settings, results: QueryResults | None = RESULTS, **protocol: Any
) -> str:
    """An evaluation with what it found for each query; without that it is one of an earlier version."""
    job_id, identifier = new_id("job"), new_id("eval")
    metrics = {"mAP": 0.5, "cmc": {"1": 0.5}, "valid_queries": 3, "mINP": 0.25, "queries": 4, "gallery": 5}
    with database.write() as session:
        session.add(Job(id=job_id, kind="evaluate", spec={}, state="succeeded"))
        session.flush()
        session.add(
            Evaluation(
                id=identifier,
                model_id=MODEL,
                dataset_id=DATASET,
                job_id=job_id,
                rerank=protocol.get("rerank", "none"),
                metrics=metrics | {"interval": {"mAP": [0.1, 0.9]}},
                protocol=PROTOCOL | protocol,
            )
        )
    if results is not None:
        write_results(settings.jobs_dir / job_id, results)
    return identifier


def test_two_evaluations_are_compared_query_by_query(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    a = add_evaluation(database, settings)
    better = replace(RESULTS, average_precision=[1.0, 0.9, 0.75, None], first_rank=[1, 1, 1, 0])
    b = add_evaluation(database, settings, better, rerank="qaconv")
    answer = client.get("/v1/evaluations/compare", params={"a": a, "b": b})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["a"]["id"], body["b"]["links"]["self"]) == (a, f"/v1/evaluations/{b}")
    assert body["measures"]["mAP"]["difference"] == pytest.approx(0.4 / 3)
    assert body["measures"]["rank1"]["a"] == pytest.approx(2 / 3)
    assert body["measures"]["rank1"]["b"] == 1
    assert (body["valid_queries"], body["identities"]) == (3, 2)
    assert body["differs"] == {"rerank": ["none", "qaconv"]}
    changed = [(one["image"]["id"], one["average_precision"], one["first_rank"]) for one in body["changed"]]
    assert changed == [("img_query0", [0.5, 1.0], [2, 1]), ("img_query1", [1.0, 0.9], [1, 1])]
    content = body["changed"][0]["image"]["links"]["content"]
    assert content == f"/v1/datasets/{DATASET}/images/img_query0/content"
    fewer = client.get("/evaluations/compare", params={"a": a, "b": b, "limit": 1}).json()
    assert [one["image"]["id"] for one in fewer["changed"]] == ["img_query0"]


UNLIKE: dict[str, dict[str, Any]] = {
    "data set": {"dataset": {"fingerprint": "other"}},
    "open_set": {"open_set": {"share": 0.5, "seed": 0}},
    "multi_query": {"multi_query": True},
}


@pytest.mark.parametrize("named", UNLIKE)
def test_evaluations_that_ask_otherwise_are_refused_with_what_differs(
    client: httpx.Client, database: Database, settings: Settings, named: str
) -> None:
    pair = {"a": add_evaluation(database, settings), "b": add_evaluation(database, settings, **UNLIKE[named])}
    answer = client.get("/evaluations/compare", params=pair)
    assert answer.status_code == 422, answer.text
    (fault,) = answer.json()["errors"]
    assert (fault["pointer"], fault["code"]) == ("/query/b", "differs")
    assert named in fault["message"]
    assert named in answer.json()["detail"]


def test_an_evaluation_of_an_earlier_version_is_to_be_made_anew(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    older, newer = add_evaluation(database, settings, None), add_evaluation(database, settings)
    answer = client.get("/evaluations/compare", params={"a": older, "b": newer})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/wrong-state")
    assert "once more" in answer.json()["hint"]


def test_an_unknown_evaluation_is_pointed_at(client: httpx.Client, database: Database, settings: Settings) -> None:
    answer = client.get("/evaluations/compare", params={"a": add_evaluation(database, settings), "b": "eval_no"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/query/b")


def test_a_comparison_outlives_the_data_set(client: httpx.Client, database: Database, settings: Settings) -> None:
    a = add_evaluation(database, settings)
    b = add_evaluation(database, settings, replace(RESULTS, average_precision=[1.0, 1.0, 0.75, None]))
    with database.write() as session:
        session.delete(session.get_one(Dataset, DATASET))
    changed = client.get("/evaluations/compare", params={"a": a, "b": b}).json()["changed"]
    assert [(one["image"], one["average_precision"]) for one in changed] == [(None, [0.5, 1.0])]


WRONG = QueryResults(
    queries=[0, 1, 2, 3],
    people=[0, 0, 1, 2],
    matches=[1, 1, 2, 0],
    average_precision=[0.2, 1.0, 0.75, None],
    first_rank=[5, 1, 2, 0],
    first=[[1, 2, 4, 3, 0], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [1, 2, 4, 3, 0]],
    scores=[[0.9, 0.8, 0.7, 0.6, 0.5]] * 3 + [[0.5, 0.4, 0.3, 0.2, None]],
)


def failures(client: httpx.Client, evaluation: str, **query: Any) -> Any:
    answer = client.get(f"/v1/evaluations/{evaluation}/failures", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_failures_show_the_worst_first(client: httpx.Client, database: Database, settings: Settings) -> None:
    evaluation = add_evaluation(database, settings, WRONG)
    link = client.get(f"/v1/evaluations/{evaluation}").json()["links"]["failures"]
    body = failures(client, evaluation)
    assert (body["links"]["self"], body["links"]["evaluation"]) == (link, f"/v1/evaluations/{evaluation}")
    worst = body["worst_queries"]
    assert [one["image"]["id"] for one in worst] == ["img_query0", "img_query2", "img_query1"]
    assert (worst[0]["average_precision"], worst[0]["first_rank"], worst[0]["matches"]) == (0.2, 5, 1)
    assert [result["image"]["identity"] for result in worst[0]["results"]] == ["b", "b", "b", "x", "a"]
    assert [result["match"] for result in worst[0]["results"]] == [False] * 4 + [True]
    assert worst[0]["results"][0]["image"]["links"]["content"].startswith(f"/v1/datasets/{DATASET}/images/img_gallery1")
    hardest = [(one["identity"], one["queries"], one["mAP"]) for one in body["hardest_identities"]]
    assert hardest == [("a", 2, pytest.approx(0.6)), ("b", 1, 0.75)]
    # Queries 0 and 2, both by camera 1, have a first result that shows somebody else, by camera 3.
    assert body["confused_cameras"] == [{"query": "1", "gallery": "3", "wrong_first": 2, "queries": 2}]
    assert [len(failures(client, evaluation, limit=1)[name]) for name in body if name != "links"] == [1, 1, 1, 1]


def test_a_query_whose_neighbours_all_bear_another_name_is_a_label_suspect(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    (suspect,) = failures(client, add_evaluation(database, settings, WRONG))["label_suspects"]
    assert (suspect["image"]["id"], suspect["nearest_identity"], suspect["agreeing"]) == ("img_query3", "b", 3)
    assert [result["score"] for result in suspect["results"]] == [0.5, 0.4, 0.3, 0.2, None]
    taken_out = add_evaluation(database, settings, WRONG, open_set={"share": 0.5, "seed": 0})
    assert failures(client, taken_out)["label_suspects"] == []


def test_failures_need_the_data_set_and_the_results(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    older, newer = add_evaluation(database, settings, None), add_evaluation(database, settings)
    with database.write() as session:
        session.delete(session.get_one(Dataset, DATASET))
    for evaluation, word in ((older, "has not kept"), (newer, "data set")):
        answer = client.get(f"/evaluations/{evaluation}/failures")
        assert (answer.status_code, word in answer.json()["detail"]) == (409, True)
    assert client.get("/evaluations/eval_no/failures").status_code == 404


def test_the_matrix_is_told_in_markdown_too(client: httpx.Client, database: Database, settings: Settings) -> None:
    add_evaluation(database, settings, None)
    add_evaluation(database, settings, None, multi_query=True)
    rows = ["| model | people |", "| --- | --- |", "| plain (bnneck) | mAP 0.500 [0.100, 0.900], rank-1 0.500 |"]
    asked = [{"params": {"format": "markdown"}}, {"headers": {"Accept": "text/markdown"}}]
    for answer in (client.get("/evaluations/matrix", **one) for one in asked):
        assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
        assert answer.text.splitlines() == rows
    as_json = client.get("/evaluations/matrix", params={"format": "json"}, headers={"Accept": "text/markdown"})
    assert list(as_json.json()) == ["models", "datasets", "cells", "quoted"]
    assert client.get("/evaluations/matrix?format=png").status_code == 422
