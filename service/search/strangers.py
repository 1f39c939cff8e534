"""The scores that strangers reach in a gallery: its own images, searched among all people but their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from reid_core.calibration.curves import Floats, logit
from reid_core.calibration.strangers import Strangers
from service.search.encoding import EncodedQuery
from service.search.labels import Labels
from service.search.rerank import Candidate, rerank
from service.search.snapshots import OpenGallery

PROBES, LEAST_PROBES = 1000, 200
"""Images that are searched for at most, and as few as that where the gallery is large."""

_COSINES = 2**28
"""Cosines of all probes together, about: the first search with `far` waits for them."""

PROBES_RERANKED = 300
"""The same where each of them is re-ranked, which takes tens of times as long."""

_SCORES_AT_ONCE = 2**23
_KEPT = 2
"""Scores kept for each probe, on average: rates up to one half need 0.7."""

_SEED = 0


def compare_strangers(opened: OpenGallery, labels: Labels, *, by_person: bool = False) -> Strangers:
    """The cosines that strangers reach, by probes drawn at random; `by_person` the means of persons' images."""
    probes = _draw(labels, count_probes(len(labels.positions)))
    queries = opened.snapshot.store.read(labels.positions[probes])
    best = [np.empty(0)]
    for start, stop in _blocks(labels, len(probes)):
        cosines = queries @ opened.snapshot.store.read(labels.positions[start:stop]).T
        others = _of_others(cosines, labels, probes, start, stop, mean=by_person)
        best = [_highest([*best, others.ravel()], len(probes))]
    return _strangers(best[0], len(probes), labels)


def rerank_strangers(
    opened: OpenGallery,
    labels: Labels,
    kind: str,
    width: int,
    encode: Callable[[int], EncodedQuery],
) -> Strangers:
    """The re-ranked scores that strangers reach, those of `qaconv` before they are made probabilities.

    `encode` gives what is stored at a position; `width` is the number of candidates.
    """
    probes = _draw(labels, PROBES_RERANKED)
    best = [np.empty(0)]
    for probe in probes.tolist():
        query = encode(int(labels.positions[probe]))
        keep = np.zeros(len(opened.snapshot), np.bool_)
        keep[labels.positions[labels.people != labels.people[probe]]] = True
        scores, positions = opened.snapshot.search(query.vectors, width, keep=keep)
        pairs = zip(positions[0].tolist(), scores[0].tolist(), strict=True)
        found = [Candidate(position, score, score, rank) for rank, (position, score) in enumerate(pairs, 1)]
        best.append(_best_of_people(rerank(found, kind, query, opened), labels))
    together = np.concatenate(best)
    return _strangers(logit(together) if kind == "qaconv" else together, len(probes), labels)


def count_probes(images: int) -> int:
    """The number of probes in a gallery of so many labelled images; they tell rates down to a tenth of one over it."""
    return max(LEAST_PROBES, min(PROBES, _COSINES // max(1, images)))


def _draw(labels: Labels, most: int) -> NDArray[np.int64]:
    number = len(labels.positions)
    return np.sort(np.random.default_rng(_SEED).permutation(number)[:most]).astype(np.int64)


def _blocks(labels: Labels, probes: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of whole people, whose images lie together in `labels`."""
    ends = np.append(np.flatnonzero(np.diff(labels.people)) + 1, len(labels.people))
    start, most = 0, max(1, _SCORES_AT_ONCE // probes)
    while start < len(labels.people):
        stop = int(ends[max(np.searchsorted(ends, start + most, side="right") - 1, np.searchsorted(ends, start + 1))])
        yield start, stop
        start = stop


def _of_others(
    scores: NDArray[np.float32], labels: Labels, probes: NDArray[np.int64], start: int, stop: int, *, mean: bool
) -> Floats:
    """(probes, people) the best score with each person of a block, or the `mean`; -inf with the probe's own."""
    people = labels.people[start:stop]
    first = np.flatnonzero(np.diff(people, prepend=-1))
    best = (np.add if mean else np.maximum).reduceat(scores, first, axis=1).astype(np.float64)
    if mean:
        best /= np.diff(np.append(first, len(people)))
    best[labels.people[probes][:, None] == people[first]] = -np.inf
    return best


def _highest(scores: list[Floats], probes: int) -> Floats:
    together = np.concatenate(scores)
    most = _KEPT * probes
    return together if len(together) <= most else np.partition(together, len(together) - most)[-most:]


def _best_of_people(candidates: list[Candidate], labels: Labels) -> Floats:
    """The best score of each person among candidates, which come best first."""
    of_person: dict[int, float] = {}
    person_at = labels.person_at
    for candidate in candidates:
        of_person.setdefault(person_at[candidate.position], candidate.score)
    return np.array(list(of_person.values()), np.float64)


def _strangers(scores: Floats, probes: int, labels: Labels) -> Strangers:
    found = np.sort(scores[np.isfinite(scores)])
    return Strangers(found, probes, labels.num_people - 1, labels.num_people + labels.unlabelled)
