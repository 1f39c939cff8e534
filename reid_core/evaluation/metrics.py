"""Metrics from the ranks of all matches: CMC, mAP, mINP, each query's own value, and intervals of the means.

CMC: Zheng et al. 2015 (Market-1501). mINP: Ye et al. 2021, eq. 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_core.evaluation.interval import bootstrap_interval

Integers = NDArray[np.int64]

_INTERVAL_SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Metrics:
    """Accuracy over the queries that have a match in the gallery; every measure is in 0..1, larger is better.

    Attributes:
        cmc: rank -> share of queries with a match among that many images.
        valid_queries: queries with at least one match; the others count nowhere.
        interval: 95 % bootstrap interval over query identities of `mAP` and `rank1`.
        average_precision: (queries,) NaN where a query has no match.
        first_rank: (queries,) rank of the best match from 1; 0 where a query has no match.
    """

    cmc: dict[int, float]
    mAP: float  # noqa: N815 - the field's name for it, and the contract's
    mINP: float  # noqa: N815
    valid_queries: int
    queries: int
    gallery: int
    protocol: dict[str, object]
    interval: dict[str, tuple[float, float]]
    average_precision: NDArray[np.float64]
    first_rank: Integers

    def as_json(self) -> dict[str, Any]:
        """Returns the metrics as the API shows them."""
        return {
            "cmc": {str(rank): share for rank, share in self.cmc.items()},
            "mAP": self.mAP,
            "mINP": self.mINP,
            "valid_queries": self.valid_queries,
            "queries": self.queries,
            "gallery": self.gallery,
            "protocol": self.protocol,
            "interval": {name: list(ends) for name, ends in self.interval.items()},
        }


def measure(
    found: Sequence[Integers],
    identities: Integers,
    *,
    gallery: int,
    ranks: Sequence[int],
    protocol: dict[str, object],
) -> Metrics:
    """The metrics of Q queries of which at least one has a match.

    Args:
        found: of each query the ranks of all its matches, from 1, ascending; empty where it has none.
        identities: (Q,) whom each query shows, any codes.
        gallery: number of gallery images.
        ranks: where the CMC is read.
        protocol: how the ranks came about, carried along.
    """
    counts = np.array([len(matches) for matches in found])
    valid = counts > 0
    stops = counts.cumsum()[valid]
    counts = counts[valid]
    starts = stops - counts
    ranked = np.concatenate(found)
    precision = (np.arange(len(ranked)) - np.repeat(starts, counts) + 1) / ranked
    average_precision = np.full(len(found), np.nan)
    average_precision[valid] = np.add.reduceat(precision, starts) / counts
    first_rank = np.zeros(len(found), dtype=np.int64)
    first_rank[valid] = ranked[starts]
    return Metrics(
        cmc={rank: float(np.mean(first_rank[valid] <= rank)) for rank in ranks},
        mAP=float(average_precision[valid].mean()),
        mINP=float(np.mean(counts / ranked[stops - 1])),
        valid_queries=int(valid.sum()),
        queries=len(found),
        gallery=gallery,
        protocol=protocol,
        interval=_intervals(average_precision[valid], first_rank[valid], identities[valid]),
        average_precision=average_precision,
        first_rank=first_rank,
    )


def _intervals(
    average_precision: NDArray[np.float64], first_rank: Integers, identities: Integers
) -> dict[str, tuple[float, float]]:
    values = np.stack([average_precision, first_rank == 1])
    ends = bootstrap_interval(values, identities, np.random.default_rng(_INTERVAL_SEED))
    return {name: (float(low), float(high)) for name, (low, high) in zip(("mAP", "rank1"), ends, strict=True)}
