"""Persons as search results: the score of a person, trials to calibrate it on, and the probability of each of many.

A person scores the mean of its images' scores. That does not grow with the number of images, as the best of them does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from reid_core.calibration.curves import Floats
from reid_core.calibration.pairs import ScoredPairs, encode


def person_scores(scores: Floats, identities: Sequence[str], cameras: Sequence[str]) -> Floats:
    """(N, P) the score of each person with each image as the query: the mean over the person's images by other cameras.

    NaN where no other camera has seen the person. Persons are numbered as `encode` numbers their identities.

    Args:
        scores: (N, N) scores of image i as the query with image j.
        identities, cameras: of the N images; an image of unknown camera ("") is another's to all but itself.
    """
    people, takers = encode(identities), encode(cameras)
    unknown = np.array([camera == "" for camera in cameras])
    apart = (takers[:, None] != takers) | unknown | unknown[:, None]
    np.fill_diagonal(apart, False)
    shows = (people[:, None] == np.arange(people.max() + 1)).astype(np.float64)  # (N, P)
    counts = apart @ shows
    sums = np.where(apart, scores, 0.0) @ shows
    return np.asarray(np.divide(sums, counts, out=np.full(counts.shape, np.nan), where=counts > 0))


def person_trials(scores: Floats, identities: Sequence[str], cameras: Sequence[str]) -> ScoredPairs:
    """Trials of each image with each person whom another camera has seen; as `person_scores`."""
    of_persons = person_scores(scores, identities, cameras)
    query, person = np.nonzero(np.isfinite(of_persons))
    return ScoredPairs(of_persons[query, person], encode(identities)[query], person.astype(np.int64))


def posterior(evidence: ArrayLike, people: float, present: float) -> Floats:
    """The probability of each found person to be who was searched for, where one of `people` is or nobody; sum < 1.

    Bayes' rule over these hypotheses: `present` is shared evenly among the people before any score is seen, the rest is
    nobody's. People who were not found count as evidence of nothing: theirs is lower than that of those found.

    Args:
        evidence: (n,) log-likelihood ratios of the persons found.
        people: persons in the gallery, `n` or more.
        present: probability, between 0 and 1, that who is searched for is among them.
    """
    values = np.asarray(evidence, np.float64)
    nobody = np.log(people) + np.log1p(-present) - np.log(present)
    return np.asarray(np.exp(values - np.logaddexp.reduce(np.append(values, nobody))))
