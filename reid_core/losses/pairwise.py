"""Losses on the scores of image pairs: pairwise verification (paper 000, eq. 1) and class memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def pairwise_loss(scores: Tensor, identities: Tensor, *, include_self_pairs: bool = False) -> Tensor:
    """Binary cross entropy of every pair of a batch, summed over an image's pairs, averaged over images (eq. 1).

    Args:
        scores: (B, B) logits of "the same person".
        identities: (B,) labels.
        include_self_pairs: the authors' code also counts each image with itself; the equation sums over j != i.
    """
    same = (identities[:, None] == identities[None, :]).float()
    entropy = functional.binary_cross_entropy_with_logits(scores.float(), same, reduction="none")
    if not include_self_pairs:
        entropy = entropy.masked_fill(torch.eye(len(scores), dtype=torch.bool, device=scores.device), 0)
    return entropy.sum(dim=1).mean()


def memory_loss(scores: Tensor, own: Tensor) -> Tensor:
    """Focal cross entropy of B images against C class memories (Liao and Shao 2020), summed over classes, averaged.

    A pair's cross entropy is weighted by (1 - p)^2 for the own class and by p^2 for others.

    Args:
        scores: (B, C) logits.
        own: (B, C) bool, true at the image's own class; a row without one counts its negatives.
    """
    if scores.numel() == 0:
        return scores.sum()
    scores = scores.float()
    wrong = torch.where(own, -scores, scores)
    return (torch.sigmoid(wrong).square() * functional.softplus(wrong)).sum(dim=1).mean()


def pair_accuracy(scores: Tensor, identities: Tensor) -> Tensor:
    """The fraction of images whose lowest positive scores higher than the highest negative, in [0, 1]."""
    same = identities[:, None] == identities[None, :]
    itself = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    lowest = scores.masked_fill(~same | itself, torch.inf).amin(dim=1)
    highest = scores.masked_fill(same, -torch.inf).amax(dim=1)
    return (lowest > highest).float().mean()
