"""Searches find what is there, best first, and say what they cannot do."""

from __future__ import annotations

import io
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.db.session import Database
from service.db.tables import AuditEntry, Dataset, DatasetImage, Model
from service.settings import Settings
from tests.service.galleries.conftest import MODEL_ID
from tests.service.galleries.stock import (
    SIZE,
    add_model_row,
    added_ids,
    encoder_for,
    found_ids,
    image_file,
    make_gallery,
    upload,
)

pytestmark = pytest.mark.usefixtures("model")

COUNT = 8


@pytest.fixture
def ids(client: httpx.Client) -> list[str]:
    """Eight images in the gallery `hall`: two of each person, cameras 1, 2, 3 and none, an hour apart."""
    make_gallery(client)
    metadata = [
        {
            "identity": f"p{number // 2}",
            "camera": (None, "1", "2", "3")[number % 4],
            "captured_at": None if number == 7 else f"2024-05-01T{number:02}:00:00Z",
        }
        for number in range(COUNT)
    ]
    return added_ids(upload(client, "hall", [image_file(number) for number in range(COUNT)], metadata))


def get(client: httpx.Client, **parameters: Any) -> httpx.Response:
    return client.get("/search", params={"gallery": "hall", **parameters})


def post(client: httpx.Client, *contents: bytes, **fields: Any) -> httpx.Response:
    files = [("image", (f"{number}.png", content)) for number, content in enumerate(contents)]
    return client.post("/search", data={"gallery": "hall", **fields}, files=files)


def embeddings(settings: Settings, contents: list[bytes]) -> np.ndarray:
    return encoder_for(settings, MODEL_ID).embed([Image.open(io.BytesIO(content)) for content in contents]).numpy()


def test_a_stored_image_finds_itself_and_then_what_is_closest(
    client: httpx.Client, ids: list[str], settings: Settings, model: Model
) -> None:
    body = get(client, image_id=ids[3], top_k=5).json()
    vectors = embeddings(settings, [image_file(number) for number in range(COUNT)])
    scores = vectors @ vectors[3]
    order = np.argsort(-scores, kind="stable")[:5]
    results = body["results"]
    assert [result["image_id"] for result in results] == [ids[place] for place in order]
    np.testing.assert_allclose([result["score"] for result in results], scores[order], atol=1e-5)
    assert all(-1 <= result["score"] <= 1 for result in results)
    assert [result["rank"] for result in results] == [1, 2, 3, 4, 5]
    assert results[0] == {
        "rank": 1,
        "image_id": ids[3],
        "score": results[0]["score"],
        "retrieval_score": results[0]["score"],
        "retrieval_rank": 1,
        "identity": "p1",
        "camera": "3",
        "captured_at": "2024-05-01T03:00:00Z",
        "external_id": None,
        "links": results[0]["links"],
    }
    assert client.get(results[0]["links"]["image"]).content == image_file(3)
    assert body["search_id"].startswith("search_")
    assert (body["gallery"], body["revision"]) == (client.get("/galleries/hall").json()["id"], 1)
    assert (body["model"], body["reranker"], body["rerank"]) == (model.id, None, "none")
    assert set(body["timings_ms"]) == {"decode", "embed", "retrieve", "rerank", "total"}
    assert (
        client.get("/v1/search", params={"gallery": "hall", "image_id": ids[3]})
        .json()["results"][0]["links"]["image"]
        .startswith("/v1/galleries/")
    )


def test_every_way_of_asking_finds_the_same(client: httpx.Client, ids: list[str], settings: Settings) -> None:
    stored = found_ids(get(client, image_id=ids[5]))
    (embedding,) = embeddings(settings, [image_file(5)])
    assert found_ids(post(client, image_file(5))) == stored
    in_address = client.post("/search?gallery=hall&top_k=3", files={"image": image_file(5)})
    assert found_ids(in_address) == stored[:3]
    in_body = client.post("/search", json={"gallery": "hall", "embedding": (7 * embedding).tolist()})
    assert found_ids(in_body) == stored
    mixed = client.post("/search?gallery=hall", json={"embedding": embedding.tolist(), "top_k": 2})
    assert found_ids(mixed) == stored[:2]


def test_images_of_other_galleries_and_data_sets_can_be_asked_for(
    client: httpx.Client, ids: list[str], database: Database, dataset: Dataset
) -> None:
    make_gallery(client, name="other")
    (copy,) = added_ids(upload(client, "other", [image_file(4)]))
    results = get(client, image_id=copy).json()["results"]
    assert (results[0]["image_id"], results[0]["score"] > 0.999) == (ids[4], True)
    with database.read() as session:
        image = session.query(DatasetImage).first()
    assert image is not None
    assert len(get(client, image_id=image.id).json()["results"]) == COUNT


