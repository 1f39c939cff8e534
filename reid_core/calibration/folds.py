"""The choice of a curve by cross-validation over people, and how well it holds for people it has not seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_core.calibration.curves import Curve, Floats, probability
from reid_core.calibration.fitting import FITS
from reid_core.calibration.pairs import ScoredPairs
from reid_core.errors import DatasetError

FOLDS = 5
LEAST_PEOPLE = 2 * FOLDS
"""People seen by more than one camera: a fold with fewer than two has no pair of different ones."""

BINS = 10
_SEED = 0


@dataclass(frozen=True, slots=True)
class Bin:
    """Held-out pairs whose probability lies from `low` to `high`: the mean of that, and the share of "same" pairs.

    `share` is that of the bin among all pairs, both kinds weighing alike in all of these.
    """

    low: float
    high: float
    predicted: float
    observed: float
    share: float


@dataclass(frozen=True, slots=True)
class HeldOutFit:
    """The chosen curve, fitted on all pairs, and what curves of its kind reached on people held out of their fits.

    Attributes:
        log_loss: of each kind of curve, in nats, both kinds of pairs weighing alike; no information is log 2.
        expected_calibration_error: mean distance of the bins' `predicted` and `observed`, 0 to 1.
        reliability: the bins that hold pairs, probabilities rising.
    """

    curve: Curve
    log_loss: dict[str, float]
    expected_calibration_error: float
    reliability: tuple[Bin, ...]

    def as_json(self) -> dict[str, Any]:
        """The fit as plain values."""
        return {
            "curve": self.curve.as_json(),
            "folds": FOLDS,
            "log_loss": self.log_loss,
            "expected_calibration_error": self.expected_calibration_error,
            "reliability": [asdict(one) for one in self.reliability],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> HeldOutFit:
        """The fit that `as_json` gave; raises KeyError or TypeError where a part is missing."""
        bins = tuple(Bin(**one) for one in value["reliability"])
        curve, error = Curve.from_json(value["curve"]), value["expected_calibration_error"]
        return cls(curve, value["log_loss"], error, bins)


def fit_held_out(pairs: ScoredPairs) -> HeldOutFit:
    """Fits each kind of curve, and chooses the one with the lower log loss on held-out people.

    People are dealt out to `FOLDS` folds. A curve that is fitted on pairs of people outside a fold is measured on pairs
    of those inside; pairs that reach across are left out.

    Raises:
        DatasetError: too few people with pairs of their own, or no pairs of different people.
    """
    require_people(pairs)
    folds = list(_deal(pairs))
    same = np.concatenate([inside.same for _, inside in folds])
    evidence = {
        name: np.concatenate([fit(outside).evidence(inside.scores) for outside, inside in folds])
        for name, fit in FITS.items()
    }
    losses = {str(name): log_loss(values, same) for name, values in evidence.items()}
    chosen = min(FITS, key=lambda name: losses[name])
    bins = reliability(probability(evidence[chosen]), same)
    return HeldOutFit(FITS[chosen](pairs), losses, expected_calibration_error(bins), bins)


def require_people(pairs: ScoredPairs) -> None:
    """Raises DatasetError where too few people have pairs of their own, or there are no pairs of different people."""
    people = len(np.unique(pairs.first[pairs.same]))
    if people < LEAST_PEOPLE or pairs.same.all():
        raise DatasetError(
            f"{people} people have images of more than one camera; a calibration needs {LEAST_PEOPLE} or more.",
            hint="Use a data set with more people, and with the camera of each image.",
        )


def log_loss(evidence: Floats, same: NDArray[np.bool_]) -> float:
    """The mean negative log probability of the truth, at a prior of one half: both kinds of pairs weigh alike."""
    return float((np.logaddexp(0, -evidence[same]).mean() + np.logaddexp(0, evidence[~same]).mean()) / 2)


def reliability(probabilities: Floats, same: NDArray[np.bool_], *, balanced: bool = True) -> tuple[Bin, ...]:
    """Bins of equal width, those without pairs left out; where `balanced`, both kinds of pairs weigh alike in all."""
    weights = np.ones(len(same))
    if balanced:
        weights[same], weights[~same] = 0.5 / max(same.sum(), 1), 0.5 / max((~same).sum(), 1)
    weights /= weights.sum()
    places = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    shares, predicted, observed = (
        np.bincount(places, weights * values, BINS) for values in (np.ones(len(same)), probabilities, same)
    )
    return tuple(
        Bin(
            low=number / BINS,
            high=(number + 1) / BINS,
            predicted=float(predicted[number] / shares[number]),
            observed=float(observed[number] / shares[number]),
            share=float(shares[number]),
        )
        for number in np.flatnonzero(shares).tolist()
    )


def expected_calibration_error(bins: tuple[Bin, ...]) -> float:
    """The mean distance between probability and truth over bins, weighed by their shares (Naeini et al. 2015)."""
    return sum(one.share * abs(one.predicted - one.observed) for one in bins)


def _deal(pairs: ScoredPairs) -> Iterator[tuple[ScoredPairs, ScoredPairs]]:
    """Pairs outside and inside of each fold. People with pairs of their own are dealt out first, evenly."""
    generator = np.random.default_rng(_SEED)
    paired = np.unique(pairs.first[pairs.same])
    others = np.setdiff1d(np.union1d(pairs.first, pairs.second), paired)
    dealt = np.concatenate([generator.permutation(paired), generator.permutation(others)])
    fold_of = np.empty(int(dealt.max()) + 1, np.int64)
    fold_of[dealt] = np.arange(len(dealt)) % FOLDS
    first, second = fold_of[pairs.first], fold_of[pairs.second]
    for fold in range(FOLDS):
        yield pairs.where((first != fold) & (second != fold)), pairs.where((first == fold) & (second == fold))
