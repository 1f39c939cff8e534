"""Measures searches by person and verification on drawn and on real people: ranks, error rates, probabilities.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.persons --real <folder> --weights <mobilenet_v2 file>

Networks, calibrations and test people are those of `benchmarks.calibration`. Every test image asks among the images of
other people, and of its own person those by other cameras: rank-1 by picture, and by person with three scores for one.
In the galleries of few images each person keeps 1 to 3, drawn at random ten times. Verification: the equal error rate
of pairs, and of an image against a person, across cameras. Intervals are of 95 %, by a bootstrap over identities.
Probabilities of the best result of each query, half of which are of people not in the gallery, by pairs and by persons.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration import (
    HELD_OUT,
    Embedded,
    cross_validate,
    describe_best,
    draw_world,
    parse_options,
    pool,
    tested,
    train_network,
)
from reid_core.calibration.folds import HeldOutFit, expected_calibration_error, fit_held_out, reliability
from reid_core.calibration.pairs import ScoredPairs
from reid_core.calibration.persons import person_scores, person_trials, posterior
from reid_core.data.reader import read
from reid_core.evaluation.interval import bootstrap_interval
from reid_core.training.validation import hold_out
from service.search.examples import steer

Scores = NDArray[np.float64]

FUSIONS: dict[str, Callable[[Scores], float]] = {
    "its best image": lambda scores: float(scores.max()),
    "the mean of its best three": lambda scores: float(np.sort(scores)[-3:].mean()),
    "the mean of all": lambda scores: float(scores.mean()),
}
FEWEST = 3
DRAWINGS = 10
RESAMPLES = 500
EVERY = 4
"""Of so many test images one asks with examples."""


def main() -> None:
    options = parse_options()
    with tempfile.TemporaryDirectory() as folder:
        drawn, other = (draw_world(Path(folder) / str(seed), seed, options.identities) for seed in (0, 1))
        encoder = train_network(drawn.images["train"], options, fraction=HELD_OUT)
        held = hold_out(drawn.images["train"], HELD_OUT, options.seed)[1]
        assert held is not None
        groups = [Embedded(encoder, (*held.query, *held.gallery))]
        print_all("drawn", groups, Embedded(encoder, tested(drawn)))
        print_ranks("drawn, another world", Embedded(encoder, tested(other)))
    real = read(options.real)
    encoder, groups = cross_validate(real.images["train"], options)
    print_all("real", groups, Embedded(encoder, tested(real)))


def print_all(name: str, groups: Sequence[Embedded], test: Embedded) -> None:
    print_ranks(name, test)
    print_examples(test)
    for what, trials in (("pairs", test.pairs()), ("image against person", trials_of(test))):
        rate, (low, high) = equal_error_rate(trials), error_interval(trials)
        print(f"  verification of {what}: equal error rate {rate:.4f}, {low:.4f} to {high:.4f}")
    pairs, persons = (fit_held_out(pool([make(one) for one in groups])) for make in (Embedded.pairs, trials_of))
    print(f"  best results by pairs: {describe_best(pairs.curve, test)}")
    print(f"  best persons: {describe_best_persons(persons, test)}", flush=True)


def print_ranks(name: str, test: Embedded) -> None:
    whole = np.ones(len(test.people), np.bool_)
    print(f"\n{name}, {len(np.unique(test.people))} people: rank-1 with all images | with 1 to {FEWEST} of each")
    few = [draw_few(test, seed) for seed in range(DRAWINGS)]
    for what, fuse in {"by picture": None, **FUSIONS}.items():
        hits, people = ranked_first(test, whole, fuse)
        ((low, high),) = bootstrap_interval(hits[None], people, np.random.default_rng(0))
        fewer = np.mean([ranked_first(test, used, fuse)[0].mean() for used in few])
        print(f"  {what}: {hits.mean():.4f}, {low:.4f} to {high:.4f} | {fewer:.4f}", flush=True)


def print_examples(test: Embedded) -> None:
    """Rank-1 by picture with an example of the person by the query's camera, and of who was found wrongly first.

    That wrong image is in no gallery here, so that leaving it out explains none of the gain.
    """
    cosines, nothing = cosines_of(test), np.empty((0, test.vectors.shape[1]), np.float32)
    hits: dict[str, list[bool]] = {"none": [], "positive": [], "negative": [], "both": []}
    for query in range(0, len(test.people), EVERY):
        own = test.people == test.people[query]
        beside = own & (test.cameras == test.cameras[query])
        alike = np.setdiff1d(np.flatnonzero(beside), [query])
        if not len(alike) or not (own & ~beside).any():
            continue
        wrong = int(np.where(own, -np.inf, cosines[query]).argmax())
        gallery = np.setdiff1d(np.flatnonzero(~beside), [wrong])
        positive, negative = test.vectors[alike[:1]], test.vectors[[wrong]]
        told = {"none": (nothing, nothing), "positive": (positive, nothing), "negative": (nothing, negative)}
        for what, examples in {**told, "both": (positive, negative)}.items():
            (moved,) = steer(test.vectors[[query]], *examples)
            hits[what].append(bool(own[gallery[(test.vectors[gallery] @ moved).argmax()]]))
    shown = ", ".join(f"{what} {np.mean(values):.4f}" for what, values in hits.items())
    print(f"  rank-1 by picture with examples, {len(hits['none'])} queries: {shown}", flush=True)


def draw_few(test: Embedded, seed: int) -> NDArray[np.bool_]:
    """The images that a gallery of 1 to `FEWEST` images of each person holds."""
    generator, used = np.random.default_rng(seed), np.zeros(len(test.people), np.bool_)
    for person in np.unique(test.people):
        images = generator.permutation(np.flatnonzero(test.people == person))
        used[images[: generator.integers(1, FEWEST + 1)]] = True
    return used


def ranked_first(
    test: Embedded, used: NDArray[np.bool_], fuse: Callable[[Scores], float] | None
) -> tuple[Scores, NDArray[np.int64]]:
    """1 for each query whose first result is right, by picture where there is no `fuse`; and the queries' people."""
    cosines = cosines_of(test)
    hits, people = [], []
    for query, person in enumerate(test.people):
        gallery = used & ((test.people != person) | (test.cameras != test.cameras[query]))
        if not (gallery & (test.people == person)).any():
            continue
        scores, shown = cosines[query, gallery], test.people[gallery]
        if fuse is None:
            first = shown[scores.argmax()]
        else:
            first = max(np.unique(shown), key=lambda one: fuse(scores[shown == one]))
        hits.append(float(first == person))
        people.append(person)
    return np.array(hits), np.array(people, np.int64)


