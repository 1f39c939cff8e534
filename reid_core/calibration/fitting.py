"""Fitting curves to scored pairs: logistic (Platt 1999) and isotonic (Zadrozny and Elkan 2002)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reid_core.calibration.curves import Curve, CurveKind, Floats, sigmoid
from reid_core.calibration.pairs import ScoredPairs

_GROUPS = 500
"""Groups of neighbouring scores for each of the two kinds of pairs, with as many pairs of that kind in each."""

_STEPS = 50


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """Pairs in groups of neighbouring scores, which rise: mean score and number of pairs of either kind in each."""

    scores: Floats
    same: Floats
    different: Floats


def fit_logistic(pairs: ScoredPairs) -> Curve:
    """The line through which the logistic loss is least, both kinds of pairs weighing alike; it never falls.

    The targets are those of Platt, a little inside of 0 and 1, so that pairs which a score tells apart without error
    give a finite slope.
    """
    groups = _group(pairs)
    slope, offset = _fit_line(groups)
    ends = (float(pairs.scores.min()), float(pairs.scores.max()))
    return Curve("logistic", ends, (slope * ends[0] + offset, slope * ends[1] + offset))


def fit_isotonic(pairs: ScoredPairs) -> Curve:
    """The rising steps by pooling adjacent violators, joined at their middles.

    A step's ratio counts half a pair more of either kind, so that steps of one kind alone are finite.
    """
    groups = _group(pairs)
    num_same, num_different = groups.same.sum(), groups.different.sum()
    same, different, scores = _pool(groups)
    ratios = np.log((same + 0.5) / (num_same + 1)) - np.log((different + 0.5) / (num_different + 1))
    # Half a pair more weighs most in small steps, which may so fall behind the step before.
    rising = np.maximum.accumulate(ratios)
    return Curve("isotonic", tuple(scores.tolist()), tuple(rising.tolist()))


FITS: dict[CurveKind, Callable[[ScoredPairs], Curve]] = {"logistic": fit_logistic, "isotonic": fit_isotonic}


def _group(pairs: ScoredPairs) -> _Groups:
    same = pairs.same
    shares = np.linspace(0, 1, _GROUPS + 1)
    edges = np.unique([np.quantile(pairs.scores[kind], shares) for kind in (same, ~same)])
    places = np.searchsorted(edges, pairs.scores)
    counts = np.bincount(places).astype(np.float64)
    taken = counts > 0
    means = np.bincount(places, pairs.scores)[taken] / counts[taken]
    num_same = np.bincount(places, same)[taken].astype(np.float64)
    return _Groups(means, num_same, counts[taken] - num_same)


def _fit_line(groups: _Groups) -> tuple[float, float]:
    """Slope, 0 or more, and offset of the log-likelihood ratio, by Newton's method."""
    num_same, num_different = groups.same.sum(), groups.different.sum()
    weights = groups.same / num_same + groups.different / num_different
    hits = groups.same / num_same * (num_same + 1) / (num_same + 2) + groups.different / num_different / (
        num_different + 2
    )
    centre, spread = groups.scores.mean(), groups.scores.std() or 1.0
    inputs = np.stack([(groups.scores - centre) / spread, np.ones(len(weights))])

    def loss(line: Floats) -> float:
        values = line @ inputs
        return float((weights * np.logaddexp(0, values) - hits * values).sum())

    line = np.zeros(2)
    for _ in range(_STEPS):
        predicted = sigmoid(line @ inputs)
        gradient = inputs @ (weights * predicted - hits)
        curvature = (inputs * (weights * predicted * (1 - predicted))) @ inputs.T + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        while loss(line - step) > loss(line) and np.abs(step).max() > 1e-12:
            step /= 2
        line -= step
        if np.abs(step).max() < 1e-9:
            break
    if line[0] <= 0:  # the scores order pairs no better than chance
        return 0.0, 0.0
    return float(line[0] / spread), float(line[1] - line[0] * centre / spread)


def _pool(groups: _Groups) -> tuple[Floats, Floats, Floats]:
    """Numbers of pairs of either kind, and mean score, of steps whose share of "same" pairs rises."""
    steps: list[tuple[float, float, float]] = []  # same, different, sum of scores
    for score, same, different in zip(groups.scores, groups.same, groups.different, strict=True):
        step = (same, different, score * (same + different))
        while steps and steps[-1][0] * step[1] >= step[0] * steps[-1][1]:
            before = steps.pop()
            step = (before[0] + step[0], before[1] + step[1], before[2] + step[2])
        steps.append(step)
    same, different, sums = np.array(steps).T
    return same, different, sums / (same + different)
