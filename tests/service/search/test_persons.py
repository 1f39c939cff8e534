"""Searches by person and pages of results, against a plain comparison with everything."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from reid_core.calibration.curves import Curve
from reid_core.calibration.folds import HeldOutFit
from reid_core.calibration.persons import posterior
from reid_core.calibration.record import FILE_NAME, Calibration, write_calibrations
from reid_core.calibration.shift import describe_origin
from reid_core.data.records import DISTRACTOR
from service.errors import Problem
from service.search.queries import validate_query
from service.search.rows import SearchedGallery
from service.search.schemas import ImageQuery
from service.settings import Settings
from tests.service.galleries.stock import added_ids, make_gallery, upload
from tests.service.search.stock import MATCHER_ID, encode, scene

pytestmark = pytest.mark.usefixtures("scores_in_fp32")

LABELS = [None, DISTRACTOR, None] + [f"p{number % 7}" for number in range(29)]
SCENES = [scene(number) for number in range(len(LABELS))]
CURVE = Curve("logistic", (-1.0, 1.0), (-10.0, 10.0))


@pytest.fixture
def ids(client: httpx.Client, matcher: Any) -> list[str]:
    """The gallery `hall`: seven people of four or five images each, and three images that show nobody."""
    make_gallery(client, model="matcher")
    labels = [{"camera": str(number % 2), "identity": label} for number, label in enumerate(LABELS)]
    return added_ids(upload(client, "hall", SCENES, labels))


def found(client: httpx.Client, **parameters: Any) -> dict[str, Any]:
    answer = client.get("/search", params={"gallery": "hall", **parameters})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def grouped(client: httpx.Client, **parameters: Any) -> list[dict[str, Any]]:
    body = found(client, group_by="identity", **parameters)
    assert body["results"] == []
    groups: list[dict[str, Any]] = body["groups"]
    return groups


Persons = list[tuple[float, str | None, list[str]]]


def expected_persons(settings: Settings, ids: list[str], query: int, camera: str | None = None) -> Persons:
    """(score, identity, ids best first) of every person, best first."""
    vectors = encode(settings, MATCHER_ID, SCENES)[0]
    scores = vectors @ vectors[query]
    of_person: dict[Any, list[int]] = {}
    for number, label in enumerate(LABELS):
        if camera is None or str(number % 2) == camera:
            of_person.setdefault(number if label in (None, DISTRACTOR) else label, []).append(number)
    return sorted(
        (
            (
                float(scores[numbers].mean()),
                key if isinstance(key, str) else None,
                [ids[number] for number in sorted(numbers, key=lambda number: -scores[number])],
            )
            for key, numbers in of_person.items()
        ),
        key=lambda person: -person[0],
    )


@pytest.mark.parametrize("candidates", [1, 5, 100])
@pytest.mark.parametrize("camera", [None, "1"])
def test_persons_score_the_mean_of_all_their_images(
    client: httpx.Client, ids: list[str], settings: Settings, candidates: int, camera: str | None
) -> None:
    asked = {"camera": camera} if camera else {}
    groups = grouped(client, image_id=ids[5], top_k=10, group_size=2, candidates=candidates, **asked)
    expected = expected_persons(settings, ids, 5, camera)[:10]
    assert [group["identity"] for group in groups] == [identity for _, identity, _ in expected]
    np.testing.assert_allclose([group["score"] for group in groups], [score for score, _, _ in expected], atol=1e-5)
    for group, (_, _, images) in zip(groups, expected, strict=True):
        assert [result["image_id"] for result in group["results"]] == images[:2]
    assert [group["rank"] for group in groups] == list(range(1, len(expected) + 1))
    shown = [result for group in groups for result in group["results"]]
    assert [result["rank"] for result in shown] == list(range(1, len(shown) + 1))


def test_as_many_persons_come_back_as_are_asked_for(client: httpx.Client, ids: list[str]) -> None:
    for top_k in range(1, 11):
        for rerank in ("none", "qaconv", "k_reciprocal"):
            groups = grouped(client, image_id=ids[5], top_k=top_k, candidates=1, rerank=rerank)
            assert len(groups) == top_k
            labels = [group["identity"] for group in groups if group["identity"]]
            assert len(labels) == len(set(labels))
    assert len(grouped(client, image_id=ids[5], top_k=500)) == 10


def test_the_querys_own_image_may_be_left_out(client: httpx.Client, ids: list[str]) -> None:
    (group,) = grouped(client, image_id=ids[3], top_k=1, exclude_self=True, candidates=32)[:1]
    groups = grouped(client, image_id=ids[3], exclude_self=True, group_size=20)
    every = [result["image_id"] for one in groups for result in one["results"]]
    assert ids[3] not in every
    assert len(every) == len(ids) - 1
    assert group["results"][0]["image_id"] != ids[3]


@pytest.mark.parametrize("rerank", ["qaconv", "k_reciprocal"])
def test_re_ranked_persons_score_as_their_best_image(client: httpx.Client, ids: list[str], rerank: str) -> None:
    groups = grouped(client, image_id=ids[5], rerank=rerank, group_size=20)
    results = found(client, image_id=ids[5], rerank=rerank, top_k=100)["results"]
    best: dict[Any, float] = {}
    for result in results:
        nobody = result["identity"] in (None, DISTRACTOR)
        best.setdefault(result["image_id"] if nobody else result["identity"], result["score"])
    assert [group["score"] for group in groups] == list(best.values())[:10]
    assert groups[0]["results"][0]["image_id"] == results[0]["image_id"]


def test_persons_follow_their_labels(client: httpx.Client, ids: list[str]) -> None:
    before = grouped(client, image_id=ids[5], top_k=20)
    client.patch("/galleries/hall/identities/p1", json={"identity": "p2"})
    client.patch(f"/galleries/hall/images/{ids[0]}", json={"identity": "p3"})
    after = grouped(client, image_id=ids[5], top_k=20, group_size=20)
    assert len(after) == len(before) - 2
    sizes = {group["identity"]: len(group["results"]) for group in after if group["identity"]}
    assert (sizes["p2"], sizes["p3"], "p1" in sizes) == (8, 5, False)


def test_a_least_score_is_about_persons(client: httpx.Client, ids: list[str]) -> None:
    groups = grouped(client, image_id=ids[5], top_k=20)
    least = groups[3]["score"]
    assert grouped(client, image_id=ids[5], top_k=20, min_score=least - 1e-6) == groups[:4]


def test_probabilities_of_persons_are_those_of_one_among_all(
    client: httpx.Client, ids: list[str], settings: Settings
) -> None:
    assert "probability" not in grouped(client, image_id=ids[5])[0]
    keep_calibration(settings, persons=False)
    assert "probability" not in grouped(client, image_id=ids[5])[0]
    refused = client.get("/search", params={"gallery": "hall", "image_id": ids[5], "group_by": "identity", "far": 0.3})
    assert (refused.status_code, "of persons" in refused.json()["detail"]) == (409, True)

    keep_calibration(settings, persons=True)
    body = found(client, image_id=ids[5], group_by="identity", top_k=4, min_probability=0.5)
    scores = [score for score, _, _ in expected_persons(settings, ids, 5)]
    expected = posterior(CURVE.evidence(scores), 10, 0.5)
    np.testing.assert_allclose([group["probability"] for group in body["groups"]], expected[:4], rtol=1e-3)
    assert body["prior"] == pytest.approx(0.05)
    assert body["verdict"] in ("match", "unknown")
    asked = {"group_by": "identity", "rerank": "qaconv", "min_probability": 0.5}
    assert client.get("/search", params={"gallery": "hall", "image_id": ids[5], **asked}).status_code == 422


def test_strangers_reach_a_persons_threshold_as_often_as_asked(
    client: httpx.Client, ids: list[str], settings: Settings
) -> None:
    keep_calibration(settings, persons=True)
    best = []
    for number, image in enumerate(ids):
        if LABELS[number] in (None, DISTRACTOR):
            continue
        groups = grouped(client, image_id=image, top_k=20)
        best.append(max(one["score"] for one in groups if one["identity"] not in (None, LABELS[number])))
    body = found(client, image_id=ids[5], group_by="identity", far=0.3)
    share = np.mean(np.array(best) >= body["threshold"] - 1e-9)
    assert 0.05 <= share <= 0.6  # of 29 probes among seven people


@pytest.mark.parametrize("asked", [{}, {"rerank": "k_reciprocal"}, {"group_by": "identity"}, {"camera": "1"}])
def test_pages_are_what_one_long_answer_holds(client: httpx.Client, ids: list[str], asked: dict[str, str]) -> None:
    name = "groups" if "group_by" in asked else "results"
    whole = found(client, image_id=ids[5], top_k=40, **asked)[name]
    pages: list[Any] = []
    while True:
        page = found(client, image_id=ids[5], top_k=3, offset=len(pages), **asked)[name]
        pages += page
        if len(page) < 3:
            break
    assert [(one["rank"], one["score"]) for one in pages] == [(one["rank"], one["score"]) for one in whole]
    if name == "results":
        assert [one["image_id"] for one in pages] == [one["image_id"] for one in whole]


def test_the_verdict_of_a_later_page_is_about_the_best_result(
    client: httpx.Client, ids: list[str], settings: Settings
) -> None:
    keep_calibration(settings, persons=True)
    first = found(client, image_id=ids[5], min_probability=0.5, top_k=4, offset=0)
    later = found(client, image_id=ids[5], min_probability=0.5, top_k=4, offset=4)
    assert first["verdict"] == later["verdict"]
    whole = found(client, image_id=ids[5], top_k=8)["results"]
    assert [one["probability"] for one in later["results"]] == [one["probability"] for one in whole[4:]]


def test_an_explanation_of_a_later_page_is_drawn(client: httpx.Client, ids: list[str]) -> None:
    later = found(client, image_id=ids[5], top_k=2, offset=2, explain=True)["results"]
    assert later[0]["rank"] == 3
    drawn = client.get(later[0]["links"]["explanation"])
    assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/png")
    group = grouped(client, image_id=ids[5], top_k=2, explain=True)[1]
    assert client.get(group["results"][0]["links"]["explanation"]).status_code == 200


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"offset": 10_001}, "too-large"),
        ({"offset": 95, "rerank": "k_reciprocal"}, "beyond-candidates"),
        ({"offset": 95, "group_by": "identity"}, "beyond-candidates"),
        ({"offset": -1}, "greater_than_equal"),
        ({"group_by": "camera"}, "literal_error"),
        ({"group_by": "identity", "group_size": 21}, "less_than_equal"),
    ],
)
def test_what_cannot_be_paged_or_grouped_is_refused(
    client: httpx.Client, ids: list[str], asked: dict[str, Any], code: str
) -> None:
    answer = client.get("/search", params={"gallery": "hall", "image_id": ids[5], **asked})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["code"] == code
    assert found(client, image_id=ids[5], offset=10_000)["results"] == []


def test_the_images_of_persons_are_explained_and_have_no_probability_of_their_own(
    client: httpx.Client, ids: list[str], settings: Settings
) -> None:
    keep_calibration(settings, persons=True)
    groups = grouped(client, image_id=ids[5], explain=True, top_k=2, group_size=3)
    shown = [image for group in groups for image in group["results"]]
    assert len(shown) > len(groups)
    assert all(image["correspondences"] for image in shown)
    assert client.get(shown[-1]["links"]["explanation"]).headers["content-type"] == "image/png"


def test_so_many_persons_and_images_at_once_are_refused(settings: Settings) -> None:
    gallery = SearchedGallery("gal_1", "hall", 1, 1, "mdl_1", None, None, 4)
    many = settings.model_copy(update={"max_top_k": 10_000})
    validate_query(ImageQuery(gallery="hall", group_by="identity", top_k=10_000, group_size=2), gallery, many)
    with pytest.raises(Problem, match="together more than"):
        validate_query(ImageQuery(gallery="hall", group_by="identity", top_k=10_000), gallery, many)


def keep_calibration(settings: Settings, *, persons: bool) -> None:
    vectors = encode(settings, MATCHER_ID, SCENES)[0]
    fit = HeldOutFit(CURVE, {}, 0.0, ())
    origin = describe_origin(vectors, np.arange(len(SCENES)) // 2)
    kept = {"none": Calibration("none", fit, origin, {}, fit if persons else None)}
    made = settings.models_dir / MATCHER_ID / "new"
    write_calibrations(made, kept)
    made.replace(settings.models_dir / MATCHER_ID / FILE_NAME)
