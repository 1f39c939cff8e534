"""The coarse-to-fine pyramid head (Zheng et al. 2019, arXiv:1810.12193, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_core.errors import Fault, SettingsError


class PyramidOutput(NamedTuple):
    """The outputs of the N branches, in the order of `windows`."""

    features: Tensor
    """(B, N, D), at least 0; `features.flatten(1)` is the concatenated vector x of section 3.1.2."""
    logits: Tensor
    """(B, N, num_classes)."""


class PyramidHead(nn.Module):
    """A window of stripes per branch: average + maximum, 1 x 1 convolution, batch normalisation, ReLU, classifier.

    Every stripe is pooled once; a longer window is the one before it and one more stripe. What the branches do alike
    is done at once, with their weights stacked. The convolution has no bias, since the normalisation would remove it.
    # Paper: nothing lies between feature and classifier; authors' code: dropout 0.2. `dropout` says which.

    Shape: (B, in_channels, h, w), h a multiple of `parts`, to (B, N, width) and (B, N, num_classes).

    Raises:
        SettingsError: `levels_mask` does not fit `parts`; in forward, `parts` does not divide h.
    """

    def __init__(
        self, in_channels: int, num_classes: int, parts: int, levels_mask: str, width: int, *, dropout: float
    ) -> None:
        super().__init__()
        self.parts = parts
        self.levels = _selected_levels(parts, levels_mask)
        self.dropout = dropout
        branches = len(windows(parts, levels_mask))
        self.projection = nn.Parameter(torch.empty(branches, in_channels, width))
        self.norm = nn.BatchNorm1d(branches * width)
        self.classifier = nn.Parameter(torch.empty(branches, width, num_classes))
        nn.init.normal_(self.projection, std=(2 / in_channels) ** 0.5)
        nn.init.normal_(self.classifier, std=0.001)

    def forward(self, feature_map: Tensor) -> PyramidOutput:
        projected = torch.bmm(self._pool(feature_map), self.projection)  # (N, B, D)
        vector = functional.relu(self.norm(projected.transpose(0, 1).flatten(1)))  # (B, N * D)
        features = vector.unflatten(1, (len(self.projection), -1))  # (B, N, D)
        kept = functional.dropout(features, self.dropout, self.training)
        logits = torch.bmm(kept.transpose(0, 1), self.classifier)  # (N, B, C)
        return PyramidOutput(features, logits.transpose(0, 1))

    def extra_repr(self) -> str:
        return f"parts={self.parts}, levels={self.levels}"

    def _pool(self, feature_map: Tensor) -> Tensor:
        """Average + maximum of every branch's window: (N, B, c) float32."""
        height, width = map(int, feature_map.shape[2:])  # traced for another runtime, windows have to be constants
        check_parts(self.parts, height)
        stripe = (height // self.parts, width)
        averages, maxima = (
            pool(feature_map, stripe).float().squeeze(3).permute(2, 0, 1)  # (n, B, c)
            for pool in (functional.avg_pool2d, functional.max_pool2d)
        )
        sums, largest = _slide(averages, torch.add), _slide(maxima, torch.maximum)
        return torch.cat([sums[level - 1] / level + largest[level - 1] for level in self.levels])


def windows(parts: int, mask: str) -> tuple[tuple[int, int], ...]:
    """The (start, stop) of every branch, in basic parts, in the paper's order: level 1 first, top to bottom in each.

    Args:
        parts: n, the number of basic parts.
        mask: a 0 or 1 for every level, "000001" to "111111" for n = 6, leftmost the finest (table 4).

    Raises:
        SettingsError: the mask has not n characters, has others than 0 and 1, or selects nothing.
    """
    return tuple(
        (start, start + level) for level in _selected_levels(parts, mask) for start in range(parts - level + 1)
    )


def check_parts(parts: int, height: int) -> None:
    """Raises SettingsError with both numbers and the possible ones where `parts` do not divide a map of `height`."""
    if height % parts == 0:
        return
    message = f"{parts} parts do not divide the feature map's height of {height}"
    divisors = [str(count) for count in range(1, height + 1) if height % count == 0]
    raise SettingsError(
        f"{message}.",
        faults=[Fault("/parts", "height-not-divisible", message)],
        hint=f"Set parts to one of {', '.join(divisors)}, or choose another image height.",
    )


def _selected_levels(parts: int, mask: str) -> tuple[int, ...]:
    if len(mask) != parts or set(mask) - {"0", "1"} or "1" not in mask:
        message = f"levels must be {parts} characters 0 or 1, a 1 among them, for {parts} parts; got {mask!r}"
        raise SettingsError(
            f"{message[0].upper()}{message[1:]}.",
            faults=[Fault("/levels", "wrong-levels", message)],
            hint=f"{'1' * parts!r} takes every level, {'1'.zfill(parts)!r} only the whole image.",
        )
    return tuple(level for level, taken in enumerate(mask, start=1) if taken == "1")


def _slide(stripes: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    """Sums the windows of level 1, 2, ... n, from (n, B, c): (n, B, c), (n - 1, B, c), ... (1, B, c)."""
    levels = [stripes]
    for added in range(1, len(stripes)):
        levels.append(combine(levels[-1][:-1], stripes[added:]))
    return levels