FILTERS: list[tuple[dict[str, Any], list[int]]] = [
    ({"camera": "1"}, [1, 5]),
    ({"camera": ["1", "3"]}, [1, 3, 5, 7]),
    ({"camera": ""}, [0, 4]),
    ({"exclude_camera": ["2", "3"]}, [0, 1, 4, 5]),
    ({"camera": ["1", "2"], "exclude_camera": "2"}, [1, 5]),
    ({"camera": "nowhere"}, []),
    ({"captured_after": "2024-05-01T05:00:00Z"}, [5, 6]),
    ({"captured_before": "2024-05-01T04:00:00+02:00"}, [0, 1]),
    ({"captured_before": "2024-05-01T02:00:00"}, [0, 1]),  # UTC, as in tables
    ({"captured_after": "2024-05-01T01:00:00Z", "captured_before": "2024-05-01T03:00:00Z"}, [1, 2]),
    ({"min_score": 0.9999}, [0]),
]


def test_filters_come_before_the_cut(client: httpx.Client, ids: list[str]) -> None:
    for filters, expected in FILTERS:
        found = found_ids(get(client, image_id=ids[0], **filters))
        assert sorted(found) == sorted(ids[number] for number in expected), filters
        assert found_ids(post(client, image_file(0), **filters)) == found
        assert found_ids(get(client, image_id=ids[0], top_k=1, **filters)) == found[:1]


def test_filters_in_json_are_lists(client: httpx.Client, ids: list[str]) -> None:
    body = {"gallery": "hall", "embedding": [1.0] * SIZE, "camera": ["1", "2"], "exclude_camera": ["2"]}
    assert sorted(found_ids(client.post("/search", json=body))) == sorted([ids[1], ids[5]])


def test_the_query_itself_can_be_left_out(client: httpx.Client, ids: list[str]) -> None:
    everything = found_ids(get(client, image_id=ids[0], top_k=4))
    assert everything[0] == ids[0]
    body = get(client, image_id=ids[0], top_k=3, exclude_self=True).json()
    assert [result["image_id"] for result in body["results"]] == everything[1:]
    assert [result["rank"] for result in body["results"]] == [1, 2, 3]


def test_several_images_are_fused(client: httpx.Client, ids: list[str], settings: Settings) -> None:
    vectors = embeddings(settings, [image_file(number) for number in range(COUNT)])
    queries = vectors[[2, 6]]
    mean = queries.mean(axis=0) / np.linalg.norm(queries.mean(axis=0))
    for fusion, scores in (("mean", vectors @ mean), ("max", (vectors @ queries.T).max(axis=1))):
        results = post(client, image_file(2), image_file(6), fusion=fusion, top_k=4).json()["results"]
        np.testing.assert_allclose([result["score"] for result in results], np.sort(scores)[::-1][:4], atol=1e-5)
    best = found_ids(post(client, image_file(2), image_file(6), fusion="max", top_k=2))
    assert sorted(best) == sorted([ids[2], ids[6]])


IMPOSSIBLE: list[tuple[dict[str, Any], int, str | None]] = [
    ({"gallery": "nobody"}, 404, None),
    ({"image_id": "img_nobody"}, 404, None),
    ({"top_k": 0}, 422, "/query/top_k"),
    ({"top_k": 1001}, 422, "/query/top_k"),
    ({"candidates": 1001}, 422, "/query/candidates"),
    ({"top_k": "many"}, 422, "/query/top_k"),
    ({"rerank": "qaconv"}, 422, "/query/rerank"),
    ({"rerank": "magic"}, 422, "/query/rerank"),
    ({"explain": "true"}, 422, "/query/explain"),
    ({"min_score": "nan"}, 422, "/query/min_score"),
    ({"captured_after": "yesterday"}, 422, "/query/captured_after"),
    ({"captured_after": "1714500000"}, 422, "/query/captured_after"),
    ({"captured_after": "0001-01-01T00:00:00+14:00"}, 422, "/query/captured_after"),
    ({"captured_after": "2024-05-02T00:00:00Z", "captured_before": "2024-05-01T00:00:00Z"}, 422, "/query"),
    ({"colour": "red"}, 422, "/query/colour"),
    ({"image_id": None}, 422, "/query/image_id"),
]


def test_impossible_questions_are_refused(client: httpx.Client, ids: list[str]) -> None:
    for parameters, status, pointer in IMPOSSIBLE:
        asked = {"gallery": "hall", "image_id": ids[0]} | parameters
        answer = client.get("/search", params={name: value for name, value in asked.items() if value is not None})
        assert (answer.status_code, bool(answer.json()["detail"])) == (status, True), parameters
        if pointer is not None:
            assert answer.json()["errors"][0]["pointer"] == pointer, parameters


