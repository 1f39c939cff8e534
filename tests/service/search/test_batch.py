"""A batch answers each of its queries as a search of its own would, in order, problems included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.db.session import Database
from service.db.tables import Dataset
from tests.service.galleries.stock import add_dataset, found_ids
from tests.service.search.conftest import COUNT
from tests.service.search.stock import EMBEDDING_SIZE, scene


@pytest.fixture
def lobby(database: Database, tmp_path: Path) -> Dataset:
    return add_dataset(database, tmp_path / "lobby")


def _batch(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/search/batch", json={"gallery": "hall", **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _told(results: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(result["image_id"], result["rank"], result["retrieval_rank"]) for result in results]


def _scores(results: list[dict[str, Any]]) -> list[float]:
    return [result["score"] for result in results]


@pytest.mark.parametrize("options", [{}, {"rerank": "qaconv"}, {"rerank": "k_reciprocal", "candidates": 8}])
def test_each_is_answered_as_if_it_had_been_asked_alone(
    client: httpx.Client, ids: list[str], lobby: Dataset, options: dict[str, Any]
) -> None:
    common = {"top_k": 5, "camera": ["0", "1"], "min_score": -0.5, **options}
    images = client.get(f"/datasets/{lobby.id}/images").json()["items"]
    queries = [{"image_id": image, "exclude_self": number % 2 == 0} for number, image in enumerate(ids)]
    queries += [{"image_id": image["id"]} for image in images[:3]]
    answer = _batch(client, queries=queries, **common)
    assert len(answer["items"]) == COUNT + 3
    for query, item in zip(queries, answer["items"], strict=True):
        alone = client.get("/search", params={"gallery": "hall", **common, **query}).json()
        assert item["results"]
        assert _told(item["results"]) == _told(alone["results"])
        # Stored vectors give the same digits; those of files come out of the network together, in other sums.
        tolerance = 0 if query["image_id"] in ids else 1e-5
        assert _scores(item["results"]) == pytest.approx(_scores(alone["results"]), abs=tolerance, rel=0)
        assert item["search_id"].startswith("search_")


def test_embeddings_and_images_stand_beside_each_other(client: httpx.Client, ids: list[str]) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, EMBEDDING_SIZE)).tolist()
    queries = [{"embedding": vectors[0]}, {"image_id": ids[3]}, {"embedding": vectors[1]}, {"embedding": vectors[2]}]
    items = _batch(client, queries=queries, top_k=4)["items"]
    for query, item in zip(queries, items, strict=True):
        if "embedding" in query:
            alone = client.post("/search", json={"gallery": "hall", "top_k": 4, **query})
        else:
            alone = client.get("/search", params={"gallery": "hall", "top_k": 4, **query})
        assert [result["image_id"] for result in item["results"]] == found_ids(alone)


@pytest.mark.parametrize("rerank", ["none", "qaconv"])
def test_uploaded_images_are_a_query_each(client: httpx.Client, ids: list[str], rerank: str) -> None:
    contents = [scene(number) for number in range(40)]  # more than pass through the network at a time
    contents[7] = b"no image"
    files = [("image", (f"{number}.png", content, "image/png")) for number, content in enumerate(contents)]
    answer = client.post("/search/batch", files=files, data={"gallery": "hall", "top_k": "3", "rerank": rerank})
    assert answer.status_code == 200, answer.text
    items = answer.json()["items"]
    assert len(items) == 40
    assert items[7]["problem"]["status"] == 415
    assert "results" not in items[7]
    for number in (0, 6, 8, 33):
        alone = client.post(
            "/search", files=[files[number]], data={"gallery": "hall", "top_k": "3", "rerank": rerank}
        ).json()["results"]
        assert [result["image_id"] for result in items[number]["results"]] == [r["image_id"] for r in alone]
        assert items[number]["results"][0]["score"] == pytest.approx(alone[0]["score"], abs=1e-4)


def test_a_query_that_cannot_be_answered_has_its_problem_in_its_place(client: httpx.Client, ids: list[str]) -> None:
    client.delete(f"/galleries/hall/images/{ids[1]}")
    queries = [
        {"image_id": ids[0]},
        {"image_id": ids[1]},
        {"image_id": "img_unknown"},
        {"embedding": [1.0, 2.0]},
        {"embedding": [0.0] * EMBEDDING_SIZE},
        {"image_id": ids[2]},
    ]
    items = _batch(client, queries=queries)["items"]
    assert [item.get("problem", {}).get("status") for item in items] == [None, 410, 404, 422, 422, None]
    assert items[3]["problem"]["errors"][0]["pointer"] == "/queries/3/embedding"
    assert [item["results"][0]["image_id"] for item in (items[0], items[5])] == [ids[0], ids[2]]


def test_an_embedding_is_no_query_for_a_matcher_but_the_others_are(client: httpx.Client, ids: list[str]) -> None:
    queries = [{"embedding": [1.0] * EMBEDDING_SIZE}, {"image_id": ids[2]}]
    first, second = _batch(client, queries=queries, rerank="qaconv")["items"]
    assert (first["problem"]["status"], second["results"][0]["image_id"]) == (422, ids[2])


def test_every_query_stands_in_the_audit_log(client: httpx.Client, ids: list[str]) -> None:
    items = _batch(client, queries=[{"image_id": image} for image in ids[:4]])["items"]
    entries = client.get("/audit").json()["items"]
    noted = {entry["detail"].get("search_id") for entry in entries if entry["action"] == "search"}
    assert {item["search_id"] for item in items} == noted


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"queries": []}, 422, "/queries"),
        ({"queries": [{}]}, 422, "one of the two"),
        ({"queries": [{"image_id": "x", "embedding": [1.0]}]}, 422, "one of the two"),
        ({"queries": [{"image_id": "x"}] * 101}, 422, "REID_MAX_BATCH_QUERIES"),
        ({"queries": [{"image_id": "x"}], "explain": True}, 422, "/explain"),
        ({"queries": [{"image_id": "x"}], "group_by": "identity"}, 422, "group_by"),
        ({"queries": [{"image_id": "x"}], "offset": 3}, 422, "offset"),
        ({"queries": [{"image_id": "x"}], "top_k": 1001}, 422, "REID_MAX_TOP_K"),
        ({"queries": [{"image_id": "x"}], "gallery": "nowhere"}, 404, "nowhere"),
        ({"queries": [{"image_id": "x"}], "far": 0.01}, 409, "calibrat"),
    ],
)
def test_what_all_have_in_common_is_refused_as_a_whole(
    client: httpx.Client, ids: list[str], body: dict[str, Any], status: int, told: str
) -> None:
    answer = client.post("/search/batch", json={"gallery": "hall", **body})
    assert (answer.status_code, told in answer.text) == (status, True), answer.text
