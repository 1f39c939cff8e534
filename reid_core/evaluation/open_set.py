"""Open set: some queries show people whom the gallery does not hold, and must be told so.

Detection and identification rate at a false-accept rate (Phillips, Grother and Micheals 2011, "Evaluation Methods in
Face Recognition"): the share of queries with a match whose first result shows their person with a score above a
threshold, which at most that share of the queries without a match exceeds with any result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid_core.data.records import ImageRecord
from reid_core.errors import DatasetError
from reid_core.evaluation.metrics import Metrics

FALSE_ACCEPTS = {"0.1": 10, "0.01": 100, "0.001": 1000}
"""The false-accept rates as the API writes them, each by how many queries without a match there are to one accepted."""


@dataclass(frozen=True, slots=True)
class OpenSetRates:
    """Detection and identification rates, larger is better, and their thresholds; `mated` queries have a match."""

    rate: dict[str, float]
    threshold: dict[str, float | None]
    mated_queries: int
    unmated_queries: int


def take_out(
    query: Sequence[ImageRecord], gallery: Sequence[ImageRecord], share: float, seed: int
) -> tuple[list[ImageRecord], int]:
    """The gallery without a share of the queries' identities, at least one, and how many those are.

    They are drawn among the identities that both have, in the order of their names. Raises DatasetError where fewer
    than two are.
    """
    shared = sorted({image.identity for image in query} & {image.identity for image in gallery})
    if len(shared) < 2:
        raise DatasetError(
            f"An open set needs two people or more in both query and gallery; there are {len(shared)}.",
            hint="Some of them are taken out of the gallery, others stay; use a larger data set.",
        )
    count = min(max(1, round(share * len(shared))), len(shared) - 1)
    gone = set(np.random.default_rng(seed).choice(shared, count, replace=False).tolist())
    return [image for image in gallery if image.identity not in gone], count


def measure_open_set(metrics: Metrics) -> OpenSetRates:
    """The rates of these rankings, in which queries without a match are unmated. Scores must mean the same for all."""
    mated = metrics.first_rank > 0
    first = np.array([row.first_scores[0] if len(row.first_scores) else -np.inf for row in metrics.rows])
    detected, falsely = first[mated & (metrics.first_rank == 1)], np.sort(first[~mated])[::-1]
    thresholds = {rate: _threshold(falsely, share) for rate, share in FALSE_ACCEPTS.items()}
    return OpenSetRates(
        rate={rate: float(np.sum(detected > threshold) / mated.sum()) for rate, threshold in thresholds.items()},
        threshold={rate: float(value) if np.isfinite(value) else None for rate, value in thresholds.items()},
        mated_queries=int(mated.sum()),
        unmated_queries=int(np.sum(~mated)),
    )


def _threshold(falling: NDArray[np.float64], share: int) -> float:
    """The highest score that need not be exceeded for a rate of 1 / `share`."""
    place = len(falling) // share
    return float(falling[place]) if place < len(falling) else -np.inf
