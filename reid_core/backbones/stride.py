"""Maps as fine as those of the stage before: a stage without its stride."""

from __future__ import annotations

from torch import nn


def remove_stride(block: nn.Module) -> None:
    """Makes every convolution of a stage's first block, its shortcut's too, look at every place. No tensor changes."""
    for convolution in block.modules():
        if isinstance(convolution, nn.Conv2d):
            convolution.stride = (1, 1)
