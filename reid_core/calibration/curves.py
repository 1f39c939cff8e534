"""Curves from scores to evidence, and from evidence to probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
CurveKind = Literal["logistic", "isotonic"]


@dataclass(frozen=True, slots=True)
class Curve:
    """A rising curve from a score to its natural log-likelihood ratio of "same person" over "different people".

    It is linear between its points, and constant beyond the first and the last: scores that no known pair has reached
    are no stronger evidence than the nearest one that did. A logistic curve has two points, an isotonic one many.
    """

    kind: CurveKind
    scores: tuple[float, ...]
    ratios: tuple[float, ...]

    def evidence(self, scores: ArrayLike) -> Floats:
        """The log-likelihood ratios of scores, in their shape; above 0 speaks for the same person."""
        return np.asarray(np.interp(np.asarray(scores, np.float64), self.scores, self.ratios))

    def as_json(self) -> dict[str, Any]:
        """The curve as plain values."""
        return {"kind": self.kind, "scores": list(self.scores), "log_likelihood_ratios": list(self.ratios)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Curve:
        """The curve that `as_json` gave; raises KeyError where a part is missing."""
        return cls(value["kind"], tuple(value["scores"]), tuple(value["log_likelihood_ratios"]))


def probability(evidence: ArrayLike, prior: float = 0.5) -> Floats:
    """The probabilities of "same person" by Bayes' rule, from 0 to 1; `prior`, between 0 and 1, is that before it."""
    return sigmoid(np.asarray(evidence, np.float64) + np.log(prior) - np.log1p(-prior))


def sigmoid(values: ArrayLike) -> Floats:
    """1 / (1 + exp(-values)), without overflow."""
    values = np.asarray(values, np.float64)
    small: Floats = np.exp(-np.abs(values))
    return np.where(values >= 0, 1, small) / (1 + small)


def logit(probabilities: ArrayLike) -> Floats:
    """The inverse of `sigmoid`; 0 and 1 become the furthest values that float64 tells from them."""
    tiny = np.finfo(np.float64).eps / 2
    clipped = np.clip(np.asarray(probabilities, np.float64), tiny, 1 - tiny)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))
