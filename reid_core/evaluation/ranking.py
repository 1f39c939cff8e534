"""Retrieval accuracy (CMC, mAP, mINP) of embeddings or scores, computed block by block.

Protocol: Zheng et al. 2015 (Market-1501). Only the ranks of a query's matches are needed, and a match's rank is the
number of images before it, so the gallery need not be put in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_core.data.records import DISTRACTOR, ImageRecord
from reid_core.errors import CoreError, DatasetError, Stopped
from reid_core.evaluation.interval import LEVEL, RESAMPLES
from reid_core.evaluation.metrics import Integers, Metrics, measure

NOBODY = -1
"""Identity code of distractors: a match for no query."""

UNKNOWN_CAMERA = -1
"""Camera code of images without a camera: never removed as taken by the query's own camera."""

BLOCK_SCORES = 2**24
"""Scores held at once: 64 MB, enough rows for a fast matrix product."""

_ROWS_PER_TASK = 32


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """The identities and cameras of N images: (N,) int64 codes, shared by query and gallery."""

    identities: Integers
    cameras: Integers

    def __len__(self) -> int:
        return len(self.identities)


def encode_labels(query: Sequence[ImageRecord], gallery: Sequence[ImageRecord]) -> tuple[Labels, Labels]:
    """The labels of both splits in codes that mean the same in either.

    The label of distractors is a person's where a query bears it, as in data sets that count people from 0000.
    """
    identities = {} if any(image.identity == DISTRACTOR for image in query) else {DISTRACTOR: NOBODY}
    cameras = {"": UNKNOWN_CAMERA}
    return _encode(query, identities, cameras), _encode(gallery, identities, cameras)


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
        query_labels, gallery_labels: of the same images, by `encode_labels`.

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
        ranks: where the CMC is read; it is 1 from the gallery's size on.
        block_scores: at most so many scores are asked for at once, but always a whole row.
        on_progress: gets (queries done, queries in all) after every block.
        should_stop: asked before every block; True raises `Stopped`.

    Raises:
        DatasetError: no query has a match.
        CoreError: a block has the wrong shape or a score is not a number.
        Stopped: `should_stop` said so.
    """
    targets = _find_targets(query_labels, gallery_labels)
    queries, rows = len(query_labels), _block_rows(block_scores, len(gallery_labels))
    found: list[Integers] = []
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for start in range(0, queries, rows):
            if should_stop():
                raise Stopped
            stop = min(start + rows, queries)
            scores = _read_block(score_block, start, stop, len(gallery_labels))
            found += _rank_block(scores, targets[start:stop], pool)
            on_progress(stop, queries)
    return measure(
        found,
        query_labels.identities,
        gallery=len(gallery_labels),
        ranks=ranks,
        protocol=_describe(similarity, query_labels, gallery_labels),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Targets:
    """Gallery indices for one query: its matches, and what its own camera took of its person."""

    matches: Integers
    removed: Integers


def _encode(images: Sequence[ImageRecord], identities: dict[str, int], cameras: dict[str, int]) -> Labels:
    return Labels(
        np.array([identities.setdefault(image.identity, len(identities)) for image in images], dtype=np.int64),
        np.array([cameras.setdefault(image.camera, len(cameras)) for image in images], dtype=np.int64),
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


def _find_targets(query: Labels, gallery: Labels) -> list[_Targets]:
    order = np.argsort(gallery.identities)
    identities, cameras = gallery.identities[order], gallery.cameras[order]
    starts = np.searchsorted(identities, query.identities)
    stops = np.where(query.identities == NOBODY, starts, np.searchsorted(identities, query.identities, side="right"))
    targets = []
    for start, stop, camera in zip(starts.tolist(), stops.tolist(), query.cameras.tolist(), strict=True):
        same_person, same_camera = order[start:stop], cameras[start:stop] == camera
        if camera == UNKNOWN_CAMERA:
            same_camera[:] = False
        targets.append(_Targets(same_person[~same_camera], same_person[same_camera]))
    if not any(len(target.matches) for target in targets):
        raise _no_match(targets)
    return targets


def _no_match(targets: list[_Targets]) -> DatasetError:
    if any(len(target.removed) for target in targets):
        return DatasetError(
            f"None of {len(targets)} queries has a match: the gallery shows their people only on the query's own "
            "camera, and those images do not count.",
            hint="Add gallery images from another camera, or leave the camera empty if all come from one.",
        )
    return DatasetError(
        f"None of {len(targets)} queries has a match: no person is in both query and gallery.",
        hint="Label the same person with the same identity in both splits; 0000 means distractor and matches nobody.",
    )


def _read_block(score_block: Callable[[int, int], Tensor], start: int, stop: int, gallery: int) -> NDArray[np.float32]:
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


def _rank_block(
    scores: NDArray[np.float32], targets: Sequence[_Targets], pool: ThreadPoolExecutor
) -> Iterator[Integers]:
    parts = [slice(first, first + _ROWS_PER_TASK) for first in range(0, len(targets), _ROWS_PER_TASK)]
    ranked = pool.map(_rank_rows, (scores[part] for part in parts), (targets[part] for part in parts))
    return chain.from_iterable(ranked)


def _rank_rows(scores: NDArray[np.float32], targets: Sequence[_Targets]) -> list[Integers]:
    return [_rank_matches(row, target) for row, target in zip(scores, targets, strict=True)]


def _rank_matches(scores: NDArray[np.float32], target: _Targets) -> Integers:
    """Ranks of one query's matches from 1, ascending. `scores` is (G,)."""
    if not len(target.matches):
        return target.matches
    values = scores[target.matches]
    # Only what reaches the hardest match can come before a match, with a trained network a small part of the gallery.
    contends = scores >= values.min()
    contends[target.removed] = False
    contenders = np.sort(np.compress(contends, scores))
    not_better = np.searchsorted(contenders, values, side="right")
    ranks = len(contenders) - not_better + 1
    for place in np.flatnonzero(not_better - np.searchsorted(contenders, values) > 1):  # others have the same score
        match = target.matches[place]
        ranks[place] += np.count_nonzero(contends[:match] & (scores[:match] == values[place]))
    return np.sort(ranks)


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
        "interval": f"{LEVEL:.0%}, percentiles of {RESAMPLES} bootstrap resamples of the query identities",
        "query_identities": _count_people(query),
        "gallery_identities": _count_people(gallery),
        "distractor_pictures": int(np.count_nonzero(gallery.identities == NOBODY)),
        "unknown_camera_pictures": int(
            np.count_nonzero(query.cameras == UNKNOWN_CAMERA) + np.count_nonzero(gallery.cameras == UNKNOWN_CAMERA)
        ),
    }


def _count_people(labels: Labels) -> int:
    return len(np.unique(labels.identities[labels.identities != NOBODY]))
