"""Clustering, checked against definitions written image by image."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from reid_core.clustering import LEFT_ALONE, Clustering, cluster_embeddings, compare_pairs
from reid_core.clustering.cameras import centre_by_camera
from reid_core.clustering.density import cluster_by_density, connect, overlap
from reid_core.clustering.distances import measure_jaccard
from reid_core.errors import CoreError, Stopped
from reid_core.reranking.encoding import Sparse, compress
from reid_core.reranking.k_reciprocal import Reciprocal


def draw_people(people: int, images: int, spread: float, seed: int = 0, size: int = 16) -> NDArray[np.float32]:
    """(people * images, size) unit vectors, each person's around a direction of its own."""
    generator = np.random.default_rng(seed)
    means = np.repeat(generator.normal(size=(people, size)), images, axis=0)
    return unit(means + spread * generator.normal(size=means.shape))


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def follow_definition(embeddings: NDArray[np.float32], k1: int, k2: int) -> NDArray[np.float64]:
    """(N, N) Jaccard distances by the equations of `reid_core.reranking.k_reciprocal`, exp(-d) unscaled."""
    images = range(len(embeddings))
    original = ((embeddings[:, None].astype(np.float64) - embeddings) ** 2).sum(axis=2)
    ranked = [[i, *sorted((j for j in images if j != i), key=lambda j: (original[i, j], j))] for i in images]

    def find_reciprocal(k: int) -> list[set[int]]:
        nearest = [set(row[: k + 1]) for row in ranked]
        return [{j for j in nearest[i] if i in nearest[j]} for i in images]

    own, half = find_reciprocal(k1), find_reciprocal(round(k1 / 2))
    encodings = np.zeros_like(original)
    for i in images:
        members = set(own[i])
        for q in own[i]:
            if 3 * len(own[i] & half[q]) > 2 * len(half[q]):
                members |= half[q]
        weights = {j: exp(-original[i, j]) for j in members}
        for j, weight in weights.items():
            encodings[i, j] = weight / sum(weights.values())
    averaged = np.stack([encodings[ranked[i][:k2]].mean(axis=0) for i in images])
    smaller = np.minimum(averaged[:, None], averaged).sum(axis=2)
    return np.asarray(1 - smaller / np.maximum(averaged[:, None], averaged).sum(axis=2))


def as_graph(distances: NDArray[np.float64], limit: float) -> Sparse:
    rows, columns = np.nonzero((distances <= limit) & ~np.eye(len(distances), dtype=bool))
    values = torch.tensor(distances[rows, columns])
    return compress(len(distances), torch.tensor(rows), torch.tensor(columns), values)


@pytest.mark.parametrize(("k1", "k2"), [(30, 6), (5, 1), (3, 2)])
def test_jaccard_distances_follow_their_definition(k1: int, k2: int) -> None:
    embeddings = draw_people(8, 6, spread=0.6)
    graph = measure_jaccard(embeddings, Reciprocal(k1, k2), 0.7, lambda done, total: None, lambda: False)
    expected = follow_definition(embeddings, k1, k2)
    np.fill_diagonal(expected, 1)
    dense = np.ones_like(expected)
    dense[np.repeat(np.arange(48), np.diff(graph.starts)), graph.columns] = graph.values
    near = np.abs(expected - 0.7) > 1e-5
    np.testing.assert_allclose(dense[near], np.where(expected <= 0.7, expected, 1)[near], atol=1e-5)


def test_images_that_are_copies_have_themselves_as_first_neighbour() -> None:
    embeddings = np.repeat(draw_people(3, 1, spread=0), 7, axis=0)
    clusters = cluster_embeddings(embeddings, Clustering(k1=3, k2=1, least=2))
    assert compare_pairs(clusters.labels, np.repeat(np.arange(3), 7)).precision == 1


def visit(distances: NDArray[np.float64], threshold: float, least: int) -> list[set[int]]:
    """Groups of core images by walking from neighbour to neighbour."""
    near = [set(np.flatnonzero(row <= threshold).tolist()) | {i} for i, row in enumerate(distances)]
    core = {i for i, others in enumerate(near) if len(others) >= least}
    groups, left = [], set(core)
    while left:
        group, ahead = set(), [left.pop()]
        while ahead:
            group.add(node := ahead.pop())
            ahead += [other for other in near[node] & core if other not in group]
        groups.append(group)
        left -= group
    return groups


@given(st.integers(0, 10_000), st.integers(2, 5), st.floats(0.1, 0.9))
def test_core_images_are_grouped_as_by_walking_from_one_to_the_next(seed: int, least: int, threshold: float) -> None:
    points = np.random.default_rng(seed).uniform(0, 5, 30)
    distances = np.abs(points[:, None] - points)
    labels = cluster_by_density(as_graph(distances, threshold), threshold, least)
    groups = visit(distances, threshold, least)
    core = sorted(image for group in groups for image in group)
    assert {frozenset(i for i in core if labels[i] == label) for label in set(labels[core])} == set(
        map(frozenset, groups)
    )
    for image in set(range(30)) - set(core):
        reach = [i for i in core if distances[image, i] <= threshold]
        nearest = min(reach, key=lambda i: (distances[image, i], i), default=None)
        assert labels[image] == (LEFT_ALONE if nearest is None else labels[nearest])


