"""Metrics from the ranks of all matches: CMC, mAP, mINP, each query's own value, and intervals of the means.

CMC: Zheng et al. 2015 (Market-1501). mINP: Ye et al. 2021, eq. 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_core.evaluation.cameras import CameraPair, measure_camera_pairs
from reid_core.evaluation.interval import SEED, bootstrap_interval
from reid_core.evaluation.labels import Integers, Labels
from reid_core.evaluation.rows import Row
from reid_core.evaluation.verification import Impostors, Verification

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Metrics:
    """Accuracy over the queries that have a match in the gallery; every measure is in 0..1, larger is better.

    Attributes:
        cmc: rank -> share of queries with a match among that many images.
        valid_queries: queries with at least one match; the others count nowhere.
        interval: 95 % bootstrap interval over query identities of `mAP`, `mINP` and `rank1`.
        verification: None where scores of different queries cannot be compared.
        average_precision: (queries,) NaN where a query has no match.
        first_rank: (queries,) rank of the best match from 1; 0 where a query has no match.
        rows: each query's ranking.
    """

    cmc: dict[int, float]
    mAP: float  # noqa: N815 - the field's name for it, and the contract's
    mINP: float  # noqa: N815
    valid_queries: int
    queries: int
    gallery: int
    protocol: dict[str, object]
    interval: dict[str, tuple[float, float]]
    verification: Verification | None
    camera_pairs: Sequence[CameraPair]
    average_precision: Floats
    first_rank: Integers
    rows: Sequence[Row]

    def as_json(self) -> dict[str, Any]:
        """Returns the metrics as the API shows them, but for `camera_pairs`, whose codes need the names of cameras."""
        return {
            "cmc": {str(rank): share for rank, share in self.cmc.items()},
            "mAP": self.mAP,
            "mINP": self.mINP,
            "valid_queries": self.valid_queries,
            "queries": self.queries,
            "gallery": self.gallery,
            "protocol": self.protocol,
            "interval": {name: list(ends) for name, ends in self.interval.items()},
            "verification": None if self.verification is None else asdict(self.verification),
        }


def measure(
    rows: Sequence[Row],
    labels: Labels,
    impostors: Impostors | None,
    *,
    gallery: int,
    ranks: Sequence[int],
    protocol: dict[str, object],
) -> Metrics:
    """The metrics of Q queries of which at least one has a match.

    Args:
        rows: of each query its ranking; without matches where it has none.
        labels: (Q,) whom each query shows, and on which camera.
        impostors: the scores of all its pairs of different people; None where queries' scores cannot be compared.
        gallery: number of gallery images.
        ranks: where the CMC is read.
        protocol: how the ranks came about, carried along.
    """
    all_counts = np.array([len(row.ranks) for row in rows])
    valid = all_counts > 0
    stops = all_counts.cumsum()[valid]
    counts = all_counts[valid]
    starts = stops - counts
    ranked = np.concatenate([row.ranks for row in rows])
    precision = (np.arange(len(ranked)) - np.repeat(starts, counts) + 1) / ranked
    average_precision = np.full(len(rows), np.nan)
    average_precision[valid] = np.add.reduceat(precision, starts) / counts
    first_rank = np.zeros(len(rows), dtype=np.int64)
    first_rank[valid] = ranked[starts]
    penalty = counts / ranked[stops - 1]
    return Metrics(
        cmc={rank: float(np.mean(first_rank[valid] <= rank)) for rank in ranks},
        mAP=float(average_precision[valid].mean()),
        mINP=float(penalty.mean()),
        valid_queries=int(valid.sum()),
        queries=len(rows),
        gallery=gallery,
        protocol=protocol,
        interval=_intervals(average_precision[valid], penalty, first_rank[valid], labels.identities[valid]),
        verification=None if impostors is None else impostors.verify(np.concatenate([row.scores for row in rows])),
        camera_pairs=measure_camera_pairs(labels.cameras, all_counts, *_of_matches(rows)),
        average_precision=average_precision,
        first_rank=first_rank,
        rows=rows,
    )


def _of_matches(rows: Sequence[Row]) -> tuple[Integers, Integers]:
    """The cameras of all matches, and their ranks there."""
    return np.concatenate([row.cameras for row in rows]), np.concatenate([row.camera_ranks for row in rows])


def _intervals(
    average_precision: Floats, penalty: Floats, first_rank: Integers, identities: Integers
) -> dict[str, tuple[float, float]]:
    values = np.stack([average_precision, penalty, first_rank == 1])
    ends = bootstrap_interval(values, identities, np.random.default_rng(SEED))
    return {name: (float(low), float(high)) for name, (low, high) in zip(("mAP", "mINP", "rank1"), ends, strict=True)}
