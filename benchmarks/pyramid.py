"""The pyramid beside the plain baseline, on any data set. The paper's table 4 is `reid reproduce 002-table4`.

    .venv/bin/python -m benchmarks.pyramid --data <folder> --weights <file> --log compare.jsonl --seeds 0 1 2

Everything is trained at the same image size, backbone, batch and number of epochs; a method's own numbers, the
learning rate among them, are its paper's unless `--settings` says otherwise. Every run's line is appended to `--log`;
a run that is there with the same settings is not repeated, so an interrupted table goes on where it was.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy import Row, make_plan, read_or_run, span, train_and_test
from reid_core.data.contents import Contents
from reid_core.data.reader import read
from reid_core.devices import resolve_device
from reid_core.methods import METHODS
from reid_core.settings import override

MEASURES = ("mAP", "rank1", "rank5", "rank10")

Variants = Mapping[str, tuple[str, Mapping[str, Any]]]
"""Name of a row -> method and what differs from the others."""

COMPARED: Variants = {
    "bnneck": ("bnneck", {}),
    "bnneck, dynamic": ("bnneck", {"dynamic": {"enabled": True}}),
    "pyramid": ("pyramid", {}),
}


def main() -> None:
    options = parse_options()
    names = options.rows or list(COMPARED)
    if unknown := sorted(set(names) - set(COMPARED)):
        raise SystemExit(f"unknown rows {', '.join(unknown)}; known: {', '.join(COMPARED)}")
    data = read(Path(options.data))
    runs = [describe(name, seed, options) for seed, name in itertools.product(options.seeds, names)]
    rows = read_or_run(Path(options.log), runs, lambda run: measure(run, data, options))
    print_table(names, rows)


def describe(name: str, seed: int, options: argparse.Namespace) -> Row:
    """The settings by which a stored run is recognised."""
    method, changes = COMPARED[name]
    common = {
        "backbone": options.backbone,
        "image": {"height": options.height, "width": options.width},
        "batch": {"identities": options.identities, "images_per_identity": options.images_per_identity},
        "schedule": {"epochs": options.epochs},
    }
    settings = override(override(METHODS[method].recipe, common), changes)
    for given in options.settings:
        of, _, text = given.partition("=")
        settings = override(settings, json.loads(text)) if of == method else settings
    place = {"row": name, "method": method, "data": options.data, "weights": options.weights, "seed": seed}
    return place | {"settings": settings.model_dump(mode="json")}


def measure(run: Row, data: Contents, options: argparse.Namespace) -> Row:
    plan = make_plan(run["method"], run, data, resolve_device(options.device), options.weights)
    began = time.monotonic()
    measured = train_and_test(plan, data) | {"seconds": round(time.monotonic() - began)}
    print(run["row"], f"seed {run['seed']}", measured, flush=True)
    return measured


def print_table(names: Sequence[str], rows: Sequence[Row]) -> None:
    print("\nmean over seeds (lowest to highest)\n")
    print("| row | seeds | mAP | rank-1 | rank-5 | rank-10 |\n|---|---|---|---|---|---|")
    for name in names:
        of_name = [row for row in rows if row["row"] == name]
        shown = [span(of_name, measure) for measure in MEASURES]
        print("| " + " | ".join([name, str(len(of_name)), *shown]) + " |")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train, query and gallery splits")
    parser.add_argument("--rows", nargs="+", help="only these rows")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", help="safetensors file; left out: random weights")
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--identities", type=int, default=8)
    parser.add_argument("--images-per-identity", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument(
        "--settings", action="append", default=[], metavar="METHOD=JSON", help="""pyramid='{"schedule": {...}}'"""
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--log", required=True, help="file of one line a run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
