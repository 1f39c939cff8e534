"""The head of the Multiple Granularity Network (Wang et al. 2018, arXiv:1804.01438, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

_PARTS = (1, 2, 3)
"""Horizontal stripes of the three branches. All give a global feature too, the first nothing else."""


class MgnOutput(NamedTuple):
    """The eight features: the three branches' globals, then two stripes and three stripes from top to bottom."""

    features: Tensor
    """(B, 8, feature_size), at least 0."""
    logits: Tensor
    """(B, 8, num_classes)."""


class MgnHead(nn.Module):
    """Global and striped maximum pooling of three maps, one shared reduction, normalisation, ReLU, a classifier each.

    A map whose height 2 or 3 does not divide is pooled in stripes that overlap by a row.

    # Wang et al.: a reduction for every feature, and the globals classified before it (2048). The reproduction that PTL
    # is built on: one reduction for all, and every feature classified behind it. The latter is followed, as only it has
    # the 66 million parameters that Yu et al. count.
    # That code also shares one batch normalisation, whose running statistics then mix the eight features, so that in
    # evaluation none is normalised as in training. Here each feature has its own.
    # Classifiers have no bias, as Wang et al. say; the reproduction's have.

    Shape: three maps (B, in_channels, h, w) to `MgnOutput`.
    """

    num_features = sum(_PARTS) + 2

    def __init__(self, in_channels: int, num_classes: int, feature_size: int) -> None:
        super().__init__()
        self.feature_size = feature_size
        self.reduction = nn.Linear(in_channels, feature_size, bias=False)
        self.norm = nn.BatchNorm1d(self.num_features * feature_size)
        classifiers = [nn.Linear(feature_size, num_classes, bias=False) for _ in range(self.num_features)]
        self.classifiers = nn.ModuleList(classifiers)
        nn.init.kaiming_normal_(self.reduction.weight)
        for classifier in classifiers:
            nn.init.kaiming_normal_(classifier.weight, mode="fan_out")

    def forward(self, maps: Sequence[Tensor]) -> MgnOutput:
        pooled = torch.cat([*(_pool(each, 1) for each in maps), *map(_pool, maps[1:], _PARTS[1:])], dim=1)
        reduced = self.norm(self.reduction(pooled).flatten(1))  # (B, 8 * feature_size)
        features = functional.relu(reduced).unflatten(1, (self.num_features, self.feature_size))
        logits = [classify(feature) for classify, feature in zip(self.classifiers, features.unbind(1), strict=True)]
        return MgnOutput(features, torch.stack(logits, dim=1))


def _pool(feature_map: Tensor, parts: int) -> Tensor:
    """(B, c, h, w) to (B, parts, c): the maximum of every stripe; where h does not divide, neighbours share a row."""
    # As adaptive_max_pool2d, which ONNX does not have. Traced for another runtime, windows have to be constants.
    height, width = map(int, feature_map.shape[2:])
    edges = [(part * height // parts, -(-(part + 1) * height // parts)) for part in range(parts)]
    stripes = [functional.max_pool2d(feature_map[:, :, start:stop], (stop - start, width)) for start, stop in edges]
    return torch.stack([stripe.flatten(1) for stripe in stripes], dim=1)
