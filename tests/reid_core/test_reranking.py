"""k-reciprocal re-ranking, checked against its definition, written image by image with dense float64 matrices."""

from __future__ import annotations

import multiprocessing
from math import exp
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from reid_core.errors import CoreError, Stopped
from reid_core.evaluation.labels import Labels
from reid_core.evaluation.ranking import evaluate, evaluate_scores
from reid_core.reranking import Reciprocal, distances, encoding, rerank_candidates, rerank_distances, rerank_embeddings

Floats = NDArray[np.float64]

PAPER = Reciprocal()
PARAMETERS = [
    PAPER,
    Reciprocal(k1=7, k2=3),
    Reciprocal(k1=5, k2=1),
    Reciprocal(k1=1, k2=1),
    Reciprocal(weight=0.0),
    Reciprocal(weight=1.0),
    Reciprocal(k1=100, k2=100),
]


def follow_definition(given: Floats, parameters: Reciprocal) -> Floats:
    """(N, N) re-ranked distances, by the equations as they stand in `reid_core.reranking.k_reciprocal`."""
    images = range(len(given))
    original = np.where(np.eye(len(given), dtype=bool), 0, given)
    ranked = [[i, *sorted((j for j in images if j != i), key=lambda j: (original[i, j], j))] for i in images]

    def find_reciprocal(k: int) -> list[set[int]]:
        nearest = [set(row[: k + 1]) for row in ranked]
        return [{j for j in nearest[i] if i in nearest[j]} for i in images]

    scaled = original / np.maximum(original.max(axis=1, keepdims=True), 1e-30)
    own, half = find_reciprocal(parameters.k1), find_reciprocal(round(parameters.k1 / 2))
    encodings = np.zeros_like(original)
    for i in images:
        members = set(own[i])
        for q in own[i]:
            if 3 * len(own[i] & half[q]) > 2 * len(half[q]):
                members |= half[q]
        weights = {j: exp(-scaled[i, j]) for j in members}
        for j, weight in weights.items():
            encodings[i, j] = weight / sum(weights.values())
    averaged = np.stack([encodings[ranked[i][: parameters.k2]].mean(axis=0) for i in images])
    smaller = np.minimum(averaged[:, None], averaged).sum(axis=2)
    larger = np.maximum(averaged[:, None], averaged).sum(axis=2)
    result: Floats = (1 - parameters.weight) * (1 - smaller / larger) + parameters.weight * scaled
    return result


def square_distances(vectors: Floats) -> Floats:
    squares: Floats = np.square(vectors[:, None] - vectors).sum(axis=2)
    return squares


