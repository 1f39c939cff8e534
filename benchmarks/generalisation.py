"""Direct cross-data-set accuracy of methods: each trained on one world, tested on every world, before and after QAConv.

    .venv/bin/python -m benchmarks.generalisation --world drawn=<folder> --world real=<folder> --weights <file> \
        --log runs.jsonl

A world is a data set with train, query and gallery splits. Every (method, world, seed) is trained once; its line is
appended to `--log`, so an interrupted run goes on where it was. "first stage" compares vectors; "matched" orders the
whole gallery by the same model's QAConv scores. The settings are the same for all methods but for what `RECIPES` says.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from reid_core.data.contents import Contents
from reid_core.data.reader import read
from reid_core.data.records import Picture
from reid_core.evaluation.metrics import Metrics
from reid_core.evaluation.ranking import encode_labels, evaluate, evaluate_scores
from reid_core.matching import folded_scores
from reid_core.methods import METHODS
from reid_core.retrieval.encoder import Encoder, Encoding
from reid_core.settings import override
from reid_core.training.initial import from_file
from reid_core.training.loop import Plan, Result, fit

CPU = torch.device("cpu")

RECIPES: dict[str, dict[str, Any]] = {
    "bnneck": {"schedule": {"epochs": 20, "base_lr": 2e-3, "decay_at": [0.55, 0.85]}, "augmentation": {"padding": 6}},
    "qaconv-pk": {"schedule": {"epochs": 20, "base_lr": 0.02}, "augmentation": {"padding": 6}},
    "qaconv-gs": {"schedule": {"epochs": 11, "base_lr": 0.02}, "augmentation": {"padding": 6}},
}
"""What differs from the methods' own recipes beside picture, backbone and batch. An epoch of graph sampling has a batch
for every identity, so epochs are chosen to give all three about the same number of steps on the worlds at hand."""


def main() -> None:
    options = parse_options()
    worlds = {name: read(Path(folder)) for name, folder in (world.split("=", 1) for world in options.world)}
    log = Path(options.log)
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    for seed, trained_on, method in itertools.product(options.seeds, worlds, options.methods):
        if any((row["method"], row["trained_on"], row["seed"]) == (method, trained_on, seed) for row in done):
            continue
        rows = run(method, trained_on, worlds, seed, options)
        done += rows
        with log.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        for row in rows:
            print(json.dumps(row), flush=True)
    print_table(done)


def run(
    method: str, trained_on: str, worlds: dict[str, Contents], seed: int, options: argparse.Namespace
) -> list[dict[str, Any]]:
    began = time.monotonic()
    result = train(method, worlds[trained_on].pictures["train"], seed, options)
    seconds = time.monotonic() - began
    encoder = Encoder(result.network, result.preprocessing, CPU, torch.float32)
    fold = METHODS[method].matching_head
    rows = []
    for tested_on, world in worlds.items():
        stages = test(encoder, world, fold(result.network) if fold else None)
        place = {"method": method, "trained_on": trained_on, "tested_on": tested_on, "seed": seed}
        rows.append(place | {"seconds": round(seconds)} | stages)
    return rows


def train(method: str, pictures: Sequence[Picture], seed: int, options: argparse.Namespace) -> Result:
    common = {
        "backbone": options.backbone,
        "image": {"height": options.height, "width": options.width},
        "batch": {"identities": 8, "images_per_identity": 4},
        "normalisation": "imagenet",
    }
    settings = override(override(METHODS[method].recipe, common), RECIPES[method])
    initialise = from_file(Path(options.weights)) if options.weights else None
    with tempfile.TemporaryDirectory() as folder:
        return fit(Plan(METHODS[method], settings, pictures, seed, CPU, initialise), Path(folder))


def test(encoder: Encoder, world: Contents, head: Any) -> dict[str, Any]:
    query, gallery = world.pictures["query"], world.pictures["gallery"]
    labels = encode_labels(query, gallery)
    of_query, of_gallery = (encode(encoder, split, head is not None) for split in (query, gallery))
    stages = {"first_stage": numbers(evaluate(of_query.embeddings, of_gallery.embeddings, *labels))}
    if head is not None and of_query.maps is not None and of_gallery.maps is not None:
        scores = folded_scores(of_query.maps.flatten(1, 2), of_gallery.maps.flatten(1, 2), head)
        stages["matched"] = numbers(evaluate_scores(lambda start, stop: scores[start:stop], *labels))
    return stages


def encode(encoder: Encoder, pictures: Sequence[Picture], with_maps: bool) -> Encoding:
    return encoder.encode_files([picture.path for picture in pictures], with_maps=with_maps)


def numbers(metrics: Metrics) -> dict[str, float]:
    return {"rank1": round(metrics.cmc[1], 4), "mAP": round(metrics.mAP, 4)}


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    print("\nmean over seeds (lowest to highest); rank-1 and mAP\n")
    print("| method | trained on | tested on | seeds | first stage | matched |\n|---|---|---|---|---|---|")
    key = ("method", "trained_on", "tested_on")
    for cell, of_cell in itertools.groupby(
        sorted(rows, key=lambda row: [row[k] for k in key]), lambda row: [row[k] for k in key]
    ):
        runs = list(of_cell)
        shown = [summary(runs, stage) for stage in ("first_stage", "matched")]
        print("| " + " | ".join([*cell, str(len(runs)), *shown]) + " |")


def summary(runs: Sequence[dict[str, Any]], stage: str) -> str:
    if stage not in runs[0]:
        return ""
    shown = []
    for name in ("rank1", "mAP"):
        values = [row[stage][name] for row in runs]
        shown.append(f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
    return ", ".join(shown)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--methods", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", help="safetensors file; left out: random weights")
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--log", default="generalisation.jsonl")
    return parser.parse_args()


if __name__ == "__main__":
    main()
