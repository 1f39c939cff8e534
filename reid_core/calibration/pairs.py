"""Pairs of images across cameras with their scores: what a calibration is fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reid_core.calibration.curves import Floats


@dataclass(frozen=True, slots=True, eq=False)
class ScoredPairs:
    """P pairs: (P,) scores, larger is closer, and the identity codes (P,) of both images."""

    scores: Floats
    first: NDArray[np.int64]
    second: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def same(self) -> NDArray[np.bool_]:
        """(P,) True where both images show one person."""
        return np.equal(self.first, self.second)

    def where(self, chosen: NDArray[np.bool_]) -> ScoredPairs:
        """The pairs for which `chosen` (P,) is True."""
        return ScoredPairs(self.scores[chosen], self.first[chosen], self.second[chosen])


def pairs_across_cameras(scores: Floats, identities: Sequence[str], cameras: Sequence[str]) -> ScoredPairs:
    """Pairs of images that different cameras took; images of unknown camera ("") pair with all others.

    Args:
        scores: (N, N) scores of image i as the query with image j; NaN where there is none. Where both directions
            have one score, only one of them counts.
        identities, cameras: of the N images.
    """
    people, takers = encode(identities), encode(cameras)
    unknown = np.array([camera == "" for camera in cameras], np.bool_)
    differ = (takers[:, None] != takers) | unknown[:, None]
    known = differ & ~np.isnan(scores)
    np.fill_diagonal(known, False)
    known &= ~(np.tri(len(known), dtype=np.bool_) & (scores == scores.T))
    rows, columns = np.nonzero(known)
    return ScoredPairs(np.asarray(scores[rows, columns], np.float64), people[rows], people[columns])


def encode_cameras(cameras: Sequence[str | None]) -> NDArray[np.int64]:
    """(N,) codes of cameras from 0, and -1 for unknown ones."""
    codes = encode([camera or "" for camera in cameras])
    codes[[not camera for camera in cameras]] = -1
    return codes


def encode(labels: Sequence[str]) -> NDArray[np.int64]:
    """(N,) codes of labels, from 0, in the order in which each comes first."""
    codes: dict[str, int] = {}
    return np.array([codes.setdefault(label, len(codes)) for label in labels], np.int64)