def make_people(seed: int, size: int) -> Floats:
    """Embeddings of small whole numbers, about eight around each centre. Float32 has their distances exactly, many
    of them are equal, and there are duplicates."""
    generator = np.random.default_rng(seed)
    centres = generator.integers(-6, 7, (size // 8 + 1, 8))
    strays = generator.integers(-1, 2, (size, 8)) * generator.integers(0, 2, (size, 8))
    return (centres[generator.integers(0, len(centres), size)] + strays).astype(np.float64)


def make_distances(seed: int, size: int) -> Floats:
    """Well separated distances of no space, different in the two directions."""
    return np.random.default_rng(seed).permutation(size * size).reshape(size, size) / size


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
@pytest.mark.parametrize(("seed", "queries", "gallery"), [(0, 12, 48), (1, 30, 20), (2, 3, 9), (3, 1, 1)])
def test_embeddings_follow_the_definition(parameters: Reciprocal, seed: int, queries: int, gallery: int) -> None:
    vectors = make_people(seed, queries + gallery)
    reranked = rerank_embeddings(vectors[:queries], vectors[queries:], parameters)
    expected = follow_definition(square_distances(vectors), parameters)[:queries, queries:]
    assert np.allclose(reranked.distances(0, queries), expected, atol=1e-5)


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
@pytest.mark.parametrize(("seed", "size"), [(0, 60), (1, 30), (2, 8), (3, 1)])
def test_given_distances_follow_the_definition(parameters: Reciprocal, seed: int, size: int) -> None:
    given = make_distances(seed, size)
    assert np.allclose(rerank_distances(given, parameters), follow_definition(given, parameters), atol=1e-5)


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
@pytest.mark.parametrize(("seed", "candidates"), [(0, 50), (1, 5), (2, 1)])
def test_candidates_follow_the_definition(parameters: Reciprocal, seed: int, candidates: int) -> None:
    given = square_distances(make_people(seed, candidates + 1))
    reranked = rerank_candidates(given[0, 1:], given[1:, 1:], parameters)
    assert np.allclose(reranked, follow_definition(given, parameters)[0, 1:], atol=1e-5)


def test_embeddings_and_their_distances_rank_the_same() -> None:
    vectors = make_people(4, 90)
    reranked = rerank_embeddings(torch.from_numpy(vectors[:20]).double(), vectors[20:], PAPER)
    given = rerank_distances(torch.from_numpy(square_distances(vectors)), PAPER)
    assert torch.allclose(reranked.distances(0, 20), given[:20, 20:], atol=1e-6)


def test_two_images_have_the_distance_of_the_closed_form() -> None:
    original = torch.tensor([[0.0, 5.0], [5.0, 0.0]])
    assert rerank_distances(original, PAPER)[0, 1].item() == pytest.approx(0.3)  # averaged, their encodings are equal
    alone = rerank_distances(original, Reciprocal(k2=1))[0, 1].item()
    assert alone == pytest.approx(0.7 * (1 - exp(-1)) + 0.3)


def test_more_duplicates_than_neighbours_rank_by_index() -> None:
    vectors = np.concatenate([np.zeros((30, 4)), np.ones((12, 4)), np.eye(4)])
    parameters = Reciprocal(k1=5, k2=3)
    expected = follow_definition(square_distances(vectors), parameters)[:7, 7:]
    assert np.allclose(rerank_embeddings(vectors[:7], vectors[7:], parameters).distances(0, 7), expected, atol=1e-5)


def test_images_that_are_all_the_same_have_finite_distances() -> None:
    reranked = rerank_embeddings(torch.ones(3, 16), torch.ones(5, 16), PAPER).distances(0, 3)
    assert torch.allclose(reranked, torch.zeros(3, 5), atol=1e-6)


def test_what_stands_on_the_diagonal_does_not_matter() -> None:
    given = make_distances(5, 40)
    expected = rerank_distances(given, PAPER)
    np.fill_diagonal(given, np.inf)
    assert torch.equal(rerank_distances(given, PAPER), expected)
    assert np.isinf(given.diagonal()).all()  # the caller's matrix is left as it was


def test_scores_are_one_less_the_distance_in_any_block() -> None:
    vectors = make_people(6, 80)
    reranked = rerank_embeddings(vectors[:30], vectors[30:], PAPER)
    blocks = torch.cat([reranked.scores(0, 7), reranked.scores(7, 8), reranked.scores(8, 30)])
    assert torch.allclose(blocks, 1 - reranked.distances(0, 30), atol=1e-6)
    assert blocks.dtype == torch.float32
    assert 0 <= blocks.min() < blocks.max() <= 1


def test_small_blocks_give_the_same_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = make_people(7, 80)
    expected = rerank_embeddings(vectors[:30], vectors[30:], PAPER).distances(0, 30)
    monkeypatch.setattr(distances, "BLOCK_DISTANCES", 1000)
    monkeypatch.setattr(distances, "_PAIRS_AT_ONCE", 20)
    monkeypatch.setattr(encoding, "_SHARES_AT_ONCE", 500)
    assert torch.allclose(rerank_embeddings(vectors[:30], vectors[30:], PAPER).distances(0, 30), expected, atol=1e-6)


def test_evaluation_takes_the_scores_and_finds_more() -> None:
    generator = torch.Generator().manual_seed(0)
    people = torch.arange(30).repeat(20)
    strays = torch.randn(600, 32, generator=generator) * torch.rand(600, 1, generator=generator)
    vectors = functional.normalize(torch.randn(30, 32, generator=generator)[people] + 2 * strays)
    identities, cameras = people.numpy(), np.arange(600) // 300
    labels = Labels(identities[:120], cameras[:120]), Labels(identities[120:], cameras[120:])
    plain = evaluate(vectors[:120], vectors[120:], *labels)
    reranked = evaluate_scores(rerank_embeddings(vectors[:120], vectors[120:], PAPER).scores, *labels)
    assert reranked.mAP > plain.mAP + 0.05


def test_no_candidates_have_no_distances() -> None:
    assert rerank_candidates(np.zeros(0), np.zeros((0, 0)), PAPER).shape == (0,)


def measure_growth(size: int) -> int:
    """Bytes that re-ranking takes beyond what its process held before, at most."""
    distances.BLOCK_DISTANCES = 2**20
    vectors = torch.randn(size, 16, generator=torch.Generator().manual_seed(0))
    before = psutil.Process().memory_info().rss
    rerank_embeddings(vectors[:100], vectors[100:], Reciprocal(k1=8, k2=3)).scores(0, 100)
    peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    return int(peak) * 1024 - int(before)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc")
def test_memory_stays_far_below_a_matrix_of_all_distances() -> None:
    size = 10_000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        growth = pool.apply(measure_growth, (size,))
    assert growth < size * size * 4 / 4


def test_progress_is_told_and_a_stop_is_heard() -> None:
    told: list[tuple[int, int]] = []
    vectors = make_people(8, 40)
    rerank_embeddings(vectors[:10], vectors[10:], PAPER, on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (40, 40)
    with pytest.raises(Stopped):
        rerank_embeddings(vectors[:10], vectors[10:], PAPER, should_stop=lambda: True)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"k1": 0}, "k1 = 0"),
        ({"k2": 0}, "k2 = 0"),
        ({"k1": 4, "k2": 5}, "k2 = 5 with k1 = 4"),
        ({"weight": 1.5}, "weight = 1.5"),
        ({"weight": float("nan")}, "weight = nan"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong: dict[str, float], said: str) -> None:
    with pytest.raises(CoreError, match=said):
        Reciprocal(**wrong)  # type: ignore[arg-type]  # whole numbers and fractions in one table


@pytest.mark.parametrize(
    ("query", "gallery", "said"),
    [
        (np.ones((2, 3)), np.ones((4, 5)), "3 dimensions, gallery embeddings 5"),
        (np.ones((2, 3)), np.ones((0, 3)), r"gallery embeddings have shape \(0, 3\)"),
        (np.ones(3), np.ones((2, 3)), r"query embeddings have shape \(3,\)"),
        (np.ones((2, 3)), np.array([[1, 2, 3], [1, np.nan, 3]]), "1 of 2 gallery embeddings are not finite.* row 1"),
    ],
)
def test_embeddings_that_cannot_be_compared_are_refused(query: Floats, gallery: Floats, said: str) -> None:
    with pytest.raises(CoreError, match=said):
        rerank_embeddings(query, gallery, PAPER)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.ones((2, 3)), r"shape \(2, 3\)"),
        (np.ones((0, 0)), r"shape \(0, 0\)"),
        (np.array([[0, -1], [2, 0]]), "from -1.0 to 2.0"),
        (np.array([[0, np.nan], [2, 0]]), "from nan to nan"),
        (np.array([[0, np.inf], [2, 0]]), "from 0.0 to inf"),
    ],
)
def test_matrices_that_hold_no_distances_are_refused(given: Floats, said: str) -> None:
    with pytest.raises(CoreError, match=said):
        rerank_distances(given, PAPER)


def test_candidates_of_another_number_are_refused() -> None:
    with pytest.raises(CoreError, match=r"shape \(3,\), those among candidates \(2, 2\)"):
        rerank_candidates(np.ones(3), np.ones((2, 2)), PAPER)
