"""Losses against naive loops, torch's own values and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from reid_core.losses.center import CenterLoss
from reid_core.losses.distance import euclidean
from reid_core.losses.identity import identity_accuracy, identity_loss
from reid_core.losses.triplet import (
    CameraBias,
    Hardest,
    batch_hard,
    camera_biased_batch_hard,
    triplet_accuracy,
    triplet_loss,
)

IDENTITIES = torch.tensor([0, 0, 1, 1, 2, 2, 2])
CAMERAS = torch.tensor([0, 1, 0, 0, 1, 0, -1])


def random_distances(count: int, seed: int = 0) -> Tensor:
    points = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cdist(points, points)


def naive_hardest(distances: Tensor, identities: Tensor, cameras: Tensor, bias: CameraBias, time: float) -> Hardest:
    """Straight from the slides, one pair at a time; masked entries and the anchor itself are no candidates."""
    count = len(identities)
    masked = {True: np.zeros((count, count)), False: np.zeros((count, count))}
    valid: dict[bool, list[float]] = {True: [], False: []}
    for i in range(count):
        for j in range(count):
            same = bool(identities[i] == identities[j])
            if i != j:
                masked[same][i, j] = distances[i, j]
                valid[same].append(float(distances[i, j]))
    scale = bias.size / (1 + bias.decay * time)
    spread = {
        same: float(np.std(masked[same] if bias.std_over == "masked_matrix" else valid[same] or [0])) * scale
        for same in (True, False)
    }
    sign = {"farther": 1, "nearer": -1, "none": 0}[bias.negatives]
    positive, negative, has_both = [0] * count, [0] * count, []
    for i in range(count):
        best_positive, best_negative = -math.inf, math.inf
        for j in range(count):
            shared = bool(cameras[i] == cameras[j]) and int(cameras[i]) >= 0
            if identities[i] != identities[j]:
                value = float(distances[i, j]) + sign * spread[False] * shared
                if value < best_negative:
                    best_negative, negative[i] = value, j
            elif i != j:
                value = float(distances[i, j]) - spread[True] * shared
                if value > best_positive:
                    best_positive, positive[i] = value, j
        has_both.append(math.isfinite(best_positive) and math.isfinite(best_negative))
    return Hardest(torch.tensor(positive), torch.tensor(negative), torch.tensor(has_both))


def assert_same_selection(got: Hardest, wanted: Hardest) -> None:
    assert torch.equal(got.valid, wanted.valid)
    assert torch.equal(got.positive[got.valid], wanted.positive[got.valid])
    assert torch.equal(got.negative[got.valid], wanted.negative[got.valid])


@pytest.mark.parametrize("negatives", ["farther", "nearer", "none"])
@pytest.mark.parametrize("std_over", ["masked_matrix", "valid_entries"])
@pytest.mark.parametrize(("size", "decay", "time"), [(0, 0.1, 0), (5, 0.1, 0), (5, 0.1, 90), (1, 0, 1000), (9, 0.7, 3)])
def test_camera_bias_selects_what_the_formula_says(
    negatives: str, std_over: str, size: float, decay: float, time: float
) -> None:
    bias = CameraBias(size, decay, negatives, std_over)  # type: ignore[arg-type]
    for seed in range(20):
        distances = random_distances(len(IDENTITIES), seed)
        got = camera_biased_batch_hard(distances, IDENTITIES, CAMERAS, bias, time)
        assert_same_selection(got, naive_hardest(distances, IDENTITIES, CAMERAS, bias, time))


def test_a_cross_camera_positive_wins_over_a_farther_same_camera_one() -> None:
    # The slide's example: 3 on the anchor's own camera becomes 3 - 2 = 1, less than the 2.5 of another camera.
    distances = torch.tensor([[0, 3, 2.5, 9], [3, 0, 1, 9], [2.5, 1, 0, 9], [9, 9, 9, 0]])
    identities, cameras = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
    bias = CameraBias(2 / float(masked_deviation(distances, identities)), 0, "none", "masked_matrix")
    assert batch_hard(distances, identities).positive[0] == 1
    assert camera_biased_batch_hard(distances, identities, cameras, bias, 0).positive[0] == 2


def masked_deviation(distances: Tensor, identities: Tensor) -> Tensor:
    return (distances * (identities[:, None] == identities[None, :])).std(correction=0)


def test_an_identity_on_one_camera_keeps_a_positive_of_its_own_identity() -> None:
    # A bias larger than every positive distance must not turn a masked entry into the "hardest positive".
    distances = random_distances(6)
    identities, cameras = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 0, 1, 1, 1])
    bias = CameraBias(100, 0, "farther", "masked_matrix")
    got = camera_biased_batch_hard(distances, identities, cameras, bias, 0)
    assert torch.equal(identities[got.positive], identities)
    assert torch.equal(got.positive, batch_hard(distances, identities).positive)


def test_a_batch_of_one_camera_is_selected_as_without_bias() -> None:
    distances, cameras = random_distances(len(IDENTITIES)), torch.zeros(len(IDENTITIES), dtype=torch.int64)
    bias = CameraBias(5, 0.1, "farther", "masked_matrix")
    got = camera_biased_batch_hard(distances, IDENTITIES, cameras, bias, 0)
    assert_same_selection(got, batch_hard(distances, IDENTITIES))


@pytest.mark.parametrize("biased", [False, True])
def test_one_image_per_identity_has_no_positive_and_costs_nothing(biased: bool) -> None:
    points = torch.randn(4, 3, requires_grad=True)
    distances, identities = euclidean(points), torch.arange(4)
    bias = CameraBias(5, 0.1, "farther", "valid_entries")
    cameras = torch.zeros(4, dtype=torch.int64)
    hardest = (
        camera_biased_batch_hard(distances, identities, cameras, bias, 0)
        if biased
        else batch_hard(distances, identities)
    )
    assert not hardest.valid.any()
    loss = triplet_loss(distances, hardest, margin=0.3)
    loss.backward()
    assert loss.item() == 0
    assert triplet_accuracy(distances, hardest).item() == 0
    assert points.grad is not None
    assert torch.equal(points.grad, torch.zeros(4, 3))


def test_the_loss_is_computed_on_unbiased_distances() -> None:
    distances = torch.tensor([[0, 1.0, 2], [1.0, 0, 2], [2, 2, 0]])
    identities, cameras = torch.tensor([0, 0, 1]), torch.tensor([0, 0, 0])
    hardest = camera_biased_batch_hard(distances, identities, cameras, CameraBias(9, 0, "farther", "masked_matrix"), 0)
    assert triplet_loss(distances, hardest, margin=1.5) == pytest.approx(0.5)


def test_triplet_loss_equals_torch_on_the_same_triplets() -> None:
    points = torch.randn(7, 5, dtype=torch.float32)
    distances = euclidean(points)
    hardest = batch_hard(distances, IDENTITIES)
    wanted = torch.nn.functional.triplet_margin_loss(
        points, points[hardest.positive], points[hardest.negative], margin=0.3, eps=0
    )
    assert triplet_loss(distances, hardest, margin=0.3) == pytest.approx(float(wanted), rel=1e-4)


def test_euclidean_is_exact_and_its_gradient_finite_between_equal_vectors() -> None:
    points = torch.tensor([[0.0, 3], [4, 0], [0, 3]], requires_grad=True)
    distances = euclidean(points)
    assert distances[0, 1].item() == pytest.approx(5)
    assert float(distances[0, 2].detach()) <= 1e-3
    distances.sum().backward()
    assert points.grad is not None
    assert torch.isfinite(points.grad).all()


def test_smoothed_identity_loss_has_its_closed_form() -> None:
    logits, labels = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    log_p = torch.log_softmax(logits, 1)[0]
    wanted = -(0.9 * log_p[0] + 0.1 / 3 * log_p.sum())
    assert identity_loss(logits, labels, smoothing=0.1) == pytest.approx(float(wanted))
    assert identity_accuracy(logits, labels) == 1


@pytest.mark.parametrize("scale", [1, 0.5])
def test_center_loss_pulls_features_by_its_weight_and_centers_by_their_own_rate(scale: float) -> None:
    loss = CenterLoss(num_classes=2, width=2, weight=0.01)
    with torch.no_grad():
        loss.centers.copy_(torch.tensor([[0.0, 0], [1, 1]]))
    features = torch.tensor([[2.0, 0], [1, 3]], requires_grad=True)
    value = loss(features, torch.tensor([0, 1]), scale=scale)
    value.backward()
    assert value.item() == pytest.approx(scale * 0.01 * (4 + 4) / 2)
    assert features.grad is not None
    assert loss.centers.grad is not None
    assert torch.allclose(features.grad, scale * 0.01 * torch.tensor([[2.0, 0], [0, 2]]))
    assert torch.allclose(loss.centers.grad, torch.tensor([[-2.0, 0], [0, -2]]))
