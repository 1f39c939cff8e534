"""Confidence intervals of means over queries: a bootstrap over identities.

Percentiles of a bootstrap over n people are as narrow as a normal interval with the standard deviation of n, not n - 1.
They are taken farther out, as far as Student's t is: the expanded percentile interval of Hesterberg 2015, "What
Teachers Should Know About the Bootstrap".
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95
SEED = 0

_DRAWN_AT_ONCE = 2**20


def bootstrap_interval(
    values: NDArray[np.float64], identities: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """The expanded percentile interval of each row's mean, (M, 2): low and high end of 95 % confidence.

    Identities are drawn, not queries: the images of one person succeed or fail together, so drawing them one by one
    would make the interval too narrow (cluster bootstrap: Efron and Tibshirani 1993, 8.3 and 13.3). With one identity
    both ends are the mean itself.

    Args:
        values: (M, N) one row per measure, one column per query.
        identities: (N,) the query's person, any codes.
        generator: draws the resamples; the same state gives the same interval.
    """
    people, person = np.unique(identities, return_inverse=True)
    rows = [*values, np.ones(len(person))]  # the last sums to the number of queries
    totals = np.stack([np.bincount(person, weights=row) for row in rows])  # (M + 1, P)
    sums = np.concatenate([drawn @ totals.T for drawn in _resamples(len(people), generator)])
    tail = _tail(len(people))
    ends: NDArray[np.float64] = np.quantile(sums[:, :-1] / sums[:, -1:], (tail, 1 - tail), axis=0)
    return ends.T


def _tail(people: int) -> float:
    """The share of resamples beyond either end: 0.025 for many people, less for few."""
    degrees = max(1, people - 1)
    widened = math.sqrt((degrees + 1) / degrees) * _student_quantile(1 - (1 - LEVEL) / 2, degrees)
    return NormalDist().cdf(-widened)


def _student_quantile(probability: float, degrees: int) -> float:
    """Student's t by its expansion around the normal one (Abramowitz and Stegun 26.7.5); to 0.003 from 5 degrees."""
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(z + sum(term / float(degrees**power) for power, term in enumerate(terms, start=1)))


def _resamples(people: int, generator: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """(resamples, P) how often each person is drawn; all at once take gigabytes of a large set."""
    rows = max(1, min(RESAMPLES, _DRAWN_AT_ONCE // people))
    for start in range(0, RESAMPLES, rows):
        count = min(rows, RESAMPLES - start)
        drawn = generator.integers(people, size=(count, people)) + people * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * people).reshape(count, people).astype(np.float64)
