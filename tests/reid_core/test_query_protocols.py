"""Open sets and multi queries, checked against their definitions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from reid_core.data.records import DISTRACTOR
from reid_core.errors import DatasetError
from reid_core.evaluation.fusion import fuse, join_queries
from reid_core.evaluation.open_set import measure_open_set, take_out
from tests.reid_core.test_evaluation import Case, draw_case, images


@pytest.mark.parametrize("seed", range(8))
def test_open_set_rates_follow_the_definition(seed: int) -> None:
    case = draw_case(seed, queries=60, gallery=61, levels=(4, 2**20)[seed % 2])
    # Two of five people are not in the gallery; a query without a camera keeps what its own camera took.
    gallery = [image for image in case.gallery if image.identity not in ("a", "b")]
    query = [replace(image, camera="") for image in case.query]
    case = Case(case.scores[:, : len(gallery)], query, gallery)
    rates = measure_open_set(case.evaluate())
    first = [
        max(zip(row, range(0, -len(gallery), -1), gallery, strict=True), key=lambda one: one[:2])
        for row in case.scores.tolist()
    ]
    shown = {image.identity for image in gallery}
    mated = [
        (score, image.identity == asking.identity)
        for (score, _, image), asking in zip(first, query, strict=True)
        if asking.identity in shown
    ]
    unmated = [score for (score, _, _), asking in zip(first, query, strict=True) if asking.identity not in shown]
    assert (rates.mated_queries, rates.unmated_queries) == (len(mated), len(unmated))
    for rate, found in rates.rate.items():
        passing = [
            sum(right and score > threshold for score, right in mated) / len(mated)
            for threshold in [-1.0, *unmated]
            if sum(score > threshold for score in unmated) <= float(rate) * len(unmated)
        ]
        assert found == pytest.approx(max(passing), abs=1e-6)


def test_a_share_of_the_people_leaves_the_gallery_and_strangers_stay() -> None:
    query = images(*(f"{person}/1" for person in "abcdef"))
    gallery = images(*(f"{person}/2" for person in "abcdefg"), f"{DISTRACTOR}/2", "a/3")
    kept, count = take_out(query, gallery, 0.5, seed=0)
    gone = {image.identity for image in gallery} - {image.identity for image in kept}
    assert (count, len(gone)) == (3, 3)
    assert gone < set("abcdef")
    assert [image for image in gallery if image.identity not in gone] == kept
    assert take_out(query, gallery, 0.5, seed=0)[0] == kept
    assert any(take_out(query, gallery, 0.5, seed=seed)[0] != kept for seed in range(1, 9))


@pytest.mark.parametrize(("share", "count"), [(0.001, 1), (0.999, 1)])
def test_somebody_leaves_and_somebody_stays(share: float, count: int) -> None:
    assert take_out(images("a/1", "b/1"), images("a/2", "b/2"), share, seed=0)[1] == count


def test_an_open_set_needs_two_people() -> None:
    with pytest.raises(DatasetError, match="two people or more in both query and gallery; there are 1"):
        take_out(images("a/1", "b/1"), images("a/2", "c/2"), 0.5, seed=0)


def test_pictures_of_one_person_and_camera_ask_together() -> None:
    query = images("a/1", "b/1", "a/1", "a/2", "b/")
    gallery = images("a/1", "a/3", "b/", f"{DISTRACTOR}/1", "b/1")
    joined = join_queries(query, gallery)
    assert joined.queries == (query[0], query[1], query[3], query[4])
    # 5 and 9 are of the query's own camera in the gallery; images without a camera are not taken from there.
    assert joined.members == ((0, 2, 5), (1, 9), (3,), (4,))


def test_a_fused_embedding_is_the_mean_at_unit_length() -> None:
    query, gallery = torch.eye(3), torch.tensor([[0.0, 0.6, 0.8]])
    fused = fuse(query, gallery, [(0, 1), (2, 3)])
    expected = np.array([[1, 1, 0], [0, 0.6, 1.8]])
    np.testing.assert_allclose(fused, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6)
