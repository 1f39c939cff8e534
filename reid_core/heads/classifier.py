"""The classifier that progressive transfer learning trains with (Yu et al. 2019, section 3.2)."""

from __future__ import annotations

from torch import nn


class ThreeLayerClassifier(nn.Sequential):
    """Three fully connected layers, ReLU between them. (B, width) to (B, num_classes) logits.

    The paper gives no hidden widths. Half of the feature's, twice, is what its parameter counts agree with
    (`benchmarks/parameters.py`).
    """

    def __init__(self, width: int, num_classes: int) -> None:
        hidden = width // 2
        layers = [nn.Linear(width, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, num_classes)]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        super().__init__(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
