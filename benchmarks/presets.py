"""Every method trained by `POST /jobs` with preset `small`, and what it learned of people it has not seen.

    REID_THREADS=1 .venv/bin/python -m benchmarks.presets --data <folder> --weights <mobilenet_v2 file> --seed 0

Starts a service of its own and asks it for everything, as a client would. The untrained network is the same job with no
epochs. mAP is of the data set's query and gallery splits, of the QAConv methods by their matcher, with that of their
first stage beside it. With preset `paper` at the same length, a dry run and the job are asked for what they warn of;
that job is cancelled then, or trained and measured as well with `--paper`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from reid_core.methods import METHODS
from service.cli.client import Client
from service.cli.own import start_service

EPOCHS = {"qaconv": 12, "qaconv-gs": 6}
"""Those of the others are `--epochs`. An epoch of graph sampling is twice as long here."""

_TEACHER = "ptl-resnet50"
_SHORT = "too-short-for-preset"


def main() -> None:
    options = parse_options()
    print("| method | epochs | seconds | untrained | small | times | first stage | rank-1 | paper's warnings | paper |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    roots = [options.data.resolve().parent]
    with (
        tempfile.TemporaryDirectory(prefix="reid-presets-") as home,
        start_service(Path(home), roots, options.weights.resolve().parent) as client,
    ):
        registered = client.post("/datasets", {"name": "people", "path": str(options.data.resolve())})
        client.wait_for_job(registered["job"], lambda job: None)
        for method in options.methods:
            print_row(client, method, options)


def print_row(client: Client, method: str, options: argparse.Namespace) -> None:
    epochs = EPOCHS.get(method, options.epochs)
    _, untrained = train_and_test(client, describe(method, "small", 0, options), f"{method}-untrained")
    job, small = train_and_test(client, describe(method, "small", epochs, options), method)
    paper = describe(method, "paper", epochs, options)
    warned = ask_for_warnings(client, paper)
    trained = train_and_test(client, paper, f"{method}-paper")[1]["mAP"] if options.paper else None
    first = small.get("first_stage") or {}
    seconds = seconds_of(job)
    cells = [
        f"`{method}`",
        epochs,
        seconds,
        f"{untrained['mAP']:.3f}",
        f"{small['mAP']:.3f}",
        f"{small['mAP'] / untrained['mAP']:.1f}",
        f"{first['mAP']:.3f}" if first else "",
        f"{small['cmc']['1']:.3f}",
        ", ".join(sorted(warned)),
        "" if trained is None else f"{trained:.3f}",
    ]
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def describe(method: str, preset: str, epochs: int, options: argparse.Namespace) -> dict[str, Any]:
    """The body of the training."""
    settings: dict[str, Any] = {
        "preset": preset,
        "backbone": "mobilenet_v2",
        "image": {"height": options.height, "width": options.width},
        "schedule": {"epochs": epochs},
    }
    if preset == "paper" and method == "pyramid":
        settings |= {"parts": 4, "levels": "1111"}  # the paper's six do not divide small maps
    body = {"kind": "train", "method": method, "dataset": "people", "seed": options.seed, "settings": settings}
    teacher = {"teacher": _TEACHER} if METHODS[method].settle else {}
    return body | teacher | {"init_from": {"weights": options.weights.name}}


def train_and_test(client: Client, body: dict[str, Any], name: str) -> tuple[Any, Any]:
    """The training's job, and the result of the evaluation."""
    training = wait_for(client, client.post("/jobs", body | {"model_name": name})["id"])
    asked = {"kind": "evaluate", "model": name, "dataset": "people"}
    return training, wait_for(client, client.post("/jobs", asked)["id"])["result"]


def ask_for_warnings(client: Client, body: dict[str, Any]) -> set[str]:
    """Names whichever of the dry run and the job warns of a short training and points to the other preset."""
    dry_run = client.post("/jobs?dry_run=true", body)["warnings"]
    job = client.post("/jobs", body)["id"]
    while client.get(f"/jobs/{job}")["progress"]["phase"] != "train":
        time.sleep(0.2)
    client.post(f"/jobs/{job}/cancel", {})
    client.watch_job(job, lambda job: None)
    told = warnings_of(client, job)
    said = {"dry run": dry_run, "job": told}
    return {who for who, warnings in said.items() if any(points_to_small(warning) for warning in warnings)}


def points_to_small(warning: dict[str, Any]) -> bool:
    return warning["code"] == _SHORT and 'settings.preset "small"' in warning["hint"]


def warnings_of(client: Client, job: str) -> list[dict[str, Any]]:
    """The warnings among the events of a job that is over."""
    lines = client.content(f"/jobs/{job}/events").decode().splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith('data: {"id"')]
    return [event["data"] for event in events if event["event"] == "warning"]


def wait_for(client: Client, job: str) -> Any:
    return client.wait_for_job(job, lambda job: None)


def seconds_of(job: Any) -> int:
    began, ended = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
    return round((ended - began).total_seconds())


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train, query and gallery splits")
    parser.add_argument("--weights", type=Path, required=True, help="safetensors file of a MobileNetV2")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--paper", action="store_true", help="train the paper's preset, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
