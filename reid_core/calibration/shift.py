"""Shift: how unlike the images of a calibration those of a gallery are, by the means of their embeddings.

Two groups of people from one source differ in their mean embedding by chance, the less the more people there are. The
shift is the squared distance of the means in units of what chance explains: 1 on average where there is no shift. Its
limit comes from the calibration's own people, split in halves at random again and again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_core.calibration.curves import Floats

_SPLITS = 1000
_LEVEL = 0.99
_SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """The embeddings of a group of people: their mean (D,), its variance by chance, summed over D, and their number."""

    mean: Floats
    variance: float
    people: float


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """The embeddings of a calibration, and the largest shift that 99 % of random halves of its people do not exceed."""

    summary: Summary
    limit: float
    images_per_person: float

    def shift(self, other: Summary) -> float:
        """The shift of another group of people from these; 1 on average where both come from one source."""
        return _shift(self.summary, other)

    def as_json(self) -> dict[str, Any]:
        """The origin as plain values."""
        return {
            "mean": [float(np.float32(value)) for value in self.summary.mean],
            "variance": self.summary.variance,
            "people": self.summary.people,
            "limit": self.limit,
            "images_per_person": self.images_per_person,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Origin:
        """The origin that `as_json` gave; raises KeyError where a part is missing."""
        summary = Summary(np.array(value["mean"]), value["variance"], value["people"])
        return cls(summary, value["limit"], value["images_per_person"])


def describe_origin(embeddings: NDArray[np.float32], people: NDArray[np.int64]) -> Origin:
    """The origin of a calibration with N embeddings (N, D) of the people (N,), by any codes; four people or more."""
    means = _means(embeddings, people)
    generator, half = np.random.default_rng(_SEED), len(means) // 2
    shifts = []
    for _ in range(_SPLITS):
        order = generator.permutation(len(means))
        shifts.append(_shift(_summarise(means[order[:half]]), _summarise(means[order[half:]])))
    return Origin(_summarise(means), float(np.quantile(shifts, _LEVEL)), len(embeddings) / len(means))


def summarise_people(embeddings: NDArray[np.float32], people: NDArray[np.int64]) -> Summary:
    """The summary of N embeddings (N, D) of the people (N,), by any codes; two people or more."""
    return _summarise(_means(embeddings, people))


def summarise_images(embeddings: NDArray[np.float32], images_per_person: float) -> Summary:
    """The summary of N embeddings (N, D) of unknown people, each taken to have as many images as given."""
    people = len(embeddings) / images_per_person
    mean = embeddings.mean(axis=0, dtype=np.float64)
    return Summary(mean, float(np.square(embeddings - mean).sum() / (len(embeddings) - 1) / people), people)


def _means(embeddings: NDArray[np.float32], people: NDArray[np.int64]) -> Floats:
    """(P, D) mean embedding of each person."""
    _, codes, counts = np.unique(people, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), embeddings.shape[1]))
    np.add.at(sums, codes, embeddings)
    return np.asarray(sums / counts[:, None])


def _summarise(means: Floats) -> Summary:
    mean = means.mean(axis=0)
    return Summary(mean, float(np.square(means - mean).sum() / (len(means) - 1) / len(means)), len(means))


def _shift(one: Summary, other: Summary) -> float:
    chance = max(one.variance + other.variance, np.finfo(np.float64).tiny)
    return float(np.square(one.mean - other.mean).sum() / chance)
