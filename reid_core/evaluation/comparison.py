"""The difference between two evaluations of the same queries: its interval, and how likely chance makes it.

Queries are paired, and people drawn, not queries: the images of one person succeed or fail together. The interval is
a bootstrap's over identities; the p-value is of a permutation test, in which each person's two results change places
or do not, all queries of the person together (Smucker, Allan and Carterette 2007, "A Comparison of Statistical
Significance Tests for Information Retrieval Evaluation", on clusters).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid_core.evaluation.interval import SEED, bootstrap_interval

PERMUTATIONS = 10_000
SIGNIFICANCE = 0.05

_SIGNS_AT_ONCE = 2**22

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean of one measure in two evaluations `a` and `b`, over the same queries; `difference` is b - a.

    `interval` holds the middle 95 % of its resamples; `p_value` the probability that a difference as large either way
    comes about by chance; `different` is true where that is below 0.05.
    """

    a: float
    b: float
    difference: float
    interval: tuple[float, float]
    p_value: float
    different: bool


def compare(a: Floats, b: Floats, identities: NDArray[np.int64]) -> Difference:
    """The difference of the means of two evaluations' values, each (N,) for the same queries, of those people."""
    changes = b - a
    generator = np.random.default_rng(SEED)
    ((low, high),) = bootstrap_interval(changes[None], identities, generator).tolist()
    p_value = _permute(changes, identities, generator)
    return Difference(
        a=float(a.mean()),
        b=float(b.mean()),
        difference=float(changes.mean()),
        interval=(low, high),
        p_value=p_value,
        different=p_value < SIGNIFICANCE,
    )


def _permute(changes: Floats, identities: NDArray[np.int64], generator: np.random.Generator) -> float:
    people, person = np.unique(identities, return_inverse=True)
    sums = np.bincount(person, weights=changes)
    observed = abs(sums.sum()) - 1e-9 * np.abs(sums).sum()  # sums that are equal but for rounding count as equal
    rows, extreme = max(1, _SIGNS_AT_ONCE // len(people)), 0
    for start in range(0, PERMUTATIONS, rows):
        count = min(rows, PERMUTATIONS - start)
        signs = generator.integers(0, 2, size=(count, len(people)), dtype=np.int8) * np.int8(2) - np.int8(1)
        extreme += int(np.count_nonzero(np.abs(signs.astype(np.float64) @ sums) >= observed))
    return (1 + extreme) / (1 + PERMUTATIONS)
