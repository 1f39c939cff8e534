"""QAConv's three methods trained by `POST /jobs` on one data set, and what they learned.

    .venv/bin/python -m benchmarks.posted --data <folder> --backbone resnet18 --rates 0.02 0.01 0.01 --epochs 10 8 4

Starts a service of its own with an embedded broker, as `reid demo` does, and asks it for everything, as a client would.
Loss and accuracy of pairs (of `qaconv`, that of the class memory) are means of the first and of the last tenth of the
steps; rank-1 and mAP are of the test split, by the first stage's vectors and with all of its images matched.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import datetime
from pathlib import Path
from statistics import mean
from typing import Any

from service.cli.client import Client
from service.cli.demo import start_service

QACONV = ("qaconv", "qaconv-pk", "qaconv-gs")
_SHOWN = ("loss", "pair_accuracy", "memory_accuracy")


def main() -> None:
    options = parse_options()
    print("| method | base_lr | steps | loss | accuracy | first stage | matched | seconds |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="reid-posted-") as home,
        start_service(Path(home), options.data, options.weights) as client,
    ):
        dataset = client.post("/datasets", {"name": "people", "path": str(options.data.resolve())})
        wait_for(client, dataset["job"])
        for method, rate, epochs in zip(QACONV, options.rates, options.epochs, strict=True):
            print_row(client, method, describe(method, rate, epochs, options))


def describe(method: str, rate: float, epochs: int, options: argparse.Namespace) -> dict[str, Any]:
    """The body of the training."""
    settings: dict[str, Any] = {
        "backbone": options.backbone,
        "image": {"height": options.height, "width": options.width},
        "last_stride": options.last_stride,
        "normalisation": "imagenet",
        "augmentation": {"padding": 6},
        "schedule": {"base_lr": rate, "epochs": epochs},
    }
    if method != "qaconv":
        settings["batch"] = {"identities": 8, "images_per_identity": 4}
    if options.weights is None:
        settings["backbone_rate"] = 1
    body = {"kind": "train", "method": method, "dataset": "people", "model_name": method, "seed": options.seed}
    start = {"weights": options.weights.name} if options.weights else None
    return body | {"settings": settings, "init_from": start}


def print_row(client: Client, method: str, body: dict[str, Any]) -> None:
    job = wait_for(client, client.post("/jobs", body)["id"])
    curves = client.get(f"/jobs/{job['id']}/metrics")
    asked = {"kind": "evaluate", "model": method, "dataset": "people", "rerank": "qaconv"}
    accuracy = wait_for(client, client.post("/jobs", asked)["id"])["result"]
    loss, learned = (learning(curves[name]) for name in _SHOWN if name in curves)
    stages = [f"{stage['cmc']['1']:.3f} / {stage['mAP']:.3f}" for stage in (accuracy["first_stage"], accuracy)]
    rate = body["settings"]["schedule"]["base_lr"]
    cells = [f"`{method}`", rate, len(curves["loss"]), loss, learned, *stages, seconds_of(job)]
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def learning(curve: list[list[float]]) -> str:
    """Shows the means of the first and last tenth of a curve of (step, value)."""
    tenth = max(1, len(curve) // 10)
    first, last = (mean(value for _, value in part) for part in (curve[:tenth], curve[-tenth:]))
    return f"{first:.2f} to {last:.2f}"


def seconds_of(job: Any) -> int:
    began, ended = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
    return round((ended - began).total_seconds())


def wait_for(client: Client, job: str) -> Any:
    return client.wait_for_job(job, lambda job: None)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train, query and gallery splits")
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", type=Path, help="safetensors file; left out: random weights")
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--last-stride", type=int, choices=[1, 2], default=2, help="of the third stage")
    parser.add_argument("--rates", type=float, nargs=3, required=True, metavar="RATE", help=f"of {', '.join(QACONV)}")
    parser.add_argument("--epochs", type=int, nargs=3, required=True, metavar="EPOCHS", help="of the same")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
