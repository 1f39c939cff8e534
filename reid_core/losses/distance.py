"""Distances between the vectors of a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def euclidean(vectors: Tensor) -> Tensor:
    """All-pairs Euclidean distances of (B, D) vectors: (B, B) float32, at least 1e-6, differentiable everywhere.

    The floor keeps the gradient of the square root finite where two vectors are equal.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        vectors = vectors.float()
        squares = vectors.square().sum(dim=1)
        squared = squares[:, None] + squares[None, :] - 2 * vectors @ vectors.T  # (B, B)
        return squared.clamp(min=1e-12).sqrt()
