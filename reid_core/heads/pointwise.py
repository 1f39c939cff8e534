"""The 1 x 1 convolution that mixes channels, with what follows it."""

from __future__ import annotations

from torch import nn


class Pointwise(nn.Sequential):
    """1 x 1 convolution, batch normalisation, ReLU. (B, in_channels, h, w) to (B, out_channels, h, w).

    The convolution has no bias (the authors' code of PTL has one), since the normalisation would remove it.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        convolution = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight)
        super().__init__(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())
