"""All checks that need a CUDA card, one after the other, in at most eight minutes, with what failed at the end.

    .venv/bin/python -m benchmarks.card

The tests marked gpu; the matcher's kernel and the throughput of networks; one training each of `bnneck`, `qaconv-gs`
and `pyramid` in bf16 on drawn people, at the papers' image sizes; FAISS on the card beside PyTorch. Each has a process
of its own and its share of the time. `--device cpu` goes through the trainings in small, without a card.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reid_core.data.reader import read
from reid_core.methods import METHODS
from reid_core.sample_data import write_sample_data
from reid_core.training.loop import Plan, fit

_SECONDS = {"tests": 150, "matching": 90, "throughput": 90, "bnneck": 40, "qaconv-gs": 50, "pyramid": 40, "faiss": 20}
_TRAINED = ("bnneck", "qaconv-gs", "pyramid")


def main() -> int:
    options = parse_options()
    if options.only:
        return run_alone(options.only, options.device)
    if options.device != "cpu" and not torch.cuda.is_available():
        print("There is no CUDA device here.", file=sys.stderr)
        return 2
    failed = [name for name in _SECONDS if not run_apart(name, options.device)]
    print(f"\nfailed: {', '.join(failed) or 'nothing'}")
    return 1 if failed else 0


def run_apart(name: str, device: str) -> bool:
    """Runs one check in a process of its own and prints its time; False where it failed or took too long."""
    if device == "cpu" and name not in _TRAINED:
        return True
    commands = {
        "tests": ["-m", "pytest", "-q", "-m", "gpu"],
        "matching": ["-m", "benchmarks.matching_cuda"],
        "throughput": ["-m", "benchmarks.throughput"],
    }
    command = commands.get(name, ["-m", "benchmarks.card", "--only", name, "--device", device])
    print(f"\n== {name}", flush=True)
    began = time.monotonic()
    try:
        code = subprocess.run([sys.executable, *command], timeout=_SECONDS[name], check=False).returncode
    except subprocess.TimeoutExpired:
        code = -1
    print(f"== {name}: {'ok' if code == 0 else 'FAILED'}, {time.monotonic() - began:.0f} s", flush=True)
    return code == 0


def run_alone(name: str, device: str) -> int:
    return search_on_card() if name == "faiss" else train(name, torch.device(device))


def train(name: str, device: torch.device) -> int:
    """Trains for one epoch on drawn people; 1 where a loss is not finite."""
    asked: dict[str, Any] = {"precision": "bf16", "schedule": {"epochs": 1, "base_lr": 1e-3}}
    if device.type == "cpu":
        image = {"height": 192, "width": 64}
        asked |= {"backbone": "resnet18", "image": image, "batch": {"identities": 4, "images_per_identity": 4}}
    method = METHODS[name]
    settings = method.choose_settings(asked)
    with tempfile.TemporaryDirectory() as folder:
        write_sample_data(Path(folder, "people"), identities=40 if device.type == "cpu" else 400, cameras=4, seed=0)
        plan = Plan(method, settings, read(Path(folder, "people")).images["train"], 0, device)
        began = time.monotonic()
        result = fit(plan, Path(folder))
        seconds = time.monotonic() - began
    losses = [loss for _, loss in result.history["loss"]]
    seen = len(losses) * settings.batch.num_images
    print(f"{name}: {len(losses)} steps of {settings.batch.num_images}, loss {losses[0]:.3f} to {losses[-1]:.3f}")
    print(f"{seen / seconds:.0f} images/s, start and measures of learning included")
    return 0 if all(map(math.isfinite, losses)) else 1


def search_on_card() -> int:
    """Compares FAISS on the card with FAISS on the CPU, PyTorch having the card already."""
    import faiss

    torch.zeros(1, device="cuda")
    vectors = np.random.default_rng(0).standard_normal((100_000, 256), dtype=np.float32)
    flat = faiss.IndexFlatIP(256)
    flat.add(vectors)
    on_card = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, flat)
    (_, wanted), (_, found) = flat.search(vectors[:100], 10), on_card.search(vectors[:100], 10)
    agreed = float((wanted == found).mean())
    print(f"faiss on the card: {agreed:.4f} of the nearest ten are the CPU's")
    return 0 if agreed > 0.999 else 1


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", choices=[*_TRAINED, "faiss"])
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
