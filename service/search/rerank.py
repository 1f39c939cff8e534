"""The stages of a search: what is closest by its vector, then those candidates in a better order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from reid_core.calibration.curves import sigmoid
from reid_core.matching import folded_scores
from reid_core.reranking import score_candidates
from reid_core.retrieval.filters import Filters
from service.search.encoding import EncodedQuery, Matching, read_maps
from service.search.fusion import best_scores
from service.search.snapshots import OpenGallery


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image by its position in the gallery. `score` ranks, larger is better; the other two are of retrieval."""

    position: int
    score: float
    retrieval_score: float
    retrieval_rank: int


def retrieve(
    opened: OpenGallery, encoded: EncodedQuery, filters: Filters, k: int, leave_out: int | None, *, exact: bool = False
) -> list[Candidate]:
    """The `k` images closest by their cosine to any embedding of the query, best first.

    `leave_out` is a position that does not come back; `exact` compares with all, whatever the index.
    """
    snapshot, width = opened.snapshot, k if leave_out is None else k + 1
    scores, positions = snapshot.search(encoded.vectors, width, keep=snapshot.keep(filters), exact=exact)
    best, places = best_scores(scores, positions, width)
    return _ranked(zip(places.tolist(), best.clip(-1, 1).tolist(), strict=True), k, leave_out)


def retrieve_each(
    opened: OpenGallery, vectors: NDArray[np.float32], filters: Filters, k: int, left_out: Sequence[int | None]
) -> list[list[Candidate]]:
    """For each of `vectors` (Q, D) the `k` images closest by cosine, best first, without its position of `left_out`."""
    snapshot = opened.snapshot
    width = k if all(position is None for position in left_out) else k + 1
    scores, positions = snapshot.search(vectors, width, keep=snapshot.keep(filters))
    return [
        _ranked(zip(places, values, strict=True), k, own)
        for places, values, own in zip(positions.tolist(), scores.clip(-1, 1).tolist(), left_out, strict=True)
    ]


def rerank(candidates: Sequence[Candidate], kind: str, encoded: EncodedQuery, opened: OpenGallery) -> list[Candidate]:
    """`candidates` by the better scores that `kind` stands for: `qaconv` or `k_reciprocal`."""
    if not candidates:
        return []
    return (_by_matching if kind == "qaconv" else _by_neighbours)(candidates, encoded, opened)


def score_pairs(matching: Matching, maps: Tensor) -> NDArray[np.float64]:
    """(P, n) scores by the matcher of the query's P images and n maps (n, h * w, c)."""
    maps = maps.to(matching.maps.device)
    scores: NDArray[np.float64] = folded_scores(matching.maps, maps, matching.head).double().cpu().numpy()
    return scores


def _ranked(pairs: Iterable[tuple[int, float]], k: int, leave_out: int | None) -> list[Candidate]:
    """The first `k` of the pairs (position, score), without the position `leave_out`."""
    ranked = [pair for pair in pairs if pair[0] != leave_out]
    return [Candidate(position, score, score, rank) for rank, (position, score) in enumerate(ranked[:k], 1)]


def _by_matching(candidates: Sequence[Candidate], encoded: EncodedQuery, opened: OpenGallery) -> list[Candidate]:
    """`candidates` in the order of the matcher's scores; their own is its probability of "the same person", 0 to 1.

    Probabilities close to 1 become equal while the scores that they come from still differ. Equal scores keep their
    order.
    """
    pairs = score_pairs(encoded.need_matching(), read_maps(opened, [candidate.position for candidate in candidates]))
    logits = pairs.mean(axis=0) if encoded.fusion == "mean" else pairs.max(axis=0)
    return _ordered(candidates, logits, sigmoid(logits))


def _by_neighbours(candidates: Sequence[Candidate], encoded: EncodedQuery, opened: OpenGallery) -> list[Candidate]:
    """`candidates` by 1 - their k-reciprocal distance, 0 to 1. Equal ones keep their order.

    Neighbours are sought among the candidates only. Of several query images the closest counts for each candidate.
    """
    stored = opened.snapshot.store.read([candidate.position for candidate in candidates])
    scores = score_candidates(encoded.vectors, stored)
    return _ordered(candidates, scores, scores)


def _ordered(candidates: Sequence[Candidate], keys: NDArray[Any], scores: NDArray[Any]) -> list[Candidate]:
    """`candidates` with `scores`, those with the largest of `keys` first; equal ones stay in their order."""
    order = np.argsort(-keys, kind="stable").tolist()
    return [replace(candidates[place], score=float(scores[place])) for place in order]
