"""Shift: how unlike the images of a calibration those of a gallery are, by two means over people.

Two groups of people from one source differ by chance in their mean embedding, and in how like the images of one person
are (the mean cosine across cameras), the less the more people there are. A shift is the squared distance of the two
means in units of what chance explains: 1 on average where there is none. Its limit comes from the calibration's own
people, split in halves at random again and again. Blurred images move the embeddings; those of a world to which the
network carries over badly may lie where the others do, and one person's apart.
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
_LEAST_PEOPLE = 4
"""People by whom two groups can be compared."""


@dataclass(frozen=True, slots=True, eq=False)
class Mean:
    """A mean over people (D,), its variance by chance, summed over D, and their number."""

    mean: Floats
    variance: float
    people: float

    def shift(self, other: Mean) -> float:
        """The squared distance of two means by what chance explains; 1 on average where both come from one source."""
        chance = max(self.variance + other.variance, np.finfo(np.float64).tiny)
        return float(np.square(self.mean - other.mean).sum() / chance)


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """A group of people: the mean of their embeddings, and of the cosines (1,) of each one's images across cameras,
    None where fewer than four people were seen by two."""

    embedding: Mean
    likeness: Mean | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """The people of a calibration, and the largest shifts that 99 % of random halves of them do not exceed.

    `likeness_limit` is None where the summary has no likeness, as in calibrations of earlier versions.
    """

    summary: Summary
    limit: float
    images_per_person: float
    likeness_limit: float | None = None

    def shift(self, other: Summary) -> float:
        """The shift of the mean embedding of another group of people from these."""
        return self.summary.embedding.shift(other.embedding)

    def likeness_shift(self, other: Summary) -> float:
        """The shift of how like one person's images are; 0 where one of both groups does not tell."""
        if self.summary.likeness is None or other.likeness is None:
            return 0.0
        return self.summary.likeness.shift(other.likeness)

    def difference(self, other: Summary) -> str | None:
        """A sentence on what is unlike these people in another group, None where it is no more than chance explains."""
        if (shift := self.shift(other)) > self.limit:
            return (
                f"The embeddings lie {shift:.1f} times as far from those of the calibration as chance explains; up to "
                f"{self.limit:.1f} is usual."
            )
        likeness = self.summary.likeness, other.likeness
        if likeness[0] and likeness[1] and self.likeness_shift(other) > (self.likeness_limit or np.inf):
            return (
                f"Images of one person by different cameras have a mean cosine of {likeness[1].mean.item():.2f}, those "
                f"of the calibration {likeness[0].mean.item():.2f}."
            )
        return None

    def as_json(self) -> dict[str, Any]:
        """The origin as plain values."""
        embedding, likeness = self.summary.embedding, self.summary.likeness
        told = {
            "mean": [float(np.float32(value)) for value in embedding.mean],
            "variance": embedding.variance,
            "people": embedding.people,
            "limit": self.limit,
            "images_per_person": self.images_per_person,
        }
        if likeness is None:
            return told
        values = {"mean": likeness.mean.item(), "variance": likeness.variance, "people": likeness.people}
        return {**told, "likeness": {**values, "limit": self.likeness_limit}}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Origin:
        """The origin that `as_json` gave, also that of an earlier version; raises KeyError where a part is missing."""
        embedding = Mean(np.array(value["mean"]), value["variance"], value["people"])
        told = value.get("likeness")
        likeness = Mean(np.array([told["mean"]]), told["variance"], told["people"]) if told else None
        limit = told["limit"] if told else None
        return cls(Summary(embedding, likeness), value["limit"], value["images_per_person"], limit)


def describe_origin(
    embeddings: NDArray[np.float32], people: NDArray[np.int64], cameras: NDArray[np.int64] | None = None
) -> Origin:
    """The origin of a calibration with N embeddings (N, D) of the people (N,), by any codes; four people or more.

    Args:
        cameras: codes (N,) of cameras, -1 for an unknown one, which differs from all others; None says nothing of them.
    """
    means, cosines = _means(embeddings, people), _cosines(embeddings, people, cameras)
    likeness = None if cosines is None else _summarise(cosines)
    likeness_limit = None if cosines is None else _limit(cosines)
    summary = Summary(_summarise(means), likeness)
    return Origin(summary, _limit(means), len(embeddings) / len(means), likeness_limit)


def summarise_people(
    embeddings: NDArray[np.float32], people: NDArray[np.int64], cameras: NDArray[np.int64] | None = None
) -> Summary:
    """The summary of N embeddings (N, D) of the people (N,), by any codes, and cameras as `describe_origin` has them;
    two people or more."""
    cosines = _cosines(embeddings, people, cameras)
    return Summary(_summarise(_means(embeddings, people)), None if cosines is None else _summarise(cosines))


def summarise_images(embeddings: NDArray[np.float32], images_per_person: float) -> Summary:
    """The summary of N embeddings (N, D) of unknown people, each taken to have as many images as given."""
    people = len(embeddings) / images_per_person
    mean = embeddings.mean(axis=0, dtype=np.float64)
    return Summary(Mean(mean, float(np.square(embeddings - mean).sum() / (len(embeddings) - 1) / people), people))


def _means(embeddings: NDArray[np.float32], people: NDArray[np.int64]) -> Floats:
    """(P, D) mean embedding of each person."""
    _, codes, counts = np.unique(people, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), embeddings.shape[1]))
    np.add.at(sums, codes, embeddings)
    return np.asarray(sums / counts[:, None])


def _cosines(
    embeddings: NDArray[np.float32], people: NDArray[np.int64], cameras: NDArray[np.int64] | None
) -> Floats | None:
    """(P, 1) mean cosine of the images of each person across cameras; None of fewer than four people."""
    if cameras is None:
        return None
    order = np.argsort(people, kind="stable")
    means = []
    for own in np.split(order, np.flatnonzero(np.diff(people[order])) + 1):
        across = (cameras[own][:, None] != cameras[own]) | (cameras[own] < 0)
        np.fill_diagonal(across, False)
        if across.any():
            means.append((embeddings[own] @ embeddings[own].T)[across].mean(dtype=np.float64))
    return np.array(means)[:, None] if len(means) >= _LEAST_PEOPLE else None


def _summarise(values: Floats) -> Mean:
    mean = values.mean(axis=0)
    return Mean(mean, float(np.square(values - mean).sum() / (len(values) - 1) / len(values)), len(values))


def _limit(values: Floats) -> float:
    """The shift that 99 % of random halves of people, (P, D) values, do not exceed."""
    generator, half = np.random.default_rng(_SEED), len(values) // 2
    shifts = []
    for _ in range(_SPLITS):
        order = generator.permutation(len(values))
        shifts.append(_summarise(values[order[:half]]).shift(_summarise(values[order[half:]])))
    return float(np.quantile(shifts, _LEVEL))
