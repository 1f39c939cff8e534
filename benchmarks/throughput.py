"""Images per second of training and extraction, beside a plain fp32 eager loop in the same run.

    .venv/bin/python -m benchmarks.throughput --backbone resnet50 --height 256 --width 128

Ours runs as a job does: channels-last, bf16 where the CPU has units for it, the job processes' allocator settings.
Both run in processes of their own, since an allocator's settings are read when a process starts. Images are random
tensors: decoding is left out on both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from reid_core.devices import has_bf16_units, resolve_dtype
from reid_core.methods import METHODS
from reid_core.methods.method import Moment
from reid_core.network import Batch
from reid_core.settings import override
from worker.supervisor import CHILD_ENVIRONMENT

CPU = torch.device("cpu")
NUM_CLASSES = 751


def main() -> None:
    arguments = parse_arguments()
    if arguments.child:
        print(json.dumps(measure(arguments, plain=arguments.child == "plain")))
        return
    print(
        f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, bf16 units: {has_bf16_units()}"
    )
    results = {side: run_child(side) for side in ("plain", "ours")}
    for work in ("training", "extraction"):
        plain, ours = results["plain"][work], results["ours"][work]
        print(f"{work}: plain {plain:.1f}, ours {ours:.1f} images/s: {ours / plain:.2f} x")
    for side, result in results.items():
        print(f"peak memory, {side}: {result['peak_bytes'] / 1e9:.2f} GB")


def run_child(side: str) -> dict[str, float]:
    environment = os.environ | (CHILD_ENVIRONMENT if side == "ours" else {})
    command = [sys.executable, "-m", "benchmarks.throughput", *sys.argv[1:], "--child", side]
    answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def measure(arguments: argparse.Namespace, *, plain: bool) -> dict[str, float]:
    torch.manual_seed(arguments.seed)
    size = {"height": arguments.height, "width": arguments.width}
    method = METHODS["bnneck"]
    settings = override(method.recipe, {"backbone": arguments.backbone, "image": size})
    network = method.build_network(settings, NUM_CLASSES)
    criterion = method.build_criterion(settings, NUM_CLASSES, network)
    optimizers = method.build_optimizers(settings, network, criterion)
    images = torch.randn(arguments.batch, 3, arguments.height, arguments.width)
    dtype = torch.float32 if plain else resolve_dtype("auto", CPU, arguments.backbone, arguments.width)
    if not plain:
        network = network.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    identities = torch.from_numpy(np.repeat(np.arange(arguments.batch // 4), 4))
    batch = Batch(images, identities, torch.zeros_like(identities))

    def train() -> None:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            output = network(images)
        sum(criterion(output, batch, Moment(0, 0)).terms.values()).backward()
        for optimizer in optimizers:
            optimizer.step()

    network.train()
    training = rate(train, arguments)
    network.eval()
    return {
        "training": training,
        "extraction": rate(lambda: extract(network, images, dtype), arguments),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0,
    }


def extract(network: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Any:
    with torch.inference_mode(), torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        return network(images).embedding


def rate(step: Callable[[], object], arguments: argparse.Namespace) -> float:
    step()
    seconds = []
    for _ in range(arguments.repeat):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return float(arguments.batch / statistics.median(seconds))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", choices=("plain", "ours"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
