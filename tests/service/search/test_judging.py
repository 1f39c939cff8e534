"""Searches say how probable their results are, give a verdict, and warn where a calibration does not fit."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from reid_core.calibration.curves import Curve, probability
from reid_core.calibration.folds import HeldOutFit
from reid_core.calibration.record import FILE_NAME, Calibration, write_calibrations
from reid_core.calibration.shift import Mean, Origin, Summary, describe_origin
from service.db.session import Database
from service.search.strangers import count_probes
from service.settings import Settings
from tests.service.galleries.stock import added_ids, make_gallery, upload
from tests.service.search.stock import EMBEDDING_SIZE, MATCHER_ID, encode, scene

pytestmark = pytest.mark.usefixtures("scores_in_fp32")

PEOPLE = 15
SCENES = [scene(number) for number in range(2 * PEOPLE)]
CURVES = {
    "none": Curve("logistic", (-1.0, 1.0), (-20.0, 20.0)),
    "qaconv": Curve("logistic", (-10.0, 10.0), (-5.0, 5.0)),
    "k_reciprocal": Curve("isotonic", (0.0, 0.5, 1.0), (-4.0, 0.0, 6.0)),
}


@pytest.fixture
def ids(client: httpx.Client, matcher: Any) -> list[str]:
    """The gallery `hall`: fifteen people, two images of each."""
    make_gallery(client, model="matcher")
    metadata = [{"identity": f"p{number // 2}", "camera": str(number % 2)} for number in range(len(SCENES))]
    return added_ids(upload(client, "hall", SCENES, metadata))


def keep_calibrations(settings: Settings, origin: Origin | None = None, *names: str) -> None:
    """Calibrations by `CURVES` whose people are those of `hall`, unless another origin is given."""
    vectors = encode(settings, MATCHER_ID, SCENES)[0]
    origin = origin or describe_origin(vectors, np.arange(len(SCENES)) // 2)
    kept = {
        name: Calibration(name, HeldOutFit(CURVES[name], {}, 0.0, ()), origin, {}) for name in names or tuple(CURVES)
    }
    made = settings.models_dir / MATCHER_ID / "new"
    write_calibrations(made, kept)
    made.replace(settings.models_dir / MATCHER_ID / FILE_NAME)


def get(client: httpx.Client, **parameters: Any) -> httpx.Response:
    return client.get("/search", params={"gallery": "hall", **parameters})


def found(client: httpx.Client, **parameters: Any) -> dict[str, Any]:
    answer = get(client, **parameters)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_without_a_calibration_nothing_is_said_and_a_verdict_is_refused_with_the_job(
    client: httpx.Client, ids: list[str], settings: Settings
) -> None:
    body = found(client, image_id=ids[0])
    assert not {"verdict", "prior", "threshold", "warning"} & body.keys()
    assert "probability" not in body["results"][0]
    keep_calibrations(settings, None, "none")
    for asked in ({"min_probability": 0.9}, {"far": 0.01}):
        refused = get(client, image_id=ids[0], rerank="qaconv", **asked)
        assert refused.status_code == 409
        assert '"kind": "calibrate"' in refused.json()["hint"]
        assert '"rerank": "qaconv"' in refused.json()["hint"]
        assert get(client, image_id=ids[0], **asked).status_code == 200


@pytest.mark.parametrize("rerank", list(CURVES))
def test_a_probability_follows_from_the_score_and_the_number_of_people(
    client: httpx.Client, ids: list[str], settings: Settings, rerank: str
) -> None:
    keep_calibrations(settings)
    body = found(client, image_id=ids[3], rerank=rerank, top_k=20)
    assert body["prior"] == pytest.approx(0.5 / PEOPLE)
    scores = np.array([result["score"] for result in body["results"]])
    values = np.log(scores) - np.log1p(-scores) if rerank == "qaconv" else scores
    expected = probability(CURVES[rerank].evidence(values), 0.5 / PEOPLE)
    shown = [result["probability"] for result in body["results"]]
    np.testing.assert_allclose(shown, expected, rtol=1e-6)
    assert shown == sorted(shown, reverse=True)
    assert "verdict" not in body
    assert body["timings_ms"]["judge"] >= 0


def test_images_without_a_person_count_as_one_each(client: httpx.Client, ids: list[str], settings: Settings) -> None:
    keep_calibrations(settings)
    metadata = [{"identity": "0000"}, {}, {"identity": "p3"}]
    added_ids(upload(client, "hall", [scene(100 + number) for number in range(3)], metadata))
    assert found(client, image_id=ids[3])["prior"] == pytest.approx(0.5 / (PEOPLE + 2))


def test_few_candidates_of_many_images_leave_fewer_people_to_choose_from(
    client: httpx.Client, ids: list[str], settings: Settings
) -> None:
    keep_calibrations(settings)
    body = found(client, image_id=ids[3], rerank="k_reciprocal", candidates=6, top_k=3)
    assert body["prior"] == pytest.approx(0.5 / (PEOPLE * 6 / len(ids)))


@pytest.mark.parametrize(
    ("least", "verdict"),
    [(0.65, "match"), (0.75, "unsure"), (0.25, "match"), (0.95, "unsure"), (0.5, "match")],
)
def test_a_verdict_by_a_probability_of_seven_tenths(
    client: httpx.Client, ids: list[str], settings: Settings, least: float, verdict: str
) -> None:
    keep_at_best(client, ids, settings, 0.7)
    assert found(client, image_id=ids[0], exclude_self=True, min_probability=least)["verdict"] == verdict


@pytest.mark.parametrize(
    ("least", "verdict"),
    [(0.15, "match"), (0.25, "unknown"), (0.5, "unknown"), (0.75, "unknown"), (0.85, "unsure")],
)
def test_a_verdict_by_a_probability_of_two_tenths(
    client: httpx.Client, ids: list[str], settings: Settings, least: float, verdict: str
) -> None:
    keep_at_best(client, ids, settings, 0.2)
    assert found(client, image_id=ids[0], exclude_self=True, min_probability=least)["verdict"] == verdict
    nothing = found(client, image_id=ids[0], camera="nowhere", min_probability=least)
    assert (nothing["verdict"], nothing["results"]) == ("unknown", [])


def keep_at_best(client: httpx.Client, ids: list[str], settings: Settings, wanted: float) -> None:
    """A calibration that gives the best other image of the first person this probability."""
    score = found(client, image_id=ids[0], exclude_self=True)["results"][0]["score"]
    prior = 0.5 / PEOPLE
    evidence = float(np.log(wanted / (1 - wanted)) - np.log(prior / (1 - prior)))
    curve = Curve("logistic", (score - 1, score + 1), (evidence - 1, evidence + 1))
    vectors = encode(settings, MATCHER_ID, SCENES)[0]
    origin = describe_origin(vectors, np.arange(len(SCENES)) // 2)
    calibration = Calibration("none", HeldOutFit(curve, {}, 0.0, ()), origin, {})
    write_calibrations(settings.models_dir / MATCHER_ID / FILE_NAME, {"none": calibration})
    answer = found(client, image_id=ids[0], exclude_self=True)["results"][0]
    assert answer["probability"] == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("rerank", list(CURVES))
def test_a_threshold_is_what_so_many_of_the_gallerys_own_people_reach_among_the_others(
    client: httpx.Client, ids: list[str], settings: Settings, rerank: str
) -> None:
    keep_calibrations(settings)
    asked = {"rerank": rerank, "top_k": len(ids)}
    best = []
    for number, image in enumerate(ids):
        others = [
            one for one in found(client, image_id=image, **asked)["results"] if one["identity"] != f"p{number // 2}"
        ]
        best.append(max(one["score"] for one in others))
    body = found(client, image_id=ids[0], far=0.3, **asked)
    share = np.mean(np.array(best) >= body["threshold"] - 1e-9)
    assert 0.1 <= share <= 0.5  # thirty probes
    assert body["verdict"] in ("match", "unsure", "unknown")
    assert found(client, image_id=ids[0], far=0.1, **asked)["threshold"] >= body["threshold"]


def test_a_stricter_rate_turns_a_match_into_doubt(client: httpx.Client, ids: list[str], settings: Settings) -> None:
    keep_calibrations(settings)
    alike = found(client, image_id=ids[0], far=0.05)
    assert (alike["results"][0]["image_id"], alike["verdict"]) == (ids[0], "match")
    stranger = client.post(
        "/search", data={"gallery": "hall", "far": 0.05}, files=[("image", ("q.png", scene(999)))]
    ).json()
    assert stranger["verdict"] in ("unsure", "unknown")
    probability = found(client, image_id=ids[0])["results"][0]["probability"]
    keep_at_best(client, ids, settings, 0.7)
    both = [found(client, image_id=ids[0], far=0.05, min_probability=least)["verdict"] for least in (0.75, 0.8, 0.9)]
    assert probability > 0.9
    assert "unknown" not in both


def test_rates_that_the_gallery_cannot_tell_are_refused(
    client: httpx.Client, ids: list[str], settings: Settings, database: Database
) -> None:
    keep_calibrations(settings)
    refused = get(client, image_id=ids[0], far=0.0001)
    assert refused.status_code == 422
    assert (refused.json()["errors"][0]["pointer"], refused.json()["errors"][0]["code"]) == ("/query/far", "too-low")
    assert "30 images of 15 people tell rates from 0.0072 on" in refused.json()["detail"]

    make_gallery(client, name="unnamed", model="matcher")
    added_ids(upload(client, "unnamed", SCENES[:4]))
    refused = client.get("/search", params={"gallery": "unnamed", "image_id": ids[0], "far": 0.1})
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "too-few-people")
    for wrong in ({"far": 0}, {"far": 0.6}, {"min_probability": 1}, {"min_probability": 0}):
        assert get(client, image_id=ids[0], **wrong).status_code == 422


@pytest.mark.parametrize(("images", "probes"), [(0, 1000), (1000, 1000), (10**6, 268), (10**8, 200)])
def test_a_large_gallery_is_probed_by_fewer_images(images: int, probes: int) -> None:
    assert count_probes(images) == probes


def test_a_gallery_unlike_the_calibration_is_warned_of(
    client: httpx.Client, ids: list[str], settings: Settings
) -> None:
    keep_calibrations(settings)
    assert "warning" not in found(client, image_id=ids[0])
    elsewhere = Origin(Summary(Mean(-np.ones(EMBEDDING_SIZE) / EMBEDDING_SIZE**0.5, 1e-3, 50)), 2.0, 4.0)
    keep_calibrations(settings, elsewhere)
    warning = found(client, image_id=ids[0])["warning"]
    assert warning["code"] == "gallery-unlike-calibration"
    assert "not to be believed" in warning["detail"]
    assert warning["hint"]


def test_what_was_learned_of_a_gallery_is_kept_until_it_changes(
    client: httpx.Client, ids: list[str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_calibrations(settings)
    looked = []
    count = "service.search.judging.count_people"
    monkeypatch.setattr(count, lambda database, gallery: looked.append(gallery) or 7)
    for _ in range(3):
        found(client, image_id=ids[0])
    assert len(looked) == 1
    added_ids(upload(client, "hall", [scene(200)]))
    assert found(client, image_id=ids[0])["prior"] == pytest.approx(0.5 / 7)
    assert len(looked) == 2


def test_a_few_images_more_are_not_looked_at_again(
    client: httpx.Client, ids: list[str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_calibrations(settings, None, "none")
    counted: list[str] = []
    monkeypatch.setattr("service.search.judging.count_people", lambda database, gallery: counted.append(gallery) or 15)
    monkeypatch.setattr("service.search.judging._UNNOTICED", 0.1)  # three of thirty images
    found(client, image_id=ids[0])
    for number in range(3):
        added_ids(upload(client, "hall", [scene(100 + number)]))
        found(client, image_id=ids[0])
    assert len(counted) == 1
    assert client.delete(f"/galleries/hall/images/{ids[-1]}").status_code == 204
    found(client, image_id=ids[0])
    assert len(counted) == 2
