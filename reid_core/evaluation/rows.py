"""The ranks of one query's matches: among all images, and among those of each match's camera; and what came first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid_core.evaluation.labels import Integers, Labels, Targets

Scores = NDArray[np.float32]

FIRST = 10
"""So many first results are kept of each query."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One query's ranking of the gallery, of which removed images are no part; ranks count from 1.

    Attributes:
        ranks: (M,) of all matches, ascending.
        camera_ranks: (M,) of the same matches among the images of the match's own camera.
        cameras: (M,) their cameras.
        scores: (M,) theirs.
        first: (FIRST,) or fewer gallery indices, best first.
        first_scores: theirs.
    """

    ranks: Integers
    camera_ranks: Integers
    cameras: Integers
    scores: Scores
    first: Integers
    first_scores: Scores


def rank_row(scores: Scores, identity: int, target: Targets, gallery: Labels) -> Row:
    """Ranks (G,) `scores` of a query of that identity; equal ones by gallery order."""
    positions = _contenders(scores, target)
    positions = positions[_falling(scores[positions])]
    cameras = gallery.cameras[positions]
    hits = np.flatnonzero(gallery.identities[positions] == identity) if len(target.matches) else target.matches
    return Row(
        ranks=hits + 1,
        camera_ranks=_camera_ranks(cameras, hits),
        cameras=cameras[hits],
        scores=scores[positions[hits]],
        first=positions[:FIRST].copy(),  # a view would keep all of them
        first_scores=scores[positions[:FIRST]],
    )


def impostors_from(scores: Scores, target: Targets, least: np.float32) -> Scores:
    """Those of a query's scores with other people that are at least `least`."""
    chosen = scores >= least
    chosen[target.matches] = False
    chosen[target.removed] = False
    return np.compress(chosen, scores)


def _contenders(scores: Scores, target: Targets) -> Integers:
    """The images that come before a match or among the first, and it may be more; ascending.

    Only what reaches the hardest match can come before a match, with a trained network a small part of the gallery.
    """
    least = scores[target.matches].min() if len(target.matches) else np.float32(np.inf)
    chosen = scores >= least
    chosen[target.removed] = False
    if np.count_nonzero(chosen) >= FIRST:
        return np.flatnonzero(chosen)
    others = np.delete(scores, target.removed)
    if not len(others):
        return np.empty(0, np.int64)
    place = max(0, len(others) - FIRST)
    chosen = scores >= min(least, np.partition(others, place)[place])
    chosen[target.removed] = False
    return np.flatnonzero(chosen)


def _falling(scores: Scores) -> Integers:
    """The places of the scores from the largest down, equal ones in their order.

    Each score and its place make one integer: sorting those takes a tenth of the time of a stable argsort.
    """
    bits = (scores + np.float32(0)).view(np.int32)  # -0 becomes 0, its equal
    rising = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64)
    return np.sort((-rising << 32) | np.arange(len(scores))) & 0xFFFFFFFF


def _camera_ranks(cameras: Integers, hits: Integers) -> Integers:
    """For each of `hits`, places in the ranking, how many images of its camera the ranking has up to there."""
    ranks, own = np.empty(len(hits), dtype=np.int64), cameras[hits]
    for camera in np.unique(own):
        chosen = own == camera
        ranks[chosen] = np.flatnonzero(cameras == camera).searchsorted(hits[chosen]) + 1
    return ranks
