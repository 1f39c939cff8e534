"""The side branch of progressive transfer learning (Yu et al. 2019, section 3): cells beside a backbone's blocks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from reid_core.heads.bconv import BConvCell

_WIDEST = 512
_LAST_SHARE = 16


class ProgressiveBranch(nn.Module):
    """Cells on the image, then for every block i a 1 x 1 fusion of its map and the last cell's output, and a cell.

        y_0 = cell(image)    y_i = cell(fusion(x_i, y_(i-1)))    (eq. 3)

    The backbone's maps are only read; nothing is fed back into it. Paired are the stem and the first three stages: the
    paper's "top four" of five blocks, top being the image's end (section 3.2), as in the authors' MGN with PTL. A
    cell's stride is that to the next block, and the image meets one cell for every halving down to the stem.

    The paper gives no widths. Here, for c channels of the block, a fusion has c / 2 and its cell c, neither more than
    512; the stem's fusion has c; the last cells have a sixteenth of the backbone's last stage. On ResNet-50 these are
    all the widths of the authors' MGN with PTL (cells 16, 32, 64, 256, 512, 128).

    Args:
        channels, strides: of the four maps paired.
        last_strides: a cell for each of these reads the last fusion.
        backbone_channels: width of the backbone's last stage.

    Attributes:
        width: channels of every map that forward gives.

    Shape: images (B, 3, H, W) and the four maps, to a (B, width, h, w) for each of `last_strides`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        last_strides: Sequence[int],
        backbone_channels: int,
        *,
        carry_state: bool = True,
    ) -> None:
        super().__init__()
        halvings = strides[0].bit_length() - 1
        image = [3, *(channels[0] >> power for power in range(halvings, 0, -1))]
        fused = [channels[0], *(min(channel // 2, _WIDEST) for channel in channels[1:])]
        inner = [min(channel, _WIDEST) for channel in channels[:-1]]
        self.width = backbone_channels // _LAST_SHARE

        def cell(before: int, after: int, stride: int) -> BConvCell:
            return BConvCell(before, after, stride=stride, carry_state=carry_state)

        self.image_cells = nn.Sequential(*(cell(before, after, 2) for before, after in pairwise(image)))
        joined = [block + carried for block, carried in zip(channels, [image[-1], *inner], strict=True)]
        self.fusions = nn.ModuleList(map(Pointwise, joined, fused))
        steps = [after // before for before, after in pairwise(strides)]
        self.cells = nn.ModuleList(map(cell, fused[:-1], inner, steps))
        self.last_cells = nn.ModuleList(cell(fused[-1], self.width, stride) for stride in last_strides)

    def forward(self, images: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
        carried = self.image_cells(images)
        for block, fusion, cell in zip(maps[:-1], self.fusions[:-1], self.cells, strict=True):
            carried = cell(fusion(append_cell(block, carried)))
        fused = self.fusions[-1](append_cell(maps[-1], carried))
        return [cell(fused) for cell in self.last_cells]

    def reset(self) -> None:
        """Forgets every cell's latent state."""
        for module in self.modules():
            if isinstance(module, BConvCell):
                module.reset()


class Pointwise(nn.Sequential):
    """1 x 1 convolution, batch normalisation, ReLU. (B, in_channels, h, w) to (B, out_channels, h, w).

    The convolution has no bias (the authors' code of PTL has one), since the normalisation would remove it.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        convolution = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight)
        super().__init__(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())


def append_cell(block: Tensor, cell: Tensor) -> Tensor:
    """The two maps' channels together. DenseNet's pooling drops an odd last row or column and a cell's stride does not,
    so what the cell has more of is cut off.
    """
    return torch.cat([block, cell[:, :, : block.shape[2], : block.shape[3]]], dim=1)
