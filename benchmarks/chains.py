"""Table 5 of paper 003: fine-tuning through several data sets, measured on the last one of each list.

    .venv/bin/python -m benchmarks.chains --data duke=<folder> --data market=<folder> --data msmt17=<folder> \
        --weights <file> --runs <folder> --log table5.jsonl
    .venv/bin/python -m benchmarks.chains --data a=<folder> --data b=<folder> --lists "a to b" b \
        --methods finetune-resnet50 ptl-resnet50+std --weights <file> --runs <folder> --log rows.jsonl

Without `--lists`, those of the table whose data sets are given, by the names above; without `--methods`, its rows of
each list. The stages of a list are trained one after the other, joined data sets (`a+b`) as one. The network of a
`ptl-` method after the whole list teaches that of its `+std`, a plain one that came by the same list: its stages before
the last are trained without a teacher, as the paper's section 5.8 has it.

A stage is trained once, in a folder of its own in `--runs`; lists that begin alike share what they share. Every row's
line is appended to `--log`; one that is there with the same settings is not repeated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.accuracy import Row, as_model, make_folder, read_or_run, span, test
from reid_core.data.contents import Contents
from reid_core.data.joining import join_datasets
from reid_core.data.reader import read
from reid_core.devices import resolve_device
from reid_core.methods import METHODS
from reid_core.methods.distillation import settle
from reid_core.settings import override
from reid_core.training.initial import from_file, from_network
from reid_core.training.loop import Plan, Result, fit

STD = "+std"
PLAIN, PTL, STUDENT = "finetune-densenet161", "ptl-densenet161", "ptl-densenet161" + STD

TABLE_5 = {
    "market+duke to msmt17": {PLAIN: (0.4112, 0.7249), STUDENT: (0.4253, 0.7411)},
    "market to duke to msmt17": {PLAIN: (0.4122, 0.7278), STUDENT: (0.4234, 0.7360)},
    "duke to market to msmt17": {PLAIN: (0.4180, 0.7300), STUDENT: (0.4273, 0.7431)},
    "duke to market": {PTL: (0.7600, 0.9130), STUDENT: (0.7550, 0.9110)},
    "duke to msmt17 to market": {PTL: (0.7790, 0.9160), STUDENT: (0.7740, 0.9160)},
}
"""List -> method -> the paper's mAP and rank-1."""


def main() -> None:
    options = parse_options()
    data = {name: read(Path(folder)) for name, folder in options.data.items()}
    chosen = [(order, method) for order in options.lists for method in options.methods or rows_of(order)]
    runs = [describe(method, order, seed, options) for seed in options.seeds for order, method in chosen]
    rows = read_or_run(Path(options.log), runs, lambda run: train_and_test(run, data, options))
    print_table(chosen, rows)


def rows_of(order: str) -> Sequence[str]:
    """The table's methods of a list; of one that it does not have, each."""
    return list(TABLE_5.get(order, (PLAIN, PTL, STUDENT)))


def describe(method: str, order: str, seed: int, options: argparse.Namespace) -> Row:
    """The settings by which a stored run is recognised."""
    folders = {name: options.data[name] for name in data_sets(order)}
    place = {"list": order, "method": method, "data": folders, "weights": options.weights, "seed": seed}
    return place | {"settings": settings_of(method, options.settings)}


def settings_of(method: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in full of every method that takes part, by its name."""
    last, before, teacher = taking_part(method)
    settings = {name: override(METHODS[name].recipe, changes) for name in (before, teacher) if name}
    if teacher:
        settings[last] = settle(changes, teacher, settings[teacher])
    return {name: each.model_dump(mode="json") for name, each in settings.items()}


def taking_part(method: str) -> tuple[str, str, str | None]:
    """The methods of the last stage, of those before it, and of the teacher."""
    teacher = method.removesuffix(STD)
    if teacher == method:
        return method, method, None
    return "std", str(settle({}, teacher, METHODS[teacher].recipe).student), teacher


def train_and_test(run: Row, data: Mapping[str, Contents], options: argparse.Namespace) -> Row:
    target = run["list"].split(" to ")[-1]
    measured = test(*train(run, data, options), data[target])
    print(run["list"], run["method"], f"seed {run['seed']}", measured, flush=True)
    return measured


def train(run: Row, data: Mapping[str, Contents], options: argparse.Namespace) -> tuple[Plan, Result]:
    """The last stage's plan and what came of it; what was trained before comes back from its checkpoint."""

    def train_other(method: str, order: str) -> tuple[Plan, Result]:
        return train(describe(method, order, run["seed"], options), data, options)

    earlier, _, stage = run["list"].rpartition(" to ")
    last, before, teacher = taking_part(run["method"])
    start = from_file(Path(options.weights)) if options.weights else None
    plan = Plan(
        METHODS[last],
        type(METHODS[last].recipe).model_validate(run["settings"][last]),
        join_datasets({name: data[name].images["train"] for name in stage.split("+")}),
        run["seed"],
        resolve_device(options.device),
        from_network(train_other(before, earlier)[1].network) if earlier else start,
        as_model(*train_other(teacher, run["list"])) if teacher else None,
    )
    return plan, fit(plan, make_folder(options.runs, run))


def data_sets(order: str) -> list[str]:
    return order.replace(" to ", "+").split("+")


def print_table(chosen: Sequence[tuple[str, str]], rows: Sequence[Row]) -> None:
    print("\nmean over seeds (lowest to highest); on the right what the paper reports\n")
    print("| method | fine-tuning list | seeds | mAP | rank-1 | paper: mAP, rank-1 |\n|---|---|---|---|---|---|")
    for order, method in chosen:
        of_row = [row for row in rows if (row["list"], row["method"]) == (order, method)]
        shown = [str(len(of_row)), span(of_row, "mAP"), span(of_row, "rank1")]
        paper = ", ".join(f"{value:.3f}" for value in TABLE_5.get(order, {}).get(method, ()))
        print("| " + " | ".join([method, order, *shown, paper]) + " |")


def parse_options() -> argparse.Namespace:
    methods = [name for name in METHODS if METHODS[name].settle is None]
    methods += [name + STD for name in METHODS if name.startswith("ptl-")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--lists", nargs="+", metavar="LIST", help='as "duke to market" or "market+duke to msmt17"')
    parser.add_argument("--methods", nargs="+", choices=methods)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--weights", help="safetensors file to start from; left out: random weights")
    parser.add_argument("--settings", type=json.loads, default={}, metavar="JSON", help="what differs from the recipes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", required=True, help="folder of the stages' checkpoints")
    parser.add_argument("--log", required=True, help="file of one line a row")
    options = parser.parse_args()
    options.data = dict(pair.split("=", 1) for pair in options.data)
    options.lists = options.lists or [order for order in TABLE_5 if set(data_sets(order)) <= set(options.data)]
    if not options.lists:
        parser.error(f"no list of the table is of {', '.join(options.data)}; give --lists")
    if unknown := {name for order in options.lists for name in data_sets(order)} - set(options.data):
        parser.error(f"unknown data sets {', '.join(sorted(unknown))}; known: {', '.join(options.data)}")
    if joined := [order for order in options.lists if "+" in order.split(" to ")[-1]]:
        parser.error(f"list {joined[0]!r} ends with joined data sets; end it with the one to measure on")
    return options


if __name__ == "__main__":
    main()
