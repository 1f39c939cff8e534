"""A vector from a map of local features, so that an index can propose what the matcher then compares.

QAConv has none of its own: paper 000 compares every pair of maps. Which variant finds most of the matcher's own best
results is measured in docs/runs.md.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_core.losses.pairwise import pairwise_loss

RetrievalVector = Literal["pooled", "stripes", "learned"]

_LEARNED_SIZE = 512


class RetrievalHead(nn.Module):
    """(B, c, h, w) maps to (B, size) vectors, not normalised.

    `pooled`: the mean over all locations (c). `stripes`: the mean of every row (h x c), since people stand upright and
    rows match rows. `learned`: a linear projection of the rows to 512, trained on the batch's pairs beside the matcher;
    its gradient ends at the map, which the matcher alone shapes.
    """

    def __init__(self, variant: RetrievalVector, map_shape: tuple[int, int, int]) -> None:
        super().__init__()
        height, _, channels = map_shape
        self.variant = variant
        self.size = {"pooled": channels, "stripes": height * channels, "learned": _LEARNED_SIZE}[variant]
        if variant == "learned":
            self.projection = nn.Linear(height * channels, _LEARNED_SIZE, bias=False)
            self.scale = nn.Parameter(torch.tensor(10.0))
            self.offset = nn.Parameter(torch.tensor(-5.0))

    def forward(self, feature_map: Tensor) -> Tensor:
        if self.variant == "pooled":
            return feature_map.mean(dim=(2, 3))
        rows = feature_map.mean(dim=3).flatten(1)  # (B, c * h)
        return rows if self.variant == "stripes" else self.projection(rows.detach())

    def loss(self, embedding: Tensor, identities: Tensor) -> dict[str, Tensor]:
        """The projection's own loss by name; empty where nothing is learned."""
        if self.variant != "learned":
            return {}
        unit = functional.normalize(embedding.float(), dim=1)
        return {"retrieval_loss": pairwise_loss(self.scale * (unit @ unit.T) + self.offset, identities)}
