"""Center loss (Wen et al. 2016; paper 001, L_C): pulls features towards a learned center of their identity."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CenterLoss(nn.Module):
    """The squared distance of each feature to its identity's center, mean over the batch, times `weight`.

    The centers' own gradient is not scaled by `weight`, so that their learning rate means what it says. (The authors'
    code gets there by dividing the centers' gradient by the weight between backward and step.)
    # Paper: half the sum over the batch; authors' code: the mean, not halved, for which their weight was chosen. Code
    # followed, so that the weight does not depend on the batch's size.

    Shape: features (B, width), identities (B,) in 0..num_classes-1; gives a scalar.
    """

    def __init__(self, num_classes: int, width: int, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.centers = nn.Parameter(torch.randn(num_classes, width))

    def forward(self, features: Tensor, identities: Tensor, *, scale: float = 1.0) -> Tensor:
        """`scale` times `weight` for the features; the centers are pulled as ever."""
        own = self.centers[identities]  # (B, width)
        features = features.float()
        to_features = _mean_square(features - own.detach())
        to_centers = _mean_square(features.detach() - own)
        return scale * self.weight * to_features + (to_centers - to_centers.detach())


def _mean_square(difference: Tensor) -> Tensor:
    return difference.square().sum(dim=1).mean()
