"""The QAConv head: best correlations to one score per pair, trained with batch statistics, folded for use."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reid_core.errors import CoreError


@dataclass(frozen=True, slots=True, eq=False)
class FoldedHead:
    """score = sum_r weights[r] * (row_max[r] + col_max[r]) + bias: what is left of a head outside training.

    Attributes:
        weights: (hw,) float32.
    """

    weights: Tensor
    bias: float

    def check(self, query: Tensor, gallery: Tensor) -> None:
        """CoreError unless (N, hw, c) maps of both have as many locations as there are weights."""
        if not query.shape[1] == gallery.shape[1] == len(self.weights):
            raise CoreError(
                f"The head weighs {len(self.weights)} locations; the query maps have {query.shape[1]}, the gallery "
                f"maps {gallery.shape[1]}.",
                hint="Compute both with the head's own model.",
            )


class MatchingHead(nn.Module):
    """Normalisation, a weight per location, the sum over both directions, normalisation.

    As Liao and Shao's code since 2021: one weight per location serves both directions, so a pair's score does not
    depend on which of the two is the query (their first release learned a weight per location and direction).

    Shape: two of (Q, G, hw) to (Q, G).
    """

    def __init__(self, num_locations: int) -> None:
        super().__init__()
        self.maxima_norm = nn.BatchNorm1d(1)
        self.weighting = nn.Linear(num_locations, 1)
        self.score_norm = nn.BatchNorm1d(1)
        nn.init.constant_(self.weighting.weight, 1 / num_locations)

    def forward(self, row_max: Tensor, col_max: Tensor) -> Tensor:
        """(Q, G) float32 logits; larger is closer.

        Args:
            row_max, col_max: (Q, G, hw), from `best_correlations`.

        Raises:
            CoreError: a map has another number of locations than this head.
        """
        self._check(row_max, col_max)
        with torch.autocast(row_max.device.type, enabled=False):
            maxima = torch.stack([row_max, col_max], dim=2)  # (Q, G, 2, hw)
            return self._score(maxima.flatten(0, 1)).view(maxima.shape[:2])

    @torch.no_grad()
    def fold(self) -> FoldedHead:
        """This head with its running statistics, as one weighted sum."""
        maxima_scale, maxima_shift = _affine(self.maxima_norm)
        score_scale, score_shift = _affine(self.score_norm)
        weights = self.weighting.weight[0].double()
        # The shift and the bias enter once per direction.
        constant = 2 * (maxima_shift * weights.sum() + self.weighting.bias.double()[0])
        return FoldedHead(
            weights=(score_scale * maxima_scale * weights).float(), bias=float(score_scale * constant + score_shift)
        )

    def _score(self, maxima: Tensor) -> Tensor:
        """(P, 2, hw) to (P,)."""
        normalised = self.maxima_norm(maxima.flatten(0, 1).unsqueeze(1))  # (P * 2, 1, hw)
        directions: Tensor = self.weighting(normalised).view(-1, 2)
        scores: Tensor = self.score_norm(directions.sum(1, keepdim=True))
        return scores.squeeze(1)

    def _check(self, row_max: Tensor, col_max: Tensor) -> None:
        expected = self.weighting.in_features
        if row_max.shape != col_max.shape or row_max.shape[-1] != expected:
            raise CoreError(
                f"The head weighs {expected} locations; the maxima are {tuple(row_max.shape)} and "
                f"{tuple(col_max.shape)}.",
                hint="Compute both maps from images of the size the head was made for.",
            )


def _affine(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Scale and shift of a one-channel normalisation with its running statistics, float64 scalars."""
    if norm.running_mean is None or norm.running_var is None:
        raise TypeError("the head's normalisations keep running statistics")
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale[0], (norm.bias.double() - scale * norm.running_mean.double())[0]