def cosines_of(images: Embedded) -> Scores:
    return (images.vectors @ images.vectors.T).astype(np.float64)


def trials_of(images: Embedded) -> ScoredPairs:
    """Each image with each person, across cameras."""
    return person_trials(cosines_of(images), *images.labels)


def equal_error_rate(trials: ScoredPairs, weights: Scores | None = None) -> float:
    """The rate at which as many of the same are refused as of different people accepted."""
    weights = np.ones(len(trials)) if weights is None else weights
    order = np.argsort(trials.scores)
    same, weights = trials.same[order], weights[order]
    refused = np.cumsum(weights * same) / (weights * same).sum()
    accepted = 1 - np.cumsum(weights * ~same) / (weights * ~same).sum()
    place = int(np.argmax(refused >= accepted))
    return float((refused[place] + accepted[place]) / 2)


def error_interval(trials: ScoredPairs) -> tuple[float, float]:
    """Percentiles of the equal error rate over people drawn anew, who bring all of their trials."""
    generator, people = np.random.default_rng(0), int(max(trials.first.max(), trials.second.max())) + 1
    rates = []
    for _ in range(RESAMPLES):
        drawn = np.bincount(generator.integers(people, size=people), minlength=people).astype(np.float64)
        own = drawn[trials.first]
        rates.append(equal_error_rate(trials, np.where(trials.same, own, own * drawn[trials.second])))
    low, high = np.quantile(rates, (0.025, 0.975))
    return float(low), float(high)


def describe_best_persons(fit: HeldOutFit, test: Embedded) -> str:
    """The error of the best persons' probabilities, and their bins, by galleries of half of the people."""
    scores, people = person_scores(cosines_of(test), *test.labels), np.unique(test.people)
    values, same = [], []
    for seed in range(10):
        known = np.random.default_rng(seed).permutation(people)[: len(people) // 2]
        for query, person in enumerate(test.people):
            there = known[np.isfinite(scores[query, known])]
            chances = posterior(fit.curve.evidence(scores[query, there]), len(there), 0.5)
            values.append(chances.max())
            same.append(there[chances.argmax()] == person)
    bins = reliability(np.array(values), np.array(same), balanced=False)
    told = ", ".join(f"{one.predicted:.2f} is {one.observed:.2f} ({one.share:.2f})" for one in bins)
    return f"{expected_calibration_error(bins):.4f}, held out {fit.expected_calibration_error:.4f}: {told}"


if __name__ == "__main__":
    main()
