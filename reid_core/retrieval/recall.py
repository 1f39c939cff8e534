"""Candidate recall: how much of what the matcher would find is among the candidates that the vectors propose."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_core.matching import FoldedHead, folded_scores
from reid_core.retrieval.maps import MapStore
from reid_core.retrieval.store import FeatureStore

CANDIDATES = 100
BEST = 10
MAX_QUERIES = 50
MAX_IMAGES = 4000
MAX_SECONDS = 30.0
_CHUNK = 250


@dataclass(frozen=True, slots=True)
class CandidateRecall:
    """The share `value` of the matcher's 10 best results that lie among the `candidates` best by vector.

    Both were sought in a sample of as many `pictures`, for as many of these as `queries`, themselves left out.
    """

    value: float
    candidates: int
    queries: int
    pictures: int


def estimate_candidate_recall(
    vectors: FeatureStore,
    maps: MapStore,
    head: FoldedHead,
    positions: NDArray[np.int64],
    generator: np.random.Generator,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> CandidateRecall | None:
    """Estimates candidate recall (0 to 1) on a random sample of `positions`; None for fewer than two.

    Compares `MAX_QUERIES` with `MAX_IMAGES`, or with as many as `MAX_SECONDS` allow, so in a larger gallery the
    value is that of a gallery as large as the sample. `on_progress` gets (images done, images in all).
    """
    if len(positions) < 2:
        return None
    sample = generator.permutation(positions)[:MAX_IMAGES]
    queries = sample[:MAX_QUERIES]
    matched = _matched(maps, head, queries, sample, on_progress, should_stop)
    sample = sample[: matched.shape[1]]
    best = _best(matched, min(BEST, len(sample) - 1))
    proposed = _best(vectors.read(queries) @ vectors.read(sample).T, min(CANDIDATES, len(sample) - 1))
    found = [np.isin(*pair).mean() for pair in zip(best, proposed, strict=True)]
    return CandidateRecall(float(np.mean(found)), CANDIDATES, len(queries), len(sample))


def _matched(
    maps: MapStore,
    head: FoldedHead,
    queries: NDArray[np.int64],
    sample: NDArray[np.int64],
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> NDArray[np.float32]:
    """Matching scores (Q, P) with the first P of `sample`: all of them if there is time."""

    def read(positions: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(maps.read(positions)).to(head.weights.device)

    query_maps, scores, started = read(queries), [], time.monotonic()
    for start in range(0, len(sample), _CHUNK):
        chunk = read(sample[start : start + _CHUNK])
        scores.append(folded_scores(query_maps, chunk, head, should_stop=should_stop).cpu())
        on_progress(start + len(chunk), len(sample))
        if time.monotonic() - started > MAX_SECONDS:
            break
    matched: NDArray[np.float32] = torch.cat(scores, dim=1).numpy()
    return matched


def _best(scores: NDArray[np.floating[Any]], k: int) -> NDArray[np.int64]:
    """Columns (Q, k) of the highest scores (Q, P); query q is the image in column q and no result of its own."""
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]