def test_impossible_uploads_are_refused(client: httpx.Client, ids: list[str]) -> None:
    def outcome(answer: httpx.Response) -> tuple[int, str]:
        errors = answer.json()["errors"]
        return answer.status_code, errors[0]["pointer"] if errors else answer.json()["type"]

    assert outcome(post(client, b"no image")) == (415, "/problems/invalid-picture")
    assert outcome(post(client, image_file(1), b"no image")) == (415, "/problems/invalid-picture")
    assert outcome(post(client, *[image_file(1)] * 17)) == (413, "/problems/too-large")
    assert outcome(client.post("/search?gallery=hall", files={"images": image_file(1)})) == (422, "/images")
    assert outcome(client.post("/search", files={"gallery": (None, "hall")})) == (422, "/image")
    assert outcome(client.post("/search", files={"image": image_file(1)})) == (422, "/gallery")
    assert outcome(post(client, image_file(1), top_k="0")) == (422, "/top_k")
    assert outcome(post(client, image_file(1), top_k=["1", "2"])) == (422, "/top_k")
    assert outcome(post(client, image_file(1), rerank="qaconv")) == (422, "/rerank")
    twice = client.post("/search?gallery=hall", data={"gallery": "hall"}, files={"image": image_file(1)})
    assert outcome(twice) == (422, "/gallery")
    assert outcome(client.post("/search?gallery=hall&colour=red", files={"image": image_file(1)})) == (
        422,
        "/query/colour",
    )
    assert client.post("/search", content=b"x", headers={"Content-Type": "image/png"}).status_code == 415


NOWHERE: list[tuple[Any, str | None]] = [
    ([1.0] * (SIZE - 1), "/embedding"),
    ([], "/embedding"),
    ("none", "/embedding"),
    ([0.0] * SIZE, None),
    (["x"] * SIZE, "/embedding/0"),
]


def test_embeddings_that_point_nowhere_are_refused(client: httpx.Client, ids: list[str]) -> None:
    for embedding, pointer in NOWHERE:
        answer = client.post("/search", json={"gallery": "hall", "embedding": embedding})
        assert answer.status_code == 422, answer.text
        if pointer is not None:
            assert answer.json()["errors"][0]["pointer"] == pointer


def test_the_length_of_an_embedding_does_not_matter(client: httpx.Client, ids: list[str]) -> None:
    asked = [{"gallery": "hall", "embedding": [length] * SIZE} for length in (1.0, 1e-300, 1e-9, 1e9, 1e300)]
    first, *others = (client.post("/search", json=body).json()["results"] for body in asked)
    for other in others:
        assert [result["score"] for result in other] == pytest.approx([result["score"] for result in first])


def test_json_that_is_no_number_is_refused(client: httpx.Client, ids: list[str]) -> None:
    numbers = ", ".join(["NaN"] * SIZE)
    content = f'{{"gallery": "hall", "embedding": [{numbers}]}}'
    answer = client.post("/search", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    for body in ("[]", "null", '"hall"', "{"):
        refused = client.post("/search", content=body, headers={"Content-Type": "application/json"})
        assert refused.status_code in (400, 422), body


def test_a_gallery_without_images_has_nothing_to_search(client: httpx.Client) -> None:
    make_gallery(client)
    answer = post(client, image_file(1))
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/no-index")
    assert "POST /galleries/" in answer.json()["hint"]


def test_searching_changes_nothing_but_the_audit_log(
    client: httpx.Client, ids: list[str], settings: Settings, database: Database
) -> None:
    gallery = client.get("/galleries/hall").json()
    files = {path: path.read_bytes() for path in settings.galleries_dir.rglob("*") if path.is_file()}
    search = get(client, image_id=ids[0]).json()["search_id"]
    post(client, image_file(99))
    assert client.get("/galleries/hall").json() == gallery
    assert {path: path.read_bytes() for path in settings.galleries_dir.rglob("*") if path.is_file()} == files
    assert len(client.get("/audit?action=search").json()["items"]) == 2
    with database.read() as session:
        entries = session.query(AuditEntry).filter_by(action="search").order_by(AuditEntry.id).all()
    assert (entries[0].target, entries[0].detail) == (gallery["id"], {"search_id": search})
    assert entries[0].key_id is not None


def test_a_model_whose_files_are_damaged_is_told(
    client: httpx.Client, ids: list[str], database: Database, settings: Settings
) -> None:
    add_model_row(database, "mdl_2", "broken")
    make_gallery(client, name="other", model="broken")
    answer = upload(client, "other", [image_file(1)])
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/weights-unusable")
    (settings.models_dir / "mdl_2").symlink_to(settings.models_dir / MODEL_ID)
    assert upload(client, "other", [image_file(1)]).status_code == 201
