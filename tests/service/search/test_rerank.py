"""Re-ranked searches order the candidates of the first stage by the better scores, and say what they cannot do."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from reid_core.reranking import Reciprocal, rerank_embeddings
from service.db.session import Database
from service.settings import Settings
from tests.processors import INT16
from tests.service.galleries.stock import (
    add_model_row,
    added_ids,
    found_ids,
    image_file,
    make_gallery,
    save_tiny_model,
    upload,
)
from tests.service.search.conftest import COUNT
from tests.service.search.stock import (
    EMBEDDING_SIZE,
    MATCHER_ID,
    METHOD,
    encode,
    match,
    save_matching_model,
    scene,
    sigmoid,
)

pytestmark = pytest.mark.usefixtures("scores_in_fp32")

SCENES = [scene(number) for number in range(COUNT)]
STORED = 2e-3
"""Maps are stored in half precision, the query's own come fresh from the network."""


def get(client: httpx.Client, **parameters: Any) -> httpx.Response:
    return client.get("/search", params={"gallery": "hall", **parameters})


def post(client: httpx.Client, *contents: bytes, **fields: Any) -> httpx.Response:
    files = [("image", (f"{number}.png", content)) for number, content in enumerate(contents)]
    return client.post("/search", data={"gallery": "hall", **fields}, files=files)


