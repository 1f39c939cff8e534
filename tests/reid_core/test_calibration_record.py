"""A calibration is fitted on images across cameras by the scores that searches give, and comes back from its file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from reid_core.calibration.curves import sigmoid
from reid_core.calibration.record import (
    FILE_NAME,
    calibrate,
    choose_images,
    read_calibrations,
    write_calibrations,
)
from reid_core.calibration.scoring import RERANKS, Rerank, score_files
from reid_core.data.records import ImageRecord
from reid_core.errors import CoreError, DatasetError, WeightsError
from reid_core.model import TrainedModel, load_model
from reid_core.reranking import score_candidates
from tests.reid_core.images import make_images
from tests.service.galleries.stock import save_tiny_model
from tests.service.search.stock import save_matching_model

pytestmark = pytest.mark.usefixtures("scores_in_fp32")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRecord]:
    return make_images(tmp_path_factory.mktemp("people"), identities=12, cameras=2, each=2)


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    folder = tmp_path_factory.mktemp("models") / "matcher"
    save_matching_model(folder)
    return load_model(folder, torch.device("cpu"))


@pytest.mark.parametrize("rerank", RERANKS)
def test_each_way_of_re_ranking_has_a_calibration_of_its_own(
    people: list[ImageRecord], matcher: TrainedModel, rerank: Rerank, tmp_path: Path
) -> None:
    score = partial(score_files, matcher.encoder(), matcher.matching_head(), rerank=rerank)
    one = calibrate(people, score, rerank, {"dataset": "ds_1", "fingerprint": "f"})
    assert dict(one.fitted_on) | {"same_pairs": 0, "different_pairs": 0} == {
        "dataset": "ds_1",
        "fingerprint": "f",
        "identities": 12,
        "cameras": 2,
        "images": 48,
        "same_pairs": 0,
        "different_pairs": 0,
    }
    assert one.fitted_on["same_pairs"] == (96 if rerank == "k_reciprocal" else 48)  # which has two directions
    scores = sigmoid(np.linspace(-20, 20, 50)) if rerank == "qaconv" else np.linspace(-1, 1, 50)
    assert (np.diff(one.evidence(scores)) >= 0).all()

    write_calibrations(tmp_path / FILE_NAME, {rerank: one})
    again = read_calibrations(tmp_path)[rerank]
    assert (again.fit, again.fitted_on, again.rerank) == (one.fit, one.fitted_on, rerank)


def test_scores_are_those_of_searches(people: list[ImageRecord], matcher: TrainedModel) -> None:
    paths = [image.path for image in people[:8]]
    encoder, head = matcher.encoder(), matcher.matching_head()
    vectors = encoder.embed_files(paths).numpy()
    cosines = score_files(encoder, head, paths, "none").scores
    np.testing.assert_allclose(cosines, vectors @ vectors.T, atol=1e-6)

    neighbours = score_files(encoder, head, paths, "k_reciprocal").scores
    assert np.isnan(np.diag(neighbours)).all()
    order = np.argsort(-cosines[2])
    others = order[order != 2]
    np.testing.assert_allclose(neighbours[2, others], score_candidates(vectors[2:3], vectors[others]), atol=1e-6)

    matched = score_files(encoder, head, paths, "qaconv").scores
    assert (matched == matched.T).all()


def test_a_model_without_local_features_has_none_by_the_matcher(people: list[ImageRecord], tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model")
    model = load_model(tmp_path / "model", torch.device("cpu"))
    with pytest.raises(CoreError, match="no local features") as caught:
        score_files(model.encoder(), None, [people[0].path], "qaconv")
    assert "QAConv" in caught.value.hint


def test_too_few_people_are_refused_before_anything_is_encoded(people: list[ImageRecord]) -> None:
    with pytest.raises(DatasetError, match=r"3 people .* needs 10 or more"):
        calibrate(people[:12], lambda paths: pytest.fail("encoded"), "none", {})


def test_of_too_many_images_people_are_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [ImageRecord(Path(f"{n}.png"), str(n % 10), str(n % 2)) for n in range(100)]
    assert len(choose_images(images)) == 100
    monkeypatch.setattr("reid_core.calibration.record.MOST_IMAGES", 45)
    chosen = choose_images(images)
    assert len(chosen) == 40
    assert all(sum(image.identity == one.identity for image in chosen) == 10 for one in chosen)
    assert chosen == choose_images(images)


@pytest.mark.parametrize("content", ["{", '{"calibrations": {"none": {}}}', '{"calibrations": {"none": 1}}'])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    assert read_calibrations(tmp_path) == {}
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(WeightsError, match=FILE_NAME):
        read_calibrations(tmp_path)
