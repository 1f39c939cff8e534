"""Verification, and examples that move a query: against the formulas that the documents give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import select

from reid_core.calibration.curves import Curve, probability
from reid_core.calibration.folds import HeldOutFit
from reid_core.calibration.record import FILE_NAME, Calibration, write_calibrations
from reid_core.calibration.shift import describe_origin
from service.db.session import Database
from service.db.tables import DatasetImage, GalleryImage
from service.settings import Settings
from tests.service.galleries.stock import add_dataset, added_ids, found_ids, make_gallery, upload
from tests.service.search.stock import MATCHER_ID, encode, match, scene, sigmoid

pytestmark = pytest.mark.usefixtures("scores_in_fp32")

SCENES = [scene(number) for number in range(24)]
PAIR = Curve("logistic", (-1.0, 1.0), (-6.0, 6.0))
PERSON = Curve("logistic", (-1.0, 1.0), (-8.0, 4.0))


@pytest.fixture
def ids(client: httpx.Client, matcher: Any) -> list[str]:
    """The gallery `hall`: twelve people, two images of each."""
    make_gallery(client, model="matcher")
    return added_ids(upload(client, "hall", SCENES, [{"identity": f"p{number // 2}"} for number in range(24)]))


@pytest.fixture
def vectors(settings: Settings) -> np.ndarray:
    return encode(settings, MATCHER_ID, SCENES)[0]


def keep_calibration(settings: Settings, vectors: np.ndarray) -> None:
    origin = describe_origin(vectors, np.arange(24) // 2)
    pair, person = (HeldOutFit(curve, {}, 0.0, ()) for curve in (PAIR, PERSON))
    kept = {"none": Calibration("none", pair, origin, {}, person)}
    write_calibrations(settings.models_dir / MATCHER_ID / FILE_NAME, kept)


def files(name: str, *contents: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [(name, (f"{number}.png", content)) for number, content in enumerate(contents)]


def verify(client: httpx.Client, *contents: bytes, **fields: Any) -> dict[str, Any]:
    if contents:
        answer = client.post("/galleries/hall/verify", files=files("image", *contents), data=fields)
    else:
        answer = client.post("/galleries/hall/verify", json=fields)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_two_images_score_their_cosine_however_they_are_named(
    client: httpx.Client, ids: list[str], vectors: np.ndarray
) -> None:
    expected = float(vectors[0] @ vectors[3])
    answers = [
        verify(client, SCENES[0], SCENES[3]),
        verify(client, SCENES[0], image_id=ids[3]),
        verify(client, image_id=[ids[0], ids[3]]),
    ]
    for answer in answers:
        assert answer["score"] == pytest.approx(expected, abs=1e-5)
        assert answer["compared"] == 1
        assert not {"probability", "verdict"} & answer.keys()
    assert verify(client, image_id=[ids[0], ids[0]])["score"] == pytest.approx(1)


def test_two_images_are_matched_place_by_place(client: httpx.Client, ids: list[str], settings: Settings) -> None:
    maps = encode(settings, MATCHER_ID, SCENES[:4])[1]
    expected = sigmoid(match(settings, maps[:1], maps[3:4]))[0, 0]
    assert verify(client, SCENES[0], image_id=ids[3], rerank="qaconv")["score"] == pytest.approx(expected, abs=1e-3)
    assert verify(client, SCENES[0], SCENES[3], rerank="qaconv")["score"] == pytest.approx(expected, abs=1e-3)


def test_a_person_is_compared_by_all_its_images_but_those_asked_by(
    client: httpx.Client, ids: list[str], vectors: np.ndarray
) -> None:
    answer = verify(client, SCENES[0], identity="p3")
    assert answer["score"] == pytest.approx(float((vectors[6:8] @ vectors[0]).mean()), abs=1e-5)
    assert answer["compared"] == 2
    own = verify(client, image_id=[ids[6]], identity="p3")
    assert (own["compared"], own["score"]) == (1, pytest.approx(float(vectors[6] @ vectors[7]), abs=1e-5))
    both = vectors[0] + vectors[1]
    several = verify(client, SCENES[0], SCENES[1], identity="p3")
    assert several["score"] == pytest.approx(float((vectors[6:8] @ both).mean() / np.linalg.norm(both)), abs=1e-5)


def test_an_image_of_a_data_set_is_not_compared_with_itself_in_the_gallery(
    client: httpx.Client, ids: list[str], database: Database, vectors: np.ndarray, tmp_path: Path
) -> None:
    dataset = add_dataset(database, tmp_path / "lobby")
    with database.write() as session:
        origin = session.scalars(select(DatasetImage).where(DatasetImage.dataset_id == dataset.id)).first()
        assert origin is not None
        (Path(dataset.path) / origin.path).write_bytes(SCENES[6])
        session.get_one(GalleryImage, ids[6]).dataset_image_id = origin.id
        key = origin.id
    own = verify(client, image_id=[key], identity="p3")
    assert (own["compared"], own["score"]) == (1, pytest.approx(float(vectors[6] @ vectors[7]), abs=1e-5))
    assert verify(client, image_id=[ids[0]], identity="p3")["compared"] == 2


def test_probabilities_and_verdicts_are_at_even_odds(
    client: httpx.Client, ids: list[str], settings: Settings, vectors: np.ndarray
) -> None:
    keep_calibration(settings, vectors)
    pair = verify(client, SCENES[0], SCENES[3])
    assert pair["probability"] == pytest.approx(float(probability(PAIR.evidence(pair["score"]))))
    person = verify(client, SCENES[0], identity="p3")
    assert person["probability"] == pytest.approx(float(probability(PERSON.evidence(person["score"]))))
    chance = pair["probability"]
    assert pair["verdict"] == ("same" if chance >= 0.5 else "different")
    higher = (1 + max(chance, 1 - chance)) / 2
    assert verify(client, SCENES[0], SCENES[3], min_probability=higher)["verdict"] == "unsure"
    assert verify(client, SCENES[0], SCENES[3], min_probability=chance / 2)["verdict"] == "same"


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"image_id": ["0"]}, 422),
        ({"image_id": ["0", "1", "2"]}, 422),
        ({"identity": "p1"}, 422),
        ({"image_id": ["0"], "identity": "nobody"}, 404),
        ({"image_id": ["0"], "identity": "p1", "rerank": "qaconv"}, 422),
        ({"image_id": ["0", "1"], "rerank": "k_reciprocal"}, 422),
        ({"image_id": ["0", "1"], "min_probability": 0.9}, 409),
        ({"image_id": ["0", "x"]}, 404),
    ],
)
def test_what_cannot_be_verified_is_refused(
    client: httpx.Client, ids: list[str], asked: dict[str, Any], status: int
) -> None:
    if "image_id" in asked:
        asked = asked | {"image_id": [ids[int(key)] if key.isdigit() else key for key in asked["image_id"]]}
    assert client.post("/galleries/hall/verify", json=asked).status_code == status


def test_an_erased_image_verifies_nothing_and_each_verification_is_in_the_audit_log(
    client: httpx.Client, ids: list[str]
) -> None:
    told = verify(client, image_id=[ids[0], ids[1]])
    entries = client.get("/audit").json()["items"]
    assert told["verification_id"] in [entry["detail"].get("search_id") for entry in entries]
    client.delete(f"/galleries/hall/images/{ids[0]}")
    assert client.post("/galleries/hall/verify", json={"image_id": [ids[0], ids[1]]}).status_code == 410
    wrong = client.post("/galleries/hall/verify", files=files("image", b"no image", SCENES[0]))
    assert wrong.status_code == 415


def test_examples_move_the_query_by_rocchios_formula(client: httpx.Client, ids: list[str], vectors: np.ndarray) -> None:
    moved = vectors[0] + 0.75 * vectors[[4, 7]].mean(axis=0) - 0.15 * vectors[[9]].mean(axis=0)
    expected = np.argsort(-(vectors @ moved), kind="stable")
    asked = {"gallery": "hall", "top_k": 24}
    by_ids = {"positive": [ids[4], ids[7]], "negative": ids[9]}
    stored = client.get("/search", params={**asked, "image_id": ids[0], **by_ids})
    assert found_ids(stored) == [ids[number] for number in expected]
    np.testing.assert_allclose(
        stored.json()["results"][0]["score"], (vectors @ moved).max() / np.linalg.norm(moved), atol=1e-5
    )
    uploaded = client.post(
        "/search",
        data={**asked, "positive": ids[4]},
        files=files("image", SCENES[0]) + files("positive", SCENES[7]) + files("negative", SCENES[9]),
    )
    assert found_ids(uploaded) == found_ids(stored)
    embedding = {**asked, "embedding": vectors[0].tolist(), "positive": [ids[4], ids[7]], "negative": [ids[9]]}
    assert found_ids(client.post("/search", json=embedding)) == found_ids(stored)


def test_negative_examples_alone_move_the_query_away(client: httpx.Client, ids: list[str]) -> None:
    def score(**examples: Any) -> float:
        params = {"gallery": "hall", "image_id": ids[0], "top_k": 24, **examples}
        results = client.get("/search", params=params).json()["results"]
        return next(result["score"] for result in results if result["image_id"] == ids[9])

    assert score(negative=ids[9]) < score() < score(positive=ids[9])


def test_examples_that_are_not_there_or_too_many_are_refused(client: httpx.Client, ids: list[str]) -> None:
    asked = {"gallery": "hall", "image_id": ids[0]}
    assert client.get("/search", params={**asked, "positive": "img_none"}).status_code == 404
    many = client.get("/search", params={**asked, "negative": ids[:17]})
    assert (many.status_code, many.json()["errors"][0]["pointer"]) == (422, "/query/negative")
    client.delete(f"/galleries/hall/images/{ids[1]}")
    assert client.get("/search", params={**asked, "positive": ids[1]}).status_code == 410
