"""The batch-related convolutional cell of progressive transfer learning (Yu et al. 2019)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class BConvCell(nn.Module):
    """A convolution whose output is rectified by what earlier batches left in a latent state C (eq. 1).

        i, f, o = sigmoid(W * x + b)    C = f C' + i tanh(W_c * x + b_c)    y = o tanh(C)

    C' is what the last training batch left at the same place of the batch: image n meets the state of image n. No
    gradient flows into it. It is zero for every image in evaluation mode, which leaves the state as it is, and in
    training mode right after `reset` or with `carry_state=False`.

    The paper does not say how a state tied to places in a batch meets a batch of another size. Here a smaller batch
    reads and updates the first places only, and the others keep what they hold until a batch reaches them again; a
    larger one finds zeros at its new places, which is what every place starts from. So no size is refused, nothing
    gathered is lost, and what a place holds never depends on how many others there are.

    `state` (places, out_channels, h, w) is float32 whatever autocast chooses, as it sums over an epoch, and is part of
    `state_dict`. Its number of places is loaded with it.

    # Paper: biases and a zero state; authors' code: no biases, noise of deviation 0.001 for the first state. Paper
    # followed. The code also resets before every batch from its first evaluation on, by mistake: not followed.

    Shape: (B, in_channels, H, W) to (B, out_channels, ceil(H / stride), ceil(W / stride)).
    """

    state: Tensor

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, carry_state: bool = True) -> None:
        super().__init__()
        self.carry_state = carry_state
        self.gates = nn.Conv2d(in_channels, 4 * out_channels, kernel_size=3, stride=stride, padding=1)
        nn.init.kaiming_normal_(self.gates.weight)
        nn.init.zeros_(self.gates.bias)  # type: ignore[arg-type]  # it has one
        self.register_buffer("state", torch.zeros(0, out_channels, 0, 0))
        self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]  # torch has no types here

    def reset(self) -> None:
        """Forgets the latent state of every place."""
        self.state = self.state.new_zeros(0, self.state.shape[1], 0, 0)

    def forward(self, maps: Tensor) -> Tensor:
        gates = self.gates(maps)
        into, forget, out, candidate = gates.float().chunk(4, dim=1)
        state = into.sigmoid() * candidate.tanh()
        if self.training and self.carry_state:
            state = forget.sigmoid() * self._left_for(state) + state
            self._keep(state.detach())
        output: Tensor = out.sigmoid() * state.tanh()
        return output.to(gates.dtype)

    def _left_for(self, batch: Tensor) -> Tensor:
        carried = self.state[: len(batch)]
        if len(carried) == len(batch):
            return carried
        zeros = batch.new_zeros(len(batch) - len(carried), *batch.shape[1:])
        return torch.cat([carried, zeros]) if len(carried) else zeros

    def _keep(self, state: Tensor) -> None:
        untouched = self.state[len(state) :]
        self.state = torch.cat([state, untouched]) if len(untouched) else state


def _make_room(cell: BConvCell, weights: dict[str, Any], prefix: str, *_: object) -> None:
    """Before loading: a state of the given shape and memory layout, to be filled."""
    given = weights.get(f"{prefix}state")
    if given is not None:
        cell.state = torch.empty_like(given, device=cell.state.device)
