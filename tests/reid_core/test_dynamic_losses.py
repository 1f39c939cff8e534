"""Multi-loss dynamic training against a table worked by hand from eq. 5-8 and algorithm 1."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch

from reid_core.losses.dynamic import DynamicLosses, DynamicSettings

# k, p and FL after each step's losses, then the branch and the weights that they give to the next step. Worked by hand
# with alpha = 1/4, gamma = 2, threshold = 0.16; a missing triplet loss is a batch without a positive pair.
TABLE: list[tuple[dict[str, float], dict[str, float], str, tuple[float, float]]] = [
    # The first loss is its own average: nothing has fallen, both FL are 0.
    (
        {"identity": 8, "triplet": 4},
        {"identity_k": 8, "identity_p": 1, "identity_fl": 0, "triplet_k": 4, "triplet_p": 1, "triplet_fl": 0},
        "primary",
        (1, 0),
    ),
    # k = 2 + 6; no positive pair: the triplet loss stays as it was.
    (
        {"identity": 4},
        {"identity_k": 7, "identity_p": 7 / 8, "identity_fl": 0.00208643, "triplet_k": 4, "triplet_p": 1},
        "primary",
        (1, 0),
    ),
    # The identity loss did not fall, the triplet loss did: FL_tp / 0.
    (
        {"identity": 7, "triplet": 2},
        {"identity_k": 7, "identity_p": 1, "identity_fl": 0, "triplet_k": 3.5, "triplet_p": 7 / 8},
        "both",
        (0, 0.00208643),
    ),
    # The triplet loss stays: 0 / FL_id.
    (
        {"identity": 3, "triplet": 3.5},
        {"identity_k": 6, "identity_p": 6 / 7, "identity_fl": 0.00314593, "triplet_k": 3.5, "triplet_fl": 0},
        "primary",
        (1, 0),
    ),
    # Both fall; 0.0000236635 / 0.00506449 = 0.0047 is below the threshold.
    (
        {"identity": 2, "triplet": 3.1},
        {"identity_k": 5, "identity_p": 5 / 6, "identity_fl": 0.00506449, "triplet_k": 3.4, "triplet_fl": 0.0000236635},
        "primary",
        (1, 0),
    ),
    # Both fall; 0.00173236 / 0.0000653152 = 26.5 is above it.
    (
        {"identity": 4.2, "triplet": 1.8},
        {"identity_k": 4.8, "identity_p": 0.96, "triplet_k": 3, "triplet_p": 15 / 17},
        "both",
        (0.0000653152, 0.00173236),
    ),
    # A loss that rises has p = 1, and its average rises.
    (
        {"identity": 8.8, "triplet": 7},
        {"identity_k": 5.8, "identity_p": 1, "triplet_k": 4, "triplet_p": 1, "triplet_fl": 0},
        "primary",
        (1, 0),
    ),
    # A loss of zero: p is 3/4, the least that alpha = 1/4 allows, and FL 0.0179801 the most.
    (
        {"identity": 1.8, "triplet": 0},
        {"identity_k": 4.8, "identity_p": 24 / 29, "identity_fl": 0.00562551, "triplet_k": 3, "triplet_p": 0.75},
        "both",
        (0.00562551, 0.0179801),
    ),
    # A loss that is not finite leaves its measures as they were.
    (
        {"identity": math.nan, "triplet": math.inf},
        {"identity_k": 4.8, "identity_p": 24 / 29, "triplet_k": 3, "triplet_p": 0.75},
        "both",
        (0.00562551, 0.0179801),
    ),
]


def make(**changes: Any) -> DynamicLosses:
    return DynamicLosses("identity", "triplet", DynamicSettings(**changes))


def decide(dynamics: DynamicLosses, losses: dict[str, float]) -> tuple[str, tuple[float, float]]:
    dynamics.update(losses)
    weights = dynamics.weights()
    return dynamics.branch, (weights["identity"], weights["triplet"])


def test_averages_likelihoods_weights_and_branches_are_those_worked_by_hand() -> None:
    dynamics = make()
    for losses, measures, branch, weights in TABLE:
        got_branch, got_weights = decide(dynamics, losses)
        got_measures = dynamics.measures()
        assert {name: got_measures[name] for name in measures} == pytest.approx(measures, rel=1e-5, abs=1e-15)
        assert got_branch == branch
        assert got_weights == pytest.approx(weights, rel=1e-5, abs=1e-15)


def test_the_first_step_minimises_the_primary_loss_alone() -> None:
    dynamics = make()
    assert dynamics.branch == "primary"
    assert dynamics.weights() == {"identity": 1, "triplet": 0}
    # Algorithm 1: p_id = 0, whose FL would be infinite, and p_tp = 1; there is no average yet.
    assert dynamics.measures() == {
        "identity_p": 0,
        "triplet_p": 1,
        "identity_fl": pytest.approx(6 * math.log(10), rel=1e-5),
        "triplet_fl": 0,
    }


def test_neither_branch_nor_weights_change_before_the_losses_are_given() -> None:
    dynamics = make()
    for losses, _, branch, weights in TABLE:
        dynamics.update(losses)
        for _ in range(2):
            assert dynamics.branch == branch
            assert tuple(dynamics.weights().values()) == pytest.approx(weights, rel=1e-5, abs=1e-15)


def test_a_ratio_on_the_threshold_takes_both_losses() -> None:
    below, on = make(threshold=1 + 1e-9), make(threshold=1)
    for dynamics in (below, on):
        dynamics.update({"identity": 8, "triplet": 2})
        dynamics.update({"identity": 4, "triplet": 1})
    assert (below.branch, on.branch) == ("primary", "both")


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_constant_losses_take_the_primary_branch(steps: int) -> None:
    # 0.3 * 0.1 + 0.7 * 0.1 rounds to less than 0.1: no loss fell, but rounding would say that the second did.
    dynamics = make(alpha=0.3)
    for _ in range(steps):
        assert decide(dynamics, {"identity": 0.7, "triplet": 0.1}) == ("primary", (1, 0))
    assert dynamics.measures()["triplet_p"] == 1


def test_zero_losses_have_nothing_left_to_reduce() -> None:
    dynamics = make()
    for loss in (0.0, 0.0, 2.0):
        assert decide(dynamics, {"identity": loss, "triplet": loss}) == ("primary", (1, 0))
    # k was 0, so p = 1; from here on it falls as any other.
    assert dynamics.measures()["triplet_k"] == 0.5
    assert decide(dynamics, {"identity": 2, "triplet": 0.1})[0] == "both"


def test_a_loss_that_vanishes_in_one_step_has_a_finite_weight() -> None:
    dynamics = make(alpha=1.0)
    dynamics.update({"identity": 2, "triplet": 2})
    dynamics.update({"identity": 2, "triplet": 0})
    assert dynamics.measures()["triplet_p"] == 0
    assert dynamics.weights() == {"identity": 0, "triplet": pytest.approx(6 * math.log(10), rel=1e-5)}


def test_a_secondary_loss_that_is_never_measured_is_never_taken() -> None:
    dynamics = make()
    for loss in (5, 5, 3, 4, 0, 0, 6):
        assert decide(dynamics, {"identity": loss}) == ("primary", (1, 0))
    assert "triplet_k" not in dynamics.measures()


def test_equal_weighting_keeps_the_branches_and_weighs_both_losses_alike() -> None:
    dynamics = make(weighting="equal")
    for losses, _, branch, _ in TABLE:
        assert decide(dynamics, losses) == (branch, (1, 0) if branch == "primary" else (1, 1))


def test_where_it_is_not_enabled_both_losses_count_alike_at_every_step() -> None:
    dynamics = make(enabled=False)
    for losses, *_ in TABLE:
        assert dynamics.branch == "both"
        assert decide(dynamics, losses) == ("both", (1, 1))


def test_a_step_gives_weighted_terms_and_records_the_plain_losses_and_its_branch() -> None:
    dynamics, expected = make(), make()
    for losses, *_ in TABLE[:7]:
        values = {name: torch.tensor(loss, dtype=torch.float64, requires_grad=True) for name, loss in losses.items()}
        weights, branch = expected.weights(), expected.branch
        terms, measures = dynamics.step(values)
        expected.update(losses)
        counted = {name for name in losses if weights[name] > 0}
        assert {name: term.item() for name, term in terms.items()} == {
            f"weighted_{name}": pytest.approx(weights[name] * losses[name]) for name in counted
        }
        assert float(measures["both_losses"]) == (branch == "both")
        assert {name: float(measures[name]) for name in losses} == losses
        wanted = expected.measures()
        assert {name: float(measures[name]) for name in wanted} == pytest.approx(wanted, rel=1e-6)
        assert all(term.requires_grad for term in terms.values())
        assert not any(measure.requires_grad for measure in measures.values())


@pytest.mark.parametrize("changes", [{}, {"weighting": "equal"}, {"enabled": False}])
def test_a_batch_without_the_secondary_loss_minimises_the_primary_one(changes: dict[str, Any]) -> None:
    dynamics = make(**changes)
    for losses, *_ in TABLE[:3]:
        dynamics.update(losses)
    assert dynamics.branch == "both"  # with focal weights the primary loss would weigh nothing
    terms, measures = dynamics.step({"identity": torch.tensor(3.0)})
    assert terms == {"weighted_identity": 3}
    assert measures["both_losses"] == 0


def test_other_losses_are_ignored() -> None:
    dynamics = make()
    dynamics.update({"identity": 1, "triplet": 1, "center": 5})
    assert set(dynamics.weights()) == {"identity", "triplet"}
    assert not any(name.startswith("center") for name in dynamics.measures())


@pytest.mark.parametrize("interrupted_after", range(len(TABLE)))
def test_a_restored_state_goes_on_exactly(interrupted_after: int) -> None:
    unbroken, broken = make(), make()
    for losses, *_ in TABLE[:interrupted_after]:
        unbroken.update(losses)
        broken.update(losses)
    file = io.BytesIO()
    torch.save(broken.state_dict(), file)
    file.seek(0)
    resumed = make()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for losses, *_ in TABLE[interrupted_after:]:
        assert resumed.measures() == unbroken.measures()
        assert decide(resumed, losses) == decide(unbroken, losses)
