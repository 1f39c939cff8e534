"""The batch normalisation neck (Luo et al. 2019, arXiv:1906.08332)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class NeckOutput(NamedTuple):
    before: Tensor
    """(B, D), what metric losses take."""
    after: Tensor
    """(B, D), what the classifier takes and search compares."""
    logits: Tensor
    """(B, C)."""


class BNNeck(nn.Module):
    """Batch normalisation without a learned shift between the metric losses and the classifier, which has no bias.

    Shape: (B, D) to (B, D), (B, D) and (B, num_classes).
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.norm.bias.requires_grad_(False)
        self.classifier = nn.Linear(width, num_classes, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, feature: Tensor) -> NeckOutput:
        after = self.norm(feature)
        return NeckOutput(feature, after, self.classifier(after))
