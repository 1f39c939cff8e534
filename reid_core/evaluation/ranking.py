"""Retrieval accuracy (CMC, mAP, mINP) of embeddings or scores, computed block by block.

Protocol: Zheng et al. 2015 (Market-1501). Only the ranks of a query's matches are needed, and a match's rank is the
number of images before it, so the gallery need not be put in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from reid_core.errors import CoreError, DatasetError, Stopped
from reid_core.evaluation.interval import LEVEL, RESAMPLES, SEED
from reid_core.evaluation.labels import NOBODY, UNKNOWN_CAMERA, Integers, Labels, Targets, find_targets
from reid_core.evaluation.metrics import Metrics, measure
from reid_core.evaluation.rows import Row, Scores, impostors_from, rank_row
from reid_core.evaluation.verification import Impostors, count_keys

BLOCK_SCORES = 2**24
"""Scores held at once: 64 MB, enough rows for a fast matrix product."""

_ROWS_PER_TASK = 32


def evaluate(
    query: Tensor,
    gallery: Tensor,
    query_labels: Labels,
    gallery_labels: Labels,
    *,
    ranks: Sequence[int] = (1, 5, 10, 20),
    block_scores: int = BLOCK_SCORES,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Metrics:
    """Accuracy of embeddings compared by their dot product, larger is closer.

    Args:
        query, gallery: (Q, D) and (G, D) floating, unit length, on any one device; compared in float32.
        query_labels, gallery_labels: of the same images, by `reid_core.evaluation.labels.encode_labels`.

    Other arguments and errors as in `evaluate_scores`.

    Raises:
        CoreError: the sizes of the embeddings differ, or one is not finite.
    """
    _check_embeddings("query", query, query_labels)
    _check_embeddings("gallery", gallery, gallery_labels)
    if query.shape[1] != gallery.shape[1]:
        raise CoreError(
            f"Query embeddings have {query.shape[1]} dimensions, gallery embeddings {gallery.shape[1]}.",
            hint="Embed both splits with the same model.",
        )
    query, gallery = query.detach().float(), gallery.detach().float()
    block = query.new_empty(min(_block_rows(block_scores, len(gallery)), len(query)), len(gallery))

    def multiply(start: int, stop: int) -> Tensor:
        scores = block[: stop - start]
        if scores.is_cpu:
            # NumPy's product took 0.6 to 0.8 of the time of torch's on an AVX2 machine (docs/runs.md).
            np.matmul(query[start:stop].numpy(), gallery.numpy().T, out=scores.numpy())
            return scores
        return torch.mm(query[start:stop], gallery.T, out=scores)

    return evaluate_scores(
        multiply,
        query_labels,
        gallery_labels,
        similarity="dot product of embeddings",
        ranks=ranks,
        block_scores=block_scores,
        on_progress=on_progress,
        should_stop=should_stop,
    )


def evaluate_scores(
    score_block: Callable[[int, int], Tensor],
    query_labels: Labels,
    gallery_labels: Labels,
    *,
    similarity: str = "scores as given",
    comparable: bool = True,
    ranks: Sequence[int] = (1, 5, 10, 20),
    block_scores: int = BLOCK_SCORES,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Metrics:
    """Accuracy of any scores, larger is closer. Gallery images of the query's person by its own camera are removed,
    equal scores rank by gallery order.

    Args:
        score_block: (start, stop) -> (stop - start, G) scores of these queries, on any device. Called in order, once
            per block; a block is only read, and no longer needed when the next is asked for.
        similarity: what the scores are, for the protocol.
        comparable: True if scores of different queries mean the same, so that one threshold may hold for all.
        ranks: where the CMC is read; it is 1 from the gallery's size on.
        block_scores: at most so many scores are asked for at once, but always a whole row.
        on_progress: gets (queries done, queries in all) after every block.
        should_stop: asked before every block; True raises `Stopped`.

    Raises:
        DatasetError: no query has a match.
        CoreError: a block has the wrong shape or a score is not a number.
        Stopped: `should_stop` said so.
    """
    targets = find_targets(query_labels, gallery_labels)
    queries, rows = len(query_labels), _block_rows(block_scores, len(gallery_labels))
    impostors = Impostors(targets, len(gallery_labels)) if comparable else None
    ranked: list[Row] = []
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        ranker = _Ranker(query_labels, gallery_labels, targets, impostors, pool)
        for start in range(0, queries, rows):
            if should_stop():
                raise Stopped
            stop = min(start + rows, queries)
            scores = _read_block(score_block, start, stop, len(gallery_labels))
            ranked += ranker.rank(scores, start)
            on_progress(stop, queries)
    return measure(
        ranked,
        query_labels,
        impostors,
        gallery=len(gallery_labels),
        ranks=ranks,
        protocol=_describe(similarity, query_labels, gallery_labels),
    )


def _check_embeddings(split: str, embeddings: Tensor, labels: Labels) -> None:
    if not len(labels):
        raise DatasetError(f"There are no {split} images.", hint=f"Use a data set with a {split} split.")
    if embeddings.dim() != 2 or len(embeddings) != len(labels):
        raise CoreError(
            f"The {split} embeddings have shape {tuple(embeddings.shape)}, the labels are for {len(labels)} images.",
            hint="Give one embedding per image, in the order of the labels.",
        )
    # A sum is finite just when all its terms are, and a quarter of the time of looking at each.
    broken = (~embeddings.sum(dim=1, dtype=torch.float32).isfinite()).nonzero()
    if len(broken):
        raise CoreError(
            f"{len(broken)} of {len(embeddings)} {split} embeddings are not finite, the first in row {int(broken[0])}.",
            hint="The model's weights are damaged or its precision is too low; load it again or use fp32.",
        )


def _block_rows(block_scores: int, gallery: int) -> int:
    return max(1, block_scores // max(1, gallery))


def _read_block(score_block: Callable[[int, int], Tensor], start: int, stop: int, gallery: int) -> Scores:
    scores = score_block(start, stop).detach()
    if scores.shape != (stop - start, gallery):
        raise CoreError(
            f"The scores of queries {start} to {stop - 1} have shape {tuple(scores.shape)}, "
            f"the labels ask for {(stop - start, gallery)}.",
            hint="Score every query against every gallery image, in the order of the labels.",
        )
    if scores.max().isnan():
        row = start + int(scores.isnan().any(dim=1).nonzero()[0])
        raise CoreError(
            f"A score of query {row} is not a number.", hint="Look at the embeddings and the scoring model."
        )
    return scores.float().cpu().numpy()


@dataclass(frozen=True, slots=True, eq=False)
class _Ranker:
    """Ranks blocks of scores in threads, and lets `impostors` take them in."""

    query: Labels
    gallery: Labels
    targets: Sequence[Targets]
    impostors: Impostors | None
    pool: ThreadPoolExecutor

    def rank(self, scores: Scores, start: int) -> list[Row]:
        """The rankings of queries `start` and on."""
        starts = range(0, len(scores), _ROWS_PER_TASK)
        parts = [(scores[first : first + _ROWS_PER_TASK], start + first) for first in starts]
        if self.impostors is not None:
            least = self.impostors.least
            for counts, best in self.pool.map(lambda part: self._find_impostors(part[0], part[1], least), parts):
                self.impostors.add(counts, best)
        return list(chain.from_iterable(self.pool.map(lambda part: self._rank_rows(part[0], part[1]), parts)))

    def _rank_rows(self, scores: Scores, start: int) -> list[Row]:
        chosen = range(start, start + len(scores))
        identities = self.query.identities[start : start + len(scores)].tolist()
        return [
            rank_row(row, identity, self.targets[query], self.gallery)
            for row, identity, query in zip(scores, identities, chosen, strict=True)
        ]

    def _find_impostors(self, scores: Scores, start: int, least: np.float32) -> tuple[Integers, list[Scores]]:
        """Counts impostors' scores by key, and gives those that reach `least`; of queries that have a match."""
        valid = [row for row in range(len(scores)) if len(self.targets[start + row].matches)]
        counts = count_keys(scores if len(valid) == len(scores) else scores[valid])
        if valid:
            counts -= count_keys(np.concatenate([self._own_person(scores[row], start + row) for row in valid]))
        return counts, [impostors_from(scores[row], self.targets[start + row], least) for row in valid]

    def _own_person(self, scores: Scores, query: int) -> Scores:
        target = self.targets[query]
        return np.concatenate([scores[target.matches], scores[target.removed]])


def _describe(similarity: str, query: Labels, gallery: Labels) -> dict[str, object]:
    """The protocol: whatever two numbers must share to be comparable."""
    return {
        "similarity": f"{similarity}, larger is closer",
        "same_camera": "gallery images of the query's identity and camera are removed; unknown cameras remove none",
        "junk": "dropped when the data set is read",
        "distractors": "kept in the gallery, a match for no query",
        "ties": "equal scores rank by gallery order",
        "max_rank": None,
        "average_precision": "mean of the precision at each match",
        "interval": f"{LEVEL:.0%}, expanded percentiles of {RESAMPLES} bootstrap resamples of the query identities, "
        f"seed {SEED}",
        "false_accepts": "pairs of different people, of all queries that have a match",
        "query_identities": _count_people(query),
        "gallery_identities": _count_people(gallery),
        "distractor_pictures": int(np.count_nonzero(gallery.identities == NOBODY)),
        "unknown_camera_pictures": int(
            np.count_nonzero(query.cameras == UNKNOWN_CAMERA) + np.count_nonzero(gallery.cameras == UNKNOWN_CAMERA)
        ),
    }


def _count_people(labels: Labels) -> int:
    return len(np.unique(labels.identities[labels.identities != NOBODY]))
