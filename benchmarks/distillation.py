"""Plain fine-tuning, progressive transfer learning and its student beside each other, over several seeds.

    .venv/bin/python -m benchmarks.distillation --data <folder> --weights <file> --log runs.jsonl

A seed trains the plain network, the same network with cells, the plain one again as its student (`std`), and the one
with cells and without their latent state, all with the same pictures, batches and number of epochs. Its line is
appended to `--log`, so an interrupted table goes on where it was. Tables 1 and 2 of the paper have the order plain <
student, PTL.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.accuracy import Row, as_model, read_or_run, span, test, train
from reid_core.data.contents import Contents
from reid_core.data.reader import read
from reid_core.methods import METHODS
from reid_core.model import Model
from reid_core.settings import TrainingSettings, override
from reid_core.training.initial import from_file
from reid_core.training.loop import Plan
from reid_core.training.precision import resolve_device

METHOD = {"plain": "finetune-resnet50", "ptl": "ptl-resnet50", "student": "std", "ptl-stateless": "ptl-resnet50"}
"""With any backbone."""


def main() -> None:
    options = parse_options()
    data = read(Path(options.data))
    same = {"data": options.data, "weights": options.weights, "settings": describe(options)}
    runs = [same | {"seed": seed} for seed in options.seeds]
    rows = read_or_run(Path(options.log), runs, lambda run: train_and_test(run, data, options))
    print_table(rows)


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """Settings of each in full: the plain method's recipe with what the options and `--settings` say."""
    common = {
        "backbone": options.backbone,
        "image": {"height": options.height, "width": options.width},
        "schedule": {"epochs": options.epochs},
    }
    plain = override(override(METHODS[METHOD["plain"]].recipe, common), json.loads(options.settings))
    same = plain.model_dump(mode="json")
    changes: dict[str, Any] = {"student": {"student": METHOD["plain"]}, "ptl-stateless": {"carry_state": False}}
    recipes = {name: METHODS[method].recipe for name, method in METHOD.items()}
    return {
        name: override(recipe, same | changes.get(name, {})).model_dump(mode="json") for name, recipe in recipes.items()
    }


def train_and_test(run: Row, data: Contents, options: argparse.Namespace) -> Row:
    measured: Row = {}
    teacher: Model | None = None
    for name in METHOD:
        method = METHODS[METHOD[name]]
        settings = type(method.recipe).model_validate(run["settings"][name])
        plan = make_plan(name, settings, run["seed"], data, teacher if name == "student" else None, options)
        began = time.monotonic()
        result = train(plan)
        parameters = sum(parameter.numel() for parameter in result.network.parameters())
        measured[name] = test(plan, result, data) | {
            "parameters": parameters,
            "seconds": round(time.monotonic() - began),
        }
        print(f"seed {run['seed']}", name, measured[name], flush=True)
        if name == "ptl":
            teacher = as_model(plan, result)
    return measured


def make_plan(
    name: str,
    settings: TrainingSettings,
    seed: int,
    data: Contents,
    teacher: Model | None,
    options: argparse.Namespace,
) -> Plan:
    initialise = from_file(Path(options.weights)) if options.weights else None
    device = resolve_device(options.device)
    return Plan(METHODS[METHOD[name]], settings, data.pictures["train"], seed, device, initialise, teacher)


def print_table(rows: list[Row]) -> None:
    print(f"\nmean over {len(rows)} seeds (lowest to highest)\n")
    print("| trained | parameters | mAP | rank-1 | seconds |\n|---|---|---|---|---|")
    for name in METHOD:
        of_name = [row[name] for row in rows]
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
    parser.add_argument("--settings", default="{}", metavar="JSON", help="more settings, of all three")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--log", required=True, help="file of one line a seed")
    return parser.parse_args()


if __name__ == "__main__":
    main()
