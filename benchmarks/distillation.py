"""Plain fine-tuning, progressive transfer learning and its student beside each other, over several seeds.

    .venv/bin/python -m benchmarks.distillation --data <folder> --weights <file> --runs <folder> --log rows.jsonl

A seed trains the plain network, the same network with cells, the plain one again as its student (`std`), and the one
with cells and without their latent state, all with the same images, batches and number of epochs. Equation 4
leaves the student's cross entropy a share; its rate is so much higher that this share pulls as the others' whole does.

Trainings have folders of their own in `--runs` and lines in `--log`: an interrupted table goes on where it was.
Tables 1 and 2 of the paper have the order plain < student, PTL.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy import Row, as_model, make_folder, make_plan, read_or_run, span, test
from reid_core.data.contents import Contents
from reid_core.data.reader import read
from reid_core.devices import resolve_device
from reid_core.methods import METHODS
from reid_core.methods.distillation import STD
from reid_core.settings import override
from reid_core.training.loop import Plan, Result, fit

METHOD = {"plain": "finetune-resnet50", "ptl": "ptl-resnet50", "student": "std", "ptl-stateless": "ptl-resnet50"}
"""With any backbone."""


def main() -> None:
    options = parse_options()
    data = read(Path(options.data))
    runs = list_runs(describe(options), options)
    rows = read_or_run(Path(options.log), runs, lambda run: train_and_test(run, data, options))
    print_table(rows, len(options.seeds))


def describe(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Settings of each in full: the plain method's recipe with what the options and `--settings` say."""
    common = {
        "backbone": options.backbone,
        "image": {"height": options.height, "width": options.width},
        "schedule": {"epochs": options.epochs},
    }
    plain = override(override(METHODS[METHOD["plain"]].recipe, common), json.loads(options.settings))
    same = plain.model_dump(mode="json")
    rate = plain.schedule.base_lr / (1 - STD.recipe.balance)
    changes: dict[str, Any] = {
        "student": {"student": METHOD["plain"], "schedule": same["schedule"] | {"base_lr": rate}},
        "ptl-stateless": {"carry_state": False},
    }
    recipes = {name: METHODS[method].recipe for name, method in METHOD.items()}
    return {
        name: override(recipe, same | changes.get(name, {})).model_dump(mode="json") for name, recipe in recipes.items()
    }


def list_runs(settings: dict[str, dict[str, Any]], options: argparse.Namespace) -> list[Row]:
    """The settings by which a stored run is recognised."""
    same = {"data": options.data, "weights": options.weights}
    taught = {"student": {"teacher": settings["ptl"]}}
    return [
        same | {"seed": seed, "trained": name, "settings": settings[name]} | taught.get(name, {})
        for seed in options.seeds
        for name in METHOD
    ]


def train_and_test(run: Row, data: Contents, options: argparse.Namespace) -> Row:
    began = time.monotonic()
    plan, result = train(run, data, options)
    parameters = sum(parameter.numel() for parameter in result.network.parameters())
    seconds = round(time.monotonic() - began)
    measured = test(plan, result, data) | {"parameters": parameters, "seconds": seconds}
    print(f"seed {run['seed']}", run["trained"], measured, flush=True)
    return measured


def train(run: Row, data: Contents, options: argparse.Namespace) -> tuple[Plan, Result]:
    """The plan and what came of it; what was trained before, as a teacher was, comes back from its checkpoint."""
    taught = {name: value for name, value in run.items() if name != "teacher"} | {"trained": "ptl"}
    teacher = as_model(*train(taught | {"settings": run["teacher"]}, data, options)) if "teacher" in run else None
    plan = make_plan(METHOD[run["trained"]], run, data, resolve_device(options.device), options.weights, teacher)
    return plan, fit(plan, make_folder(options.runs, run))


def print_table(rows: Sequence[Row], seeds: int) -> None:
    print(f"\nmean over {seeds} seeds (lowest to highest)\n")
    print("| trained | parameters | mAP | rank-1 | seconds |\n|---|---|---|---|---|")
    for name in METHOD:
        of_name = [row for row in rows if row["trained"] == name]
        shown = [span(of_name, measure) for measure in ("mAP", "rank1", "seconds")]
        print("| " + " | ".join([name, f"{of_name[0]['parameters']:,}", *shown]) + " |")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with train, query and gallery splits")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", help="safetensors file; left out: random weights")
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--settings", default="{}", metavar="JSON", help="more settings, of all")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", required=True, help="folder of the trainings' checkpoints")
    parser.add_argument("--log", required=True, help="file of one line a run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
