"""Verification: are two images of one person? True-accept rates at false-accept rates, over all pairs that count.

A pair is a query that has a match and a gallery image that counts for it; scores of all queries are pooled, as
`evaluate_roc` of fast-reid does. The true-accept rate at a false-accept rate f is the share of matching pairs whose
score is above that of the (floor(f N) + 1)-th best of N impostor pairs: at most a share f of impostors is accepted.

All impostors of a large data set are a billion scores. Of the best hundredth each is kept, which gives these rates
exactly; of the others the upper 16 bits of the float are counted, so that the curve's points are exact, too, but lie at
scores of 8 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid_core.evaluation.labels import Targets

Scores = NDArray[np.float32]

FALSE_ACCEPTS = {"0.01": 100, "0.001": 1000, "0.0001": 10_000}
"""The false-accept rates as the API writes them, each by how many impostors there are to one accepted."""

CURVE_POINTS = 61
_LOWEST_RATE = 1e-6
_KEYS = 2**16
_NEGATIVE = 2**15
"""Keys from here on are of scores below zero."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The true-accept rate at each of FALSE_ACCEPTS with its score, and the curve.

    Attributes:
        tpr: false-accept rate -> share of matching pairs accepted.
        threshold: false-accept rate -> the score that must be exceeded; None where none need be.
        curve: (false-accept rate, true-accept rate) of `CURVE_POINTS` scores, rising; near 1e-6 ... 1 in equal ratios.
    """

    tpr: dict[str, float]
    threshold: dict[str, float | None]
    curve: list[tuple[float, float]]
    matching_pairs: int
    impostor_pairs: int


class Impostors:
    """The scores of pairs of different people, taken in block by block."""

    def __init__(self, targets: Sequence[Targets], gallery: int) -> None:
        counted = [len(target.matches) + len(target.removed) for target in targets if len(target.matches)]
        self.pairs = len(counted) * gallery - sum(counted)
        self._kept = self.pairs // min(FALSE_ACCEPTS.values()) + 1
        self._counts = np.zeros(_KEYS, dtype=np.int64)
        self._best: list[Scores] = []
        self.least = np.float32(-np.inf)
        """Scores below this one are none of the best."""

    def add(self, counts: NDArray[np.int64], best: Sequence[Scores]) -> None:
        """Takes in how many scores have each key, by `count_keys`, and all that reach `least`."""
        self._counts += counts
        self._best += best
        if sum(map(len, self._best)) > 2 * self._kept:
            self._best = [self._select()]
            self.least = self._best[0].min()

    def verify(self, matching: Scores) -> Verification:
        """The rates for these scores of all matching pairs, beside all impostors taken in."""
        best = np.sort(self._select())[::-1]
        thresholds = {rate: _at(best, self.pairs // share) for rate, share in FALSE_ACCEPTS.items()}
        return Verification(
            tpr={rate: _share_above(matching, threshold) for rate, threshold in thresholds.items()},
            threshold={rate: _finite(threshold) for rate, threshold in thresholds.items()},
            curve=_curve(self._counts, count_keys(matching)),
            matching_pairs=len(matching),
            impostor_pairs=self.pairs,
        )

    def _select(self) -> Scores:
        best = np.concatenate(self._best) if self._best else np.empty(0, np.float32)
        start = len(best) - self._kept
        return np.partition(best, start)[start:] if start > 0 else best


def count_keys(scores: Scores) -> NDArray[np.int64]:
    """(65536,) how many scores have each upper half of a float32; that of -0 counts as that of 0."""
    halves = np.ascontiguousarray(scores, dtype="<f4").view("<u2").reshape(-1, 2)[:, 1]
    counts = np.bincount(halves, minlength=_KEYS)
    counts[0] += counts[_NEGATIVE]
    counts[_NEGATIVE] = 0
    return counts


def _at(best: Scores, place: int) -> np.float32 | None:
    """None where there are no impostors."""
    return best[place] if place < len(best) else None


def _finite(threshold: np.float32 | None) -> float | None:
    return None if threshold is None or not np.isfinite(threshold) else float(threshold)


def _share_above(matching: Scores, threshold: np.float32 | None) -> float:
    return 1.0 if threshold is None else float(np.mean(matching > threshold))


def _curve(impostors: NDArray[np.int64], matching: NDArray[np.int64]) -> list[tuple[float, float]]:
    """The last point that does not exceed each of the rates aimed at: (false-accept rate, true-accept rate)."""
    false, true = (_accepted(counts) for counts in (impostors, matching))
    aims = np.logspace(np.log10(_LOWEST_RATE), 0, CURVE_POINTS)
    places = np.searchsorted(false, aims, side="right") - 1
    return list(zip(false[places].tolist(), true[places].tolist(), strict=True))


def _accepted(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of scores with at least each key, from none to all: the best key first."""
    falling = np.concatenate([[0], counts[:_NEGATIVE][::-1], counts[_NEGATIVE:]])
    shares: NDArray[np.float64] = falling.cumsum() / max(1, falling.sum())
    return shares
