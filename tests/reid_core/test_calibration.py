"""Calibrations give probabilities: rising with the score, right for people who were held out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_core.calibration.curves import Curve, logit, probability, sigmoid
from reid_core.calibration.fitting import FITS, fit_isotonic, fit_logistic
from reid_core.calibration.folds import (
    LEAST_PEOPLE,
    expected_calibration_error,
    fit_held_out,
    log_loss,
    reliability,
)
from reid_core.calibration.pairs import ScoredPairs, pairs_across_cameras
from reid_core.errors import DatasetError

PROBES = np.linspace(-3, 3, 601)


def gaussian_pairs(people: int = 60, each: int = 6, *, seed: int = 0, warp: bool = False) -> ScoredPairs:
    """Scores from two normal distributions of equal variance: their log-likelihood ratio is 4 * score."""
    generator = np.random.default_rng(seed)
    same = np.repeat(np.arange(people), each)
    first, second = generator.integers(0, people, (2, 40 * people))
    different = first != second
    first, second = np.concatenate([same, first[different]]), np.concatenate([same, second[different]])
    scores = generator.normal(np.where(first == second, 0.5, -0.5), 0.5)
    return ScoredPairs(np.sinh(4 * scores) if warp else scores, first, second)


@st.composite
def any_pairs(draw: st.DrawFn) -> ScoredPairs:
    """Pairs with at least one of either kind, ties and extremes among their scores."""
    scores = draw(st.lists(st.floats(-1, 1, width=16), min_size=2, max_size=40))
    same = draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    same[0], same[1] = True, False
    return ScoredPairs(np.array(scores), np.zeros(len(scores), np.int64), 1 - np.array(same, np.int64))


@given(pairs=any_pairs(), prior=st.floats(1e-9, 1 - 1e-9))
def test_probabilities_lie_between_0_and_1_and_never_fall(pairs: ScoredPairs, prior: float) -> None:
    for fit in FITS.values():
        values = probability(fit(pairs).evidence(PROBES), prior)
        assert np.isfinite(values).all()
        assert (values >= 0).all()
        assert (values <= 1).all()
        assert (np.diff(values) >= 0).all()


def test_a_logistic_curve_finds_the_true_likelihood_ratio() -> None:
    curve = fit_logistic(gaussian_pairs(people=2000))
    np.testing.assert_allclose(curve.evidence([-0.4, 0.0, 0.4]), [-1.6, 0, 1.6], atol=0.15)


def test_an_isotonic_curve_finds_it_through_any_rising_map() -> None:
    curve = fit_isotonic(gaussian_pairs(people=2000, warp=True))
    np.testing.assert_allclose(curve.evidence(np.sinh([-1.6, 0.0, 1.6])), [-1.6, 0, 1.6], atol=0.35)


def test_isotonic_steps_are_those_of_a_plain_search_for_the_best_rising_shares() -> None:
    generator = np.random.default_rng(3)
    scores, same = np.arange(40.0), generator.random(40) < np.linspace(0.1, 0.9, 40)
    curve = fit_isotonic(ScoredPairs(scores, np.zeros(40, np.int64), 1 - same.astype(np.int64)))
    # The min-max formula of Robertson et al. 1988: max over starts of min over ends of the mean between.
    means = [max(min(same[a : b + 1].mean() for b in range(i, 40)) for a in range(i + 1)) for i in range(40)]
    starts = [0, *[i for i in range(1, 40) if means[i] > means[i - 1]]]
    assert curve.scores == tuple(float(scores[a:b].mean()) for a, b in zip(starts, [*starts[1:], 40], strict=True))


def test_scores_beyond_all_known_ones_are_no_stronger_evidence() -> None:
    curve = fit_logistic(gaussian_pairs())
    assert curve.evidence(1e6) == curve.ratios[-1]
    assert curve.evidence(-1e6) == curve.ratios[0]


def test_scores_that_order_pairs_the_wrong_way_round_say_nothing() -> None:
    pairs = gaussian_pairs()
    turned = ScoredPairs(-pairs.scores, pairs.first, pairs.second)
    assert (fit_logistic(turned).evidence(PROBES) == 0).all()
    np.testing.assert_allclose(fit_isotonic(turned).evidence(PROBES), 0, atol=1e-2)


def test_the_kind_with_the_lower_held_out_loss_is_chosen() -> None:
    straight, warped = (fit_held_out(gaussian_pairs(300, warp=warp)) for warp in (False, True))
    assert (straight.curve.kind, warped.curve.kind) == ("logistic", "isotonic")
    for fit in (straight, warped):
        assert fit.log_loss[fit.curve.kind] == min(fit.log_loss.values())
        assert fit.expected_calibration_error < 0.05
    drawn = gaussian_pairs(300)
    best = log_loss(4 * drawn.scores, drawn.same)
    assert straight.log_loss["logistic"] == pytest.approx(best, abs=0.03)


def test_people_of_a_fold_are_in_no_pair_that_its_curve_is_fitted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ScoredPairs] = []

    def remember(pairs: ScoredPairs) -> Curve:
        seen.append(pairs)
        return fit_logistic(pairs)

    pairs = gaussian_pairs(people=20)
    monkeypatch.setitem(FITS, "logistic", remember)
    fit_held_out(pairs)
    for outside in seen[:5]:
        people = set(outside.first) | set(outside.second)
        assert len(people) == 16
    held_out = [set(range(20)) - set(outside.first) - set(outside.second) for outside in seen[:5]]
    assert sorted(person for people in held_out for person in people) == list(range(20))


def test_the_reliability_of_known_probabilities_is_as_they_say() -> None:
    generator = np.random.default_rng(0)
    evidence = generator.normal(0, 2, 200_000)
    same = generator.random(200_000) < sigmoid(evidence)
    bins = reliability(probability(evidence), same, balanced=False)
    assert len(bins) == 10
    assert sum(one.share for one in bins) == pytest.approx(1)
    assert expected_calibration_error(bins) < 0.01
    overconfident = reliability(probability(3 * evidence), same, balanced=False)
    assert expected_calibration_error(overconfident) > 0.1


def test_too_few_people_are_refused_with_both_numbers() -> None:
    with pytest.raises(DatasetError, match=f"9 people .* needs {LEAST_PEOPLE} or more"):
        fit_held_out(gaussian_pairs(people=9))


def test_only_pairs_across_cameras_count_each_once() -> None:
    scores = np.arange(16.0).reshape(4, 4)
    scores = scores + scores.T
    scores[0, 3] = scores[3, 0] = np.nan
    pairs = pairs_across_cameras(scores, ["a", "a", "b", "b"], ["1", "2", "2", ""])
    found = {
        (int(one), int(other), float(score))
        for one, other, score in zip(pairs.first, pairs.second, pairs.scores, strict=True)
    }
    assert found == {(0, 0, 5.0), (0, 1, 10.0), (0, 1, 20.0), (1, 1, 25.0)}
    assert len(pairs) == 4


def test_a_logit_is_the_inverse_of_a_sigmoid_and_finite_at_the_ends() -> None:
    values = np.linspace(-30, 30, 61)
    np.testing.assert_allclose(logit(sigmoid(values)), values, rtol=1e-2)
    assert np.isfinite(logit([0.0, 1.0])).all()


def test_a_curve_comes_back_from_json() -> None:
    curve = fit_isotonic(gaussian_pairs())
    assert Curve.from_json(curve.as_json()) == curve
