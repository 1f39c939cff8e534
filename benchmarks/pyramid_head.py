"""Images per second of the pyramid head and of a plain global head on the same backbone, step by step in turn.

    .venv/bin/python -m benchmarks.pyramid_head --backbones resnet18 mobilenet_v2 --height 192 --width 64

The plain head is an average over the map and one classifier. A training step is forward, identity and triplet loss,
backward, SGD; extraction is the forward pass in evaluation mode. Both run as a job does: channels-last, bf16 where the
CPU has units for it, the job processes' allocator settings. The two networks take turns, so that whatever else the
machine does falls on both; the overhead is the median over the turns. Images are random tensors: no decoding.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from reid_core.backbones import BACKBONES, BackboneName, build_backbone
from reid_core.devices import resolve_dtype
from reid_core.heads.pyramid import PyramidHead
from reid_core.losses.distance import euclidean
from reid_core.losses.identity import identity_loss
from reid_core.losses.triplet import batch_hard, triplet_loss
from reid_core.network import Output
from worker.supervisor import CHILD_ENVIRONMENT

CPU = torch.device("cpu")


class PlainNetwork(nn.Module):
    def __init__(self, backbone: BackboneName, num_classes: int) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, last_stride=1)
        self.classifier = nn.Linear(self.backbone.channels[-1], num_classes, bias=False)

    def forward(self, images: Tensor) -> Output:
        feature = self.backbone(images)[-1].mean(dim=(2, 3))
        return Output(embedding=feature, features=[feature], logits=[self.classifier(feature)])


class PyramidNetwork(nn.Module):
    def __init__(self, backbone: BackboneName, options: argparse.Namespace) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, last_stride=1)
        self.head = PyramidHead(
            self.backbone.channels[-1], options.classes, options.parts, options.levels, options.feature, dropout=0.2
        )

    def forward(self, images: Tensor) -> Output:
        features, logits = self.head(self.backbone(images)[-1])
        vector = features.flatten(1)
        return Output(embedding=vector, features=[vector], logits=[*logits.unbind(1)])


def main() -> None:
    options = parse_options()
    if not CHILD_ENVIRONMENT.items() <= os.environ.items():
        # An allocator's settings are read when a process starts.
        command = [sys.executable, "-m", "benchmarks.pyramid_head", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | CHILD_ENVIRONMENT)
    torch.manual_seed(options.seed)
    print(
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, {torch.backends.cpu.get_cpu_capability()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; batches of {options.batch} images of "
        f"{options.height} x {options.width}, {options.classes} identities, {options.repeat} turns"
    )
    print("| backbone | work | plain images/s | pyramid images/s | head overhead |")
    print("|---|---|---|---|---|")
    for backbone in options.backbones:
        for work, turns in measure(backbone, options).items():
            plain, pyramid = (options.batch / statistics.median(seconds) for seconds in zip(*turns, strict=True))
            overhead = statistics.median(pyramid_took / plain_took - 1 for plain_took, pyramid_took in turns)
            print(f"| {backbone} | {work} | {plain:.1f} | {pyramid:.1f} | {100 * overhead:.1f} % |", flush=True)


Turns = list[tuple[float, float]]
"""Seconds of a batch for the plain and for the pyramid network, turn by turn."""


def measure(backbone: BackboneName, options: argparse.Namespace) -> dict[str, Turns]:
    """The turns of each kind of work."""
    networks = [
        network.to(memory_format=torch.channels_last)
        for network in (PlainNetwork(backbone, options.classes), PyramidNetwork(backbone, options))
    ]
    images = torch.randn(options.batch, 3, options.height, options.width).contiguous(memory_format=torch.channels_last)
    identities = torch.arange(options.batch) // 8
    dtype = resolve_dtype("auto", CPU, backbone, options.width)
    training = [training_step(network.train(), images, identities, dtype) for network in networks]
    seconds = {"training": take_turns(training, options.repeat)}
    extraction = [extraction_step(network.eval(), images, dtype) for network in networks]
    return seconds | {"extraction": take_turns(extraction, options.repeat)}


def training_step(network: nn.Module, images: Tensor, identities: Tensor, dtype: torch.dtype) -> Callable[[], object]:
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            output = network(images)
        distances = euclidean(output.features[0])
        metric = triplet_loss(distances, batch_hard(distances, identities), margin=1.4)
        (metric + sum(identity_loss(logits, identities) for logits in output.logits)).backward()
        optimizer.step()

    return step


def extraction_step(network: nn.Module, images: Tensor, dtype: torch.dtype) -> Callable[[], object]:
    def step() -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            return network(images).embedding

    return step


def take_turns(steps: list[Callable[[], object]], repeat: int) -> Turns:
    for step in steps:
        step()  # fills caches
    return [(seconds_of(steps[0]), seconds_of(steps[1])) for _ in range(repeat)]


def seconds_of(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=["resnet18", "mobilenet_v2"])
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--classes", type=int, default=751)
    parser.add_argument("--parts", type=int, default=6)
    parser.add_argument("--levels", default="111111")
    parser.add_argument("--feature", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=11)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