@given(st.integers(0, 10_000))
def test_connected_nodes_have_the_smallest_of_them_as_root(seed: int) -> None:
    edges = np.random.default_rng(seed).integers(0, 40, (2, 30))
    groups = {i: {i} for i in range(40)}
    for first, second in edges.T.tolist():
        joined = groups[first] | groups[second]
        groups.update(dict.fromkeys(joined, joined))
    assert connect(40, *edges).tolist() == [min(groups[i]) for i in range(40)]


def test_clusters_are_people_and_strangers_are_left_alone() -> None:
    people, strangers = draw_people(12, 8, spread=0.15), draw_people(10, 1, spread=0, seed=1)
    clusters = cluster_embeddings(np.concatenate([people, strangers]), Clustering(k1=7, k2=2, least=4))
    assert clusters.labels[:96].tolist() == np.repeat(np.arange(12), 8).tolist()
    assert (clusters.labels[96:] == LEFT_ALONE).all()
    assert clusters.confidence.tolist() == [1.0] * 12


def test_clusters_do_not_depend_on_the_order_of_images() -> None:
    embeddings, order = draw_people(10, 6, spread=0.4), np.random.default_rng(1).permutation(60)
    straight, shuffled = (cluster_embeddings(array).labels for array in (embeddings, embeddings[order]))
    assert compare_pairs(shuffled, straight[order]).f1 == 1


def test_a_cluster_that_another_threshold_changes_is_less_sure() -> None:
    first, second = np.array([0, 0, 0, 1, -1]), np.array([0, 0, -1, 1, -1])
    assert overlap(first, second).tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 3, 1, 1])
    sure = cluster_embeddings(draw_people(10, 8, spread=0.15), Clustering(k1=7)).confidence.mean()
    unsure = cluster_embeddings(draw_people(10, 8, spread=0.8), Clustering(k1=7, margin=0.1)).confidence.mean()
    assert 0 < unsure < sure == 1


def test_a_camera_that_moves_all_embeddings_alike_parts_nobody() -> None:
    people = draw_people(30, 8, spread=0.2, size=32)
    cameras = np.arange(240) % 2
    moved = unit(people + 1.5 * cameras[:, None] * unit(np.ones((1, 32))))
    truth = np.repeat(np.arange(30), 8)
    blind, told = (
        compare_pairs(cluster_embeddings(moved, Clustering(k1=7, k2=2), cameras=known).labels, truth).f1
        for known in (None, cameras)
    )
    assert told > 0.95 > blind


def test_unknown_cameras_and_those_of_few_images_are_not_centred() -> None:
    embeddings = draw_people(20, 8, spread=0.2)
    np.testing.assert_allclose(centre_by_camera(embeddings, np.full(160, -1)), embeddings, atol=1e-6)
    np.testing.assert_allclose(centre_by_camera(embeddings, np.arange(160) // 49), embeddings, atol=1e-6)


def test_pairs_are_counted_as_one_by_one() -> None:
    generator = np.random.default_rng(0)
    clusters, identities = generator.integers(-1, 4, 60), generator.integers(0, 5, 60)
    pairs = [(i, j) for i in range(60) for j in range(i)]
    together = {(i, j) for i, j in pairs if clusters[i] == clusters[j] != LEFT_ALONE}
    matching = {(i, j) for i, j in pairs if identities[i] == identities[j]}
    found = compare_pairs(clusters, identities)
    assert (found.clustered, found.matching, found.both) == (len(together), len(matching), len(together & matching))
    assert found.precision == pytest.approx(len(together & matching) / len(together))
    assert compare_pairs(np.full(3, LEFT_ALONE), np.arange(3)).precision is None


@pytest.mark.parametrize("changes", [{"threshold": 0.0}, {"threshold": 1.0}, {"least": 1}, {"k1": 0}, {"k2": 31}])
def test_impossible_settings_say_what_to_use(changes: dict[str, float]) -> None:
    with pytest.raises(CoreError) as error:
        Clustering(**changes)  # type: ignore[arg-type]
    assert error.value.hint.startswith("Use")


def test_few_images_and_none() -> None:
    assert cluster_embeddings(np.empty((0, 4), np.float32)).count == 0
    assert cluster_embeddings(draw_people(1, 1, spread=0)).labels.tolist() == [LEFT_ALONE]
    assert cluster_embeddings(draw_people(1, 5, spread=0.1), Clustering(least=2)).labels.tolist() == [0] * 5


def test_clustering_stops_when_asked_and_refuses_what_is_not_finite() -> None:
    embeddings = draw_people(2, 4, spread=0.1)
    with pytest.raises(Stopped):
        cluster_embeddings(embeddings, should_stop=lambda: True)
    embeddings[3, 0] = np.nan
    with pytest.raises(CoreError, match="not finite"):
        cluster_embeddings(embeddings)
