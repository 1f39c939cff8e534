"""Candidate recall against the same count made with plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reid_core.errors import Stopped
from reid_core.matching import FoldedHead, folded_scores
from reid_core.retrieval import recall
from reid_core.retrieval.maps import MapStore
from reid_core.retrieval.recall import CandidateRecall, estimate_candidate_recall
from reid_core.retrieval.store import FeatureStore

SHAPE = (3, 2, 8)
HEAD = FoldedHead(torch.ones(6), 0.0)


@pytest.fixture
def maps(tmp_path: Path) -> MapStore:
    """Maps of 40 images, alike enough that their order is not by chance."""
    random = np.random.default_rng(0)
    made = random.standard_normal((40, 6, 8)) + random.standard_normal((1, 6, 8))
    store = MapStore.create(tmp_path / "maps", SHAPE, "float16")
    store.write(0, made / np.linalg.norm(made, axis=-1, keepdims=True))
    return store


@pytest.fixture
def vectors(maps: MapStore, tmp_path: Path) -> FeatureStore:
    """The means of the maps."""
    means = maps.read(range(40)).astype(np.float32).mean(axis=1)
    store = FeatureStore.create(tmp_path / "vectors", (8,), np.dtype(np.float32))
    store.write(0, means / np.linalg.norm(means, axis=1, keepdims=True))
    return store


def plain_recall(vectors: FeatureStore, maps: MapStore, positions: list[int], best: int, candidates: int) -> float:
    shares = []
    for own in positions:
        others = [position for position in positions if position != own]
        found = top({other: match(maps, own, other) for other in others}, best)
        proposed = top({other: float(vectors.read(own) @ vectors.read(other)) for other in others}, candidates)
        shares.append(len(found & proposed) / len(found))
    return float(np.mean(shares))


def match(maps: MapStore, one: int, other: int) -> float:
    first, second = (torch.from_numpy(maps.read([position])) for position in (one, other))
    return folded_scores(first, second, HEAD).item()


def top(scores: dict[int, float], count: int) -> set[int]:
    return set(sorted(scores, key=scores.__getitem__, reverse=True)[:count])


def random() -> np.random.Generator:
    return np.random.default_rng(1)


def test_the_share_found_equals_a_plain_count(
    vectors: FeatureStore, maps: MapStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "BEST", 4)
    monkeypatch.setattr(recall, "CANDIDATES", 8)
    monkeypatch.setattr(recall, "_CHUNK", 7)
    positions = [position for position in range(40) if position % 5]
    progress: list[tuple[int, int]] = []
    measured = estimate_candidate_recall(
        vectors, maps, HEAD, np.array(positions), random(), on_progress=lambda *pair: progress.append(pair)
    )
    expected = plain_recall(vectors, maps, positions, 4, 8)
    assert 0.2 < expected < 0.9
    assert measured == CandidateRecall(pytest.approx(expected), 8, 32, 32)
    assert progress == [(7, 32), (14, 32), (21, 32), (28, 32), (32, 32)]


def test_all_is_found_where_the_candidates_are_all_there_is(vectors: FeatureStore, maps: MapStore) -> None:
    measured = estimate_candidate_recall(vectors, maps, HEAD, np.arange(40), random())
    assert measured == CandidateRecall(1.0, 100, 40, 40)
    assert estimate_candidate_recall(vectors, maps, HEAD, np.array([3, 8]), random()) == CandidateRecall(1.0, 100, 2, 2)


def test_one_image_has_no_recall(vectors: FeatureStore, maps: MapStore) -> None:
    nobody: NDArray[np.int64] = np.array([], np.int64)
    assert estimate_candidate_recall(vectors, maps, HEAD, nobody, random()) is None
    assert estimate_candidate_recall(vectors, maps, HEAD, np.array([3]), random()) is None


def test_the_sample_is_as_large_as_allowed_and_as_time_permits(
    vectors: FeatureStore, maps: MapStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "MAX_QUERIES", 5)
    monkeypatch.setattr(recall, "MAX_IMAGES", 20)
    sampled = estimate_candidate_recall(vectors, maps, HEAD, np.arange(40), random())
    assert sampled is not None
    assert (sampled.queries, sampled.pictures) == (5, 20)
    monkeypatch.setattr(recall, "MAX_SECONDS", 0)
    monkeypatch.setattr(recall, "_CHUNK", 8)
    hurried = estimate_candidate_recall(vectors, maps, HEAD, np.arange(40), random())
    assert hurried is not None
    assert (hurried.queries, hurried.pictures) == (5, 8)


def test_measuring_ends_when_it_is_asked_to(vectors: FeatureStore, maps: MapStore) -> None:
    with pytest.raises(Stopped):
        estimate_candidate_recall(vectors, maps, HEAD, np.arange(40), random(), should_stop=lambda: True)
