"""Batch-hard triplet loss (Hermans et al. 2017, eq. 5) and its camera-biased mining (paper 001)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

NegativeBias = Literal["farther", "nearer", "none"]
StdOver = Literal["masked_matrix", "valid_entries"]


class Hardest(NamedTuple):
    """For every anchor the batch's hardest positive and negative."""

    positive: Tensor
    """(B,) indices into the batch."""
    negative: Tensor
    """(B,) indices into the batch."""
    valid: Tensor
    """(B,) bool: the anchor has at least one positive (other than itself) and one negative."""


@dataclass(frozen=True, slots=True)
class CameraBias:
    """The bias that is added to distances of same-camera pairs before the hardest are selected (paper 001).

    bias = size * std(D) / (1 + decay * t), with D the positive- or negative-masked distance matrix.
    """

    size: float
    """k in the paper."""
    decay: float
    """m in the paper; 0 never decays."""
    negatives: NegativeBias
    """Same-camera negatives are moved farther (as the slide draws it), nearer (as the one before argues), or not."""
    std_over: StdOver
    """The standard deviation counts the masked zeros (the slide, literally) or only real pairs."""


def batch_hard(distances: Tensor, identities: Tensor) -> Hardest:
    """The farthest positive and the nearest negative of every anchor; ties go to the lower index.

    Shape: distances (B, B), identities (B,).
    """
    positives, negatives = pair_masks(identities)
    return _select(distances, distances, positives, negatives)


def camera_biased_batch_hard(
    distances: Tensor, identities: Tensor, cameras: Tensor, bias: CameraBias, time: float
) -> Hardest:
    """The hardest pairs after same-camera distances were moved by the bias; only the selection is biased.

    Same-camera positives are moved nearer, so that cross-camera positives win. The diagonal is no positive and masked
    entries are no candidates: where the slides take the maximum of the whole masked matrix, a bias larger than every
    positive distance would otherwise select another identity as "positive".

    Args:
        distances: (B, B), detached by the caller or not: no gradient flows through a selection.
        identities, cameras: (B,) codes; cameras of -1 are unknown and the same as no other.
        time: t of the formula, iterations or epochs since the start.
    """
    with torch.no_grad():
        positives, negatives = pair_masks(identities)
        same_camera = (cameras[:, None] == cameras[None, :]) & (cameras >= 0)[:, None]
        nearer = -_bias(distances, positives, bias, time)
        farther = _bias(distances, negatives, bias, time)
        sign = {"farther": 1.0, "nearer": -1.0, "none": 0.0}[bias.negatives]
        return _select(distances + nearer * same_camera, distances + sign * farther * same_camera, positives, negatives)


def triplet_loss(distances: Tensor, hardest: Hardest, *, margin: float) -> Tensor:
    """Mean over valid anchors of max(0, margin + d(anchor, positive) - d(anchor, negative)); 0 if none is valid.

    Shape: distances (B, B), unbiased; gives a scalar in the distances' unit.
    """
    to_positive, to_negative = _gather(distances, hardest)
    if not bool(hardest.valid.any()):
        return distances.sum() * 0
    return functional.relu(margin + to_positive - to_negative)[hardest.valid].mean()


def triplet_accuracy(distances: Tensor, hardest: Hardest) -> Tensor:
    """The fraction of valid anchors nearer to their hardest positive than to their hardest negative, in [0, 1]."""
    to_positive, to_negative = _gather(distances, hardest)
    satisfied = (to_positive < to_negative) & hardest.valid
    return satisfied.sum() / hardest.valid.sum().clamp(min=1)


def pair_masks(identities: Tensor) -> tuple[Tensor, Tensor]:
    """(B, B) bool masks of positive pairs (the anchor itself left out) and of negative pairs."""
    same = identities[:, None] == identities[None, :]
    itself = torch.eye(len(identities), dtype=torch.bool, device=identities.device)
    return same & ~itself, ~same


def _bias(distances: Tensor, mask: Tensor, bias: CameraBias, time: float) -> Tensor:
    # Population standard deviation: the matrix is all there is of it.
    entries = distances * mask if bias.std_over == "masked_matrix" else distances[mask]
    deviation = entries.std(correction=0) if entries.numel() else distances.new_zeros(())
    return bias.size * deviation / (1 + bias.decay * time)


def _select(to_positives: Tensor, to_negatives: Tensor, positives: Tensor, negatives: Tensor) -> Hardest:
    infinity = float("inf")
    return Hardest(
        positive=to_positives.masked_fill(~positives, -infinity).argmax(dim=1),
        negative=to_negatives.masked_fill(~negatives, infinity).argmin(dim=1),
        valid=positives.any(dim=1) & negatives.any(dim=1),
    )


def _gather(distances: Tensor, hardest: Hardest) -> tuple[Tensor, Tensor]:
    return (
        distances.gather(1, hardest.positive[:, None]).squeeze(1),
        distances.gather(1, hardest.negative[:, None]).squeeze(1),
    )