def results(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    shown: list[dict[str, Any]] = answer.json()["results"]
    return shown


def reordered(cosines: np.ndarray, logits: np.ndarray, candidates: int) -> list[int]:
    """Places of the first `candidates` by cosine, by logit; equal ones as they were."""
    first = np.argsort(-cosines, kind="stable")[:candidates]
    return [int(place) for place in first[np.argsort(-logits[first], kind="stable")]]


def test_candidates_are_ordered_by_the_matcher(client: httpx.Client, ids: list[str], settings: Settings) -> None:
    vectors, maps = encode(settings, MATCHER_ID, SCENES)
    logits = match(settings, maps[3:4].half(), maps.half())[0]
    body = get(client, image_id=ids[3], rerank="qaconv", top_k=COUNT).json()
    order = reordered(vectors @ vectors[3], logits, COUNT)
    assert order != reordered(vectors @ vectors[3], vectors @ vectors[3], COUNT)
    assert [result["image_id"] for result in body["results"]] == [ids[place] for place in order]
    np.testing.assert_allclose([one["score"] for one in body["results"]], sigmoid(logits)[order], atol=1e-5)
    assert (body["reranker"], body["rerank"]) == (MATCHER_ID, "qaconv")
    assert body["timings_ms"]["rerank"] > 0
    assert [one["rank"] for one in body["results"]] == list(range(1, COUNT + 1))


@pytest.mark.parametrize("products", ["bf16", INT16])
def test_what_a_cpu_takes_by_itself_changes_scores_by_rounding_alone(
    client: httpx.Client, ids: list[str], monkeypatch: pytest.MonkeyPatch, products: str
) -> None:
    def scores() -> dict[str, float]:
        asked = results(get(client, image_id=ids[3], rerank="qaconv", top_k=COUNT))
        return {one["image_id"]: one["score"] for one in asked}

    exact = scores()
    monkeypatch.setattr("reid_core.matching.scores._fastest", lambda maps: products)
    rounded = scores()
    assert rounded != exact
    assert rounded == pytest.approx(exact, abs=1e-2)


def test_the_first_stage_stays_to_be_seen(client: httpx.Client, ids: list[str]) -> None:
    first = {one["image_id"]: one for one in results(get(client, image_id=ids[3], top_k=COUNT))}
    for rerank in ("qaconv", "k_reciprocal"):
        reranked = results(get(client, image_id=ids[3], top_k=COUNT, rerank=rerank))
        assert {one["image_id"] for one in reranked} == set(first)
        for one in reranked:
            before = first[one["image_id"]]
            assert (one["retrieval_rank"], one["retrieval_score"]) == (before["rank"], before["score"])


def test_every_way_of_asking_finds_the_same(client: httpx.Client, ids: list[str], settings: Settings) -> None:
    stored = results(get(client, image_id=ids[5], rerank="qaconv"))
    make_gallery(client, name="other", model="matcher")
    (copy,) = added_ids(upload(client, "other", [SCENES[5]]))
    for answer in (post(client, SCENES[5], rerank="qaconv"), get(client, image_id=copy, rerank="qaconv")):
        asked = results(answer)
        assert [one["image_id"] for one in asked] == [one["image_id"] for one in stored]
        np.testing.assert_allclose([one["score"] for one in asked], [one["score"] for one in stored], atol=STORED)


def test_only_candidates_are_looked_at_but_never_fewer_than_results(client: httpx.Client, ids: list[str]) -> None:
    first = found_ids(get(client, image_id=ids[0], top_k=COUNT))
    for rerank in ("qaconv", "k_reciprocal"):
        asked = found_ids(get(client, image_id=ids[0], rerank=rerank, candidates=5, top_k=2))
        assert set(asked) <= set(first[:5])
        five = found_ids(get(client, image_id=ids[0], rerank=rerank, candidates=5, top_k=5))
        assert (sorted(five), five[:2]) == (sorted(first[:5]), asked)
        assert found_ids(get(client, image_id=ids[0], rerank=rerank, candidates=1, top_k=5)) == five


def test_filters_come_before_the_candidates(client: httpx.Client, ids: list[str]) -> None:
    for rerank in ("qaconv", "k_reciprocal"):
        asked = found_ids(get(client, image_id=ids[0], rerank=rerank, camera=["1", "2"], candidates=8))
        assert sorted(asked) == sorted(one for number, one in enumerate(ids) if number % 3)
        assert found_ids(get(client, image_id=ids[0], rerank=rerank, camera="nowhere")) == []
        others = found_ids(get(client, image_id=ids[0], rerank=rerank, exclude_self=True, candidates=3, top_k=3))
        first = found_ids(get(client, image_id=ids[0], exclude_self=True, top_k=3))
        assert (sorted(others), ids[0] in others) == (sorted(first), False)


def test_the_lowest_score_is_of_what_ranks(client: httpx.Client, ids: list[str]) -> None:
    for rerank in ("qaconv", "k_reciprocal"):
        everything = results(get(client, image_id=ids[0], rerank=rerank, top_k=COUNT))
        lowest = everything[4]["score"]
        kept = results(get(client, image_id=ids[0], rerank=rerank, top_k=COUNT, min_score=lowest))
        assert kept == [one for one in everything if one["score"] >= lowest]
        assert 5 <= len(kept) < COUNT


def test_scores_of_several_images_are_fused(client: httpx.Client, ids: list[str], settings: Settings) -> None:
    _, maps = encode(settings, MATCHER_ID, SCENES)
    pairs = match(settings, maps[[2, 6]], maps.half())
    for fusion, logits in (("mean", pairs.mean(axis=0)), ("max", pairs.max(axis=0))):
        asked = results(post(client, SCENES[2], SCENES[6], fusion=fusion, rerank="qaconv", top_k=COUNT))
        order = np.argsort(-logits, kind="stable")
        assert [one["image_id"] for one in asked] == [ids[place] for place in order]
        np.testing.assert_allclose([one["score"] for one in asked], sigmoid(logits)[order], atol=1e-4)


def test_another_model_may_rerank(client: httpx.Client, database: Database, settings: Settings, ids: list[str]) -> None:
    save_tiny_model(settings.models_dir / "mdl_tiny")
    add_model_row(database, "mdl_tiny")
    make_gallery(client, name="two", model="tiny", reranker="matcher")
    new = added_ids(upload(client, "two", SCENES))
    logits = match(settings, encode(settings, MATCHER_ID, [scene(50)])[1], encode(settings, MATCHER_ID, SCENES)[1])[0]
    fields = {"gallery": "two", "rerank": "qaconv", "top_k": COUNT}
    body = client.post("/search", data=fields, files={"image": scene(50)}).json()
    order = np.argsort(-logits, kind="stable")
    assert [one["image_id"] for one in body["results"]] == [new[place] for place in order]
    np.testing.assert_allclose([one["score"] for one in body["results"]], sigmoid(logits)[order], atol=STORED)
    assert (body["model"], body["reranker"]) == ("mdl_tiny", MATCHER_ID)


def test_saturated_scores_still_rank(client: httpx.Client, database: Database, settings: Settings) -> None:
    save_matching_model(settings.models_dir / "mdl_sure", head_scale=1000)
    add_model_row(database, "mdl_sure", "sure", method=METHOD, size=EMBEDDING_SIZE)
    make_gallery(client, model="sure")
    ids = added_ids(upload(client, "hall", [*SCENES, SCENES[4]]))
    maps = encode(settings, "mdl_sure", [*SCENES, SCENES[4]])[1].half()
    logits = match(settings, maps[:1], maps, "mdl_sure")[0]
    asked = results(get(client, image_id=ids[0], rerank="qaconv", top_k=COUNT + 1))
    probabilities = [one["score"] for one in asked]
    assert len({*probabilities}) < len({*logits.round(6)})  # some are the same number by now
    places = {one: place for place, one in enumerate(ids)}
    found = [logits[places[one["image_id"]]] for one in asked]
    assert found == pytest.approx(sorted(logits, reverse=True), rel=1e-5)
    assert [one["image_id"] for one in asked if one["image_id"] in (ids[4], ids[-1])] == [ids[4], ids[-1]]


def test_neighbours_of_candidates_count(client: httpx.Client, ids: list[str], settings: Settings) -> None:
    vectors, _ = encode(settings, MATCHER_ID, SCENES)
    first = np.argsort(-(vectors @ vectors[1]), kind="stable")[:8]
    scores = rerank_embeddings(vectors[1:2], vectors[first], Reciprocal()).scores(0, 1)[0].numpy()
    asked = results(get(client, image_id=ids[1], rerank="k_reciprocal", candidates=8, top_k=8))
    np.testing.assert_allclose([one["score"] for one in asked], np.sort(scores)[::-1], atol=1e-5)
    by_id = {ids[place]: score for place, score in zip(first, scores, strict=True)}
    np.testing.assert_allclose([by_id[one["image_id"]] for one in asked], np.sort(scores)[::-1], atol=1e-5)


def test_an_embedding_may_be_reranked_by_neighbours_only(
    client: httpx.Client, ids: list[str], settings: Settings
) -> None:
    vectors, _ = encode(settings, MATCHER_ID, SCENES)
    body = {"gallery": "hall", "embedding": vectors[2].tolist(), "rerank": "k_reciprocal"}
    assert found_ids(client.post("/search", json=body)) == found_ids(
        get(client, image_id=ids[2], rerank="k_reciprocal")
    )
    for name, value in (("rerank", "qaconv"), ("explain", True)):
        refused = client.post("/search", json={**body, name: value})
        problem = refused.json()
        assert (refused.status_code, problem["errors"][0]["pointer"]) == (422, f"/{name}")
        assert "image" in problem["hint"]


@pytest.mark.usefixtures("matcher")
def test_a_gallery_without_maps_says_what_to_do(client: httpx.Client) -> None:
    make_gallery(client, model="matcher", maps="none")
    (image,) = added_ids(upload(client, "hall", [image_file(1)]))
    for name, value in (("rerank", "qaconv"), ("explain", "true")):
        refused = get(client, image_id=image, **{name: value})
        problem = refused.json()
        assert (refused.status_code, problem["errors"][0]["pointer"]) == (422, f"/query/{name}")
        assert "reranker" in problem["hint"]
    assert found_ids(get(client, image_id=image, rerank="k_reciprocal")) == [image]


def test_what_is_erased_is_not_reranked(client: httpx.Client, ids: list[str]) -> None:
    before = found_ids(get(client, image_id=ids[0], rerank="qaconv", top_k=COUNT))
    client.delete(f"/galleries/hall/images/{before[1]}")
    after = found_ids(get(client, image_id=ids[0], rerank="qaconv", top_k=COUNT))
    assert after == [one for one in before if one != before[1]]
