"""Estimates the cost of a network without running it: memory of a training step and operations per image."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reid_core.backbones import DEPTHWISE, GlobalBackboneName
from reid_core.network import Output, ReidNetwork

_PROCESS_BYTES = 500 * 1024**2
_MATRIX_SIZE = 1024
# Assumed shares of the matrix rate that convolution networks reach; not calibrated on any machine yet.
_SHARE, _SHARE_DEPTHWISE = 0.35, 0.08


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one training step or one forward pass.

    Attributes:
        memory_bytes: parameters, gradients and optimiser state (Adam's) and every layer's output, in float32.
        forward_operations: floating-point operations of one image's forward pass; training takes three times as many.
    """

    memory_bytes: int
    forward_operations: float


def count_cost(network: ReidNetwork, *, batch: int, height: int, width: int) -> Cost:
    """The cost of a network built on the meta device (`with torch.device("meta")`)."""
    outputs = 0

    def add(_module: nn.Module, _inputs: object, output: Tensor | Output | tuple[Tensor, ...]) -> None:
        nonlocal outputs
        if isinstance(output, Tensor):
            outputs += output.numel()

    hooks = [module.register_forward_hook(add) for module in network.modules() if not list(module.children())]
    images = torch.empty(2, 3, height, width, device="meta")
    with FlopCounterMode(display=False) as counter:
        network(images)
    for hook in hooks:
        hook.remove()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return cost_of(parameters, outputs // 2, counter.get_total_flops() / 2, batch=batch)


def cost_of(parameters: int, outputs: int, operations: float, *, batch: int) -> Cost:
    """The cost by a network's parameters and, of one image, the numbers in its layers' outputs and its operations."""
    return Cost(_PROCESS_BYTES + 4 * (4 * parameters + outputs * batch), operations)


def measure_rate(device: torch.device, backbone: GlobalBackboneName | None) -> float:
    """Operations per second that a network of this backbone, or another, may reach here.

    From one timed matrix product.
    """
    left = torch.randn(_MATRIX_SIZE, _MATRIX_SIZE, device=device)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        float((left @ left)[0, 0])
        times.append(time.perf_counter() - start)
    share = _SHARE_DEPTHWISE if backbone in DEPTHWISE else _SHARE
    return share * 2 * _MATRIX_SIZE**3 / min(times)
