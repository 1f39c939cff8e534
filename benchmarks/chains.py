"""Rows of paper 003's table 5: fine-tuning through several data sets, measured on the last one of each list.

    .venv/bin/python -m benchmarks.chains --data duke=<folder> --data market=<folder> --data msmt17=<folder> \
        --method finetune-densenet161 --weights <file> --runs <folder> --log rows.jsonl

Every target is reached alone, from every other data set, from all others in every order, and from the others joined
("Market-Duke to MSMT17" of the paper is `market+duke to msmt17`). Lists that begin alike share what they share: each
stage is trained once, in a folder of its own below `--runs`, from whose checkpoint it goes on or comes back. A row that
is in `--log` is not measured again; a log and its folder belong to one set of options but for method and seeds. The
paper's PTL+STD rows are not among them: they take a teacher.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from reid_core.backbones.weights import Transfer
from reid_core.data.contents import Contents
from reid_core.data.reader import read
from reid_core.data.records import Picture
from reid_core.evaluation.ranking import encode_labels, evaluate
from reid_core.methods import METHODS
from reid_core.retrieval.encoder import Encoder
from reid_core.settings import override
from reid_core.training.initial import from_file, from_network
from reid_core.training.loop import Plan, Result, fit
from reid_core.training.precision import resolve_device, resolve_dtype

Stage = tuple[str, ...]
"""The data sets of a stage by name; several are joined."""


def main() -> None:
    options = parse_options()
    data = {name: read(Path(folder)) for name, folder in (pair.split("=", 1) for pair in options.data)}
    log = Path(options.log)
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    lists = [each for target in options.targets or data for each in fine_tuning_lists(target, [*data])]
    for seed, chain in itertools.product(options.seeds, lists):
        place = {"method": options.method, "list": title(chain), "seed": seed}
        if any(place.items() <= row.items() for row in rows):
            continue
        row = place | measure(train(chain, data, seed, options), data[chain[-1][0]], options)
        rows.append(row)
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
    print_table(rows)


def fine_tuning_lists(target: str, names: Sequence[str]) -> Iterator[list[Stage]]:
    """Every list that ends with `target`: each order of any of the others before it, and all others joined."""
    others = [name for name in names if name != target]
    for length in range(len(others) + 1):
        for before in itertools.permutations(others, length):
            yield [*((name,) for name in before), (target,)]
    if len(others) > 1:
        yield [tuple(others), (target,)]


def train(chain: Sequence[Stage], data: dict[str, Contents], seed: int, options: argparse.Namespace) -> Result:
    """The chain's last network. What was trained before, for this list or another, comes back from its checkpoint."""
    *before, stage = chain
    folder = Path(options.runs, options.method, str(seed), *("+".join(each) for each in chain))
    folder.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        method=METHODS[options.method],
        settings=settings_of(options),
        pictures=joined(stage, data),
        seed=seed,
        device=resolve_device(options.device),
        initialise=from_file(Path(options.weights)) if options.weights else None,
    )
    if not before:
        return fit(plan, folder)

    def go_on(network: nn.Module) -> Transfer:
        return from_network(train(before, data, seed, options).network)(network)

    return fit(replace(plan, initialise=go_on), folder)


def settings_of(options: argparse.Namespace) -> Any:
    changes = {
        "image": {"height": options.height, "width": options.width},
        "schedule": {"epochs": options.epochs} | ({"base_lr": options.rate} if options.rate else {}),
    }
    backbone = {"backbone": options.backbone} if options.backbone else {}
    batch = {"batch": {"size": options.batch}} if options.batch else {}
    return override(METHODS[options.method].recipe, changes | backbone | batch)


def joined(stage: Stage, data: dict[str, Contents]) -> list[Picture]:
    """The training pictures of a stage, people and cameras of different data sets kept apart."""
    return [mark(picture, name) for name in stage for picture in data[name].pictures["train"]]


def mark(picture: Picture, origin: str) -> Picture:
    camera = f"{origin}/{picture.camera}" if picture.camera else ""
    return replace(picture, identity=f"{origin}/{picture.identity}", camera=camera)


def measure(result: Result, target: Contents, options: argparse.Namespace) -> dict[str, float]:
    settings, device = settings_of(options), resolve_device(options.device)
    dtype = resolve_dtype(settings.precision, device, settings.backbone)
    encoder = Encoder(result.network, result.preprocessing, device, dtype)
    splits = [target.pictures["query"], target.pictures["gallery"]]
    query, gallery = (encoder.embed_files([picture.path for picture in split]) for split in splits)
    metrics = evaluate(query, gallery, *encode_labels(*splits))
    return {"mAP": round(metrics.mAP, 4), "rank1": round(metrics.cmc[1], 4)}


def title(chain: Sequence[Stage]) -> str:
    return " to ".join("+".join(stage) for stage in chain)


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    print("\nmean over seeds (lowest to highest)\n\n| method | fine-tuning list | seeds | mAP | rank-1 |")
    print("|---|---|---|---|---|")
    for method, order in dict.fromkeys((row["method"], row["list"]) for row in rows):
        runs = [row for row in rows if (row["method"], row["list"]) == (method, order)]
        print(f"| {method} | {order} | {len(runs)} | {summary(runs, 'mAP')} | {summary(runs, 'rank1')} |")


def summary(runs: Sequence[dict[str, Any]], name: str) -> str:
    values = [row[name] for row in runs]
    return f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--targets", nargs="+", help="data sets that lists end with; left out: each of them")
    parser.add_argument(
        "--method", default="finetune-densenet161", choices=[name for name in METHODS if METHODS[name].settle is None]
    )
    parser.add_argument("--epochs", type=int, default=30, help="of every stage")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--weights", help="safetensors file to start from; left out: random weights")
    parser.add_argument("--backbone", help="left out: the method's")
    parser.add_argument("--batch", type=int, help="pictures in a batch; left out: the method's")
    parser.add_argument("--rate", type=float, help="base learning rate; left out: the method's")
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runs", default="chains", help="folder of the stages' checkpoints")
    parser.add_argument("--log", default="chains.jsonl")
    return parser.parse_args()


if __name__ == "__main__":
    main()
