"""Strangers: how high people who are not in a gallery score there, by the gallery's own people without their images.

Each probe is an image of the gallery, searched among all other people's. Of P people each is exceeded by chance f, so
a stranger is falsely accepted at a rate of 1 - (1 - f)^P. Beyond what the probes show the tail of scores is continued
by a generalised Pareto distribution (Pickands 1975), fitted by probability-weighted moments (Hosking and Wallis 1987).
Few people leave its scale uncertain, and a threshold at its quantile would be exceeded more often than asked on
average. Where a scale was seen in k independent exceedances of an exponential tail, the next follows a Pareto
distribution of shape -1 / k; so much is taken off the shape. k counts people, not their images, and one more: with it
simulated galleries of 16 to 200 people kept a rate of 0.01 best (0.007 to 0.013, but 0.028 of 16 people with four
images each; without it 0.012 to 0.043).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reid_core.calibration.curves import Floats

TAIL = 0.1
"""Exceedances a probe, above which scores count as the tail."""

BEYOND = 10
"""Rates are told down to a tenth of the lowest that the people probed show: one decade by the tail alone. People count
here and not their images, which resemble others together."""

_EXPONENTIAL = 1e-6
"""Shapes below which the distribution is the exponential one."""


@dataclass(frozen=True, slots=True, eq=False)
class Strangers:
    """Scores of probes with the best image of each other person.

    Attributes:
        scores: (n,) the highest of all, rising; the others lie below.
        probes: number of probes.
        compared: people that each probe was compared with.
        people: people in the gallery, for which rates are told.
    """

    scores: Floats
    probes: int
    compared: int
    people: int

    @property
    def lowest_rate(self) -> float:
        """The lowest false-accept rate that can be told."""
        pairs = BEYOND * min(self.probes, self.compared + 1) * self.compared
        return float(-np.expm1(self.people * np.log1p(-1 / pairs)))

    def threshold(self, rate: float) -> float:
        """The score that a stranger's best reaches at `rate`, between `lowest_rate` and 1."""
        above = -np.expm1(np.log1p(-rate) / self.people) * self.probes * self.compared  # pairs that reach it
        tail = self._tail()
        if above >= len(tail):
            return float(self.scores[max(len(self.scores) - int(above), 0)])
        scale, shape = _fit_pareto(tail - tail[0])
        shape -= 1 / (1 + len(tail) * min(1.0, (self.compared + 1) / self.probes))
        share = np.log(above / len(tail))
        beyond = -scale * (share if abs(shape) < _EXPONENTIAL else np.expm1(shape * share) / shape)
        return float(tail[0] + beyond)

    def _tail(self) -> Floats:
        return self.scores[-max(2, round(TAIL * self.probes)) :]


def _fit_pareto(excess: Floats) -> tuple[float, float]:
    """Scale and shape (k of the source) of the distribution of (n,) excesses, which rise from 0; two or more."""
    above = np.arange(len(excess))[::-1] / (len(excess) - 1)  # the share that lies above each
    mean, weighted = float(excess.mean()), float((excess * above).mean())
    if mean <= 2 * weighted:  # all alike
        return mean, 0.0
    return 2 * mean * weighted / (mean - 2 * weighted), mean / (mean - 2 * weighted) - 2
