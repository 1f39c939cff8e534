"""One model by every engine, beside PyTorch as it runs it, in the same run.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.engines --threads 1 2

Prints Markdown rows: milliseconds of a batch of 1, 8 and 32 images (the median of rounds in which the engines take
turns), the largest distance from PyTorch in float32, seconds to publish and to open, and the memory by which a process
grew that opened the engine and ran each batch once. The engine takes bf16 where PyTorch does. Weights are random,
images drawn people.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from reid_core.data.preprocessing import preprocessing_of
from reid_core.devices import has_bf16_units
from reid_core.engines import EngineName
from reid_core.engines.publishing import COMPARED_IMAGES, Published, publish_engine
from reid_core.engines.serving import serve
from reid_core.methods import METHODS
from reid_core.model import save_model
from reid_core.retrieval.encoder import Encoder
from reid_core.sample_data import draw_people
from reid_core.settings import override

CPU = torch.device("cpu")
BACKBONES = ("mobilenet_v2", "resnet18", "resnet50")
ENGINES: tuple[EngineName, ...] = ("torch", "onnxruntime", "openvino")
BATCHES = (1, 8, 32)


def main() -> None:
    arguments = parsed()
    if arguments.grow:
        print(grown(Path(arguments.grow), arguments.threads[0]))
        return
    print(f"{torch.backends.cpu.get_cpu_capability()}, bf16 units: {has_bf16_units()}\n")
    print("| backbone | threads | engine | 1, ms | 8, ms | 32, ms | difference | publish, s | open, s | memory, MB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for backbone in arguments.backbones:
            for threads in arguments.threads:
                compare_engines(Path(folder) / f"{backbone}-{threads}", backbone, threads, arguments)


def compare_engines(folder: Path, backbone: str, threads: int, arguments: argparse.Namespace) -> None:
    torch.set_num_threads(threads)
    people = draw_people(max(BATCHES))
    encoders: dict[EngineName, Encoder] = {}
    said: dict[EngineName, str] = {}
    for engine in ENGINES:
        own = folder / engine
        save(own, backbone, arguments)
        began = time.perf_counter()
        published = publish_engine(own, people[:COMPARED_IMAGES], engine)
        publishing = time.perf_counter() - began
        began = time.perf_counter()
        encoders[engine] = serve(own, CPU, "auto").encoder
        opening = time.perf_counter() - began
        said[engine] = f"{describe(published)} | {publishing:.1f} | {opening:.1f} | {memory_of(own, threads):.0f}"
    prepared = torch.stack([encoders["torch"].prepare(image) for image in people])
    columns = [milliseconds(encoders, prepared[:count], arguments.seconds) for count in BATCHES]
    for engine in ENGINES:
        figures = " | ".join(f"{column[engine]:.1f}" for column in columns)
        print(f"| {backbone} | {threads} | {engine} | {figures} | {said[engine]} |", flush=True)


def milliseconds(encoders: dict[EngineName, Encoder], images: Tensor, seconds: float) -> dict[EngineName, float]:
    """The median of each engine, after a first round that is not counted."""
    times: dict[EngineName, list[float]] = {engine: [] for engine in encoders}
    until = 0.0
    while not until or time.perf_counter() < until or len(times["torch"]) < 6:
        for engine, encoder in encoders.items():
            times[engine].append(timed(lambda encoder=encoder: encoder.embed_prepared(images)))
        until = until or time.perf_counter() + seconds
    return {engine: 1000 * float(np.median(values[1:])) for engine, values in times.items()}


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def save(folder: Path, backbone: str, arguments: argparse.Namespace) -> None:
    method = METHODS["bnneck"]
    size = {"height": arguments.height, "width": arguments.width}
    settings = override(method.recipe, {"backbone": backbone, "image": size})
    torch.manual_seed(0)
    network = method.build_network(settings, 751)
    folder.mkdir(parents=True)
    preprocessing = preprocessing_of(settings)
    save_model(folder, network, method="bnneck", settings=settings, num_classes=751, preprocessing=preprocessing)


def describe(published: Published) -> str:
    if published.difference is None:
        return "none" if not published.refused else str(published.reason)
    return f"{published.difference:.1g} in {published.precision}"


def memory_of(folder: Path, threads: int) -> float:
    """Megabytes, measured in a process of its own, which has imported what every engine needs."""
    command = [sys.executable, "-m", "benchmarks.engines", "--grow", str(folder), "--threads", str(threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def grown(folder: Path, threads: int) -> float:
    torch.set_num_threads(threads)
    people = draw_people(max(BATCHES))
    before = psutil.Process().memory_info().rss
    encoder = serve(folder, CPU, "auto").encoder
    for count in BATCHES:
        encoder.embed(people[:count])
    return (psutil.Process().memory_info().rss - before) / 2**20


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--grow", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
