"""Direct cross-data-set accuracy: each method trained on one world, tested on every world, before and after matching.

    .venv/bin/python -m benchmarks.generalisation --world drawn=<folder> --world real=<folder> --weights <file> \
        --runs <folder> --log rows.jsonl

A world is a data set with train, query and gallery splits. Every (method, world, seed) is trained once, for about as
many steps as the others, in a folder of its own in `--runs`, and tested on every world; its line is appended to
`--log`. An interrupted table goes on where it was. As worlds are small, every image of query and gallery splits is a
query among all of them, other images of the same person by the same camera left out.

First stages compare vectors derived from the map: `stripes` (the methods' own), `pooled`, and `learned`, whose training
leaves the map as it is, so one run shows all three. "matched" orders everything by the same model's QAConv scores,
"re-ranked" only the `--candidates` best by stripes, as a search does. Recall is the share of the matcher's 10 best that
lie among a vector's `--candidates` best.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.accuracy import Row, make_folder, make_plan, read_or_run, span
from reid_core.data.contents import Contents
from reid_core.data.reader import read
from reid_core.data.records import ImageRecord
from reid_core.evaluation.labels import Labels, encode_labels
from reid_core.evaluation.ranking import evaluate_scores
from reid_core.heads.retrieval import RetrievalHead
from reid_core.matching import FoldedHead, symmetric_scores
from reid_core.merging import merge
from reid_core.methods import METHODS
from reid_core.retrieval.encoder import Encoder, Encoding, torch_encoder
from reid_core.settings import override
from reid_core.training.initial import FROM_IMAGENET
from reid_core.training.loop import fit

CPU = torch.device("cpu")
BEST = 10
FIRST_STAGES = ("stripes", "pooled", "learned")

_MATCHER: dict[str, Any] = {
    "schedule": {"base_lr": 0.01},
    "gradient_clip": 8,
    "freeze_backbone_bn": True,
    "retrieval": "learned",
}
RECIPES: dict[str, dict[str, Any]] = {
    "bnneck": {"schedule": {"base_lr": 2e-3, "decay_at": [0.55, 0.85]}},
    "qaconv-pk": _MATCHER,
    "qaconv-gs": _MATCHER,
}
"""Settings that differ from the methods' recipes, beside image, backbone, batch and length.

Batch statistics of a small world do not fit another: matchers keep those of the weights, as the authors' later release.
"""

_DECAY_AT = METHODS["qaconv-gs"].recipe.schedule.decay_at


def main() -> None:
    options = parse_options()
    worlds = {name: read(Path(folder)) for name, folder in (world.split("=", 1) for world in options.world)}
    runs = [
        describe(method, trained_on, worlds[trained_on].images["train"], seed, options)
        for seed, trained_on, method in itertools.product(options.seeds, worlds, options.methods)
    ]
    rows = read_or_run(Path(options.log), runs, lambda run: train_and_test(run, worlds, options))
    print_accuracies(rows, list(worlds))
    print_recalls(rows, list(worlds), options.candidates)


def describe(
    method: str, trained_on: str, images: Sequence[ImageRecord], seed: int, options: argparse.Namespace
) -> Row:
    """The settings by which a stored run is recognised."""
    common: dict[str, Any] = {
        "backbone": options.backbone,
        "image": {"height": options.height, "width": options.width},
        "batch": {"identities": options.identities, "images_per_identity": options.images_per_identity},
        "normalisation": "imagenet",
        "augmentation": {"padding": 6},
    }
    if method != "bnneck":
        common["last_stride"] = options.last_stride
    start = FROM_IMAGENET if options.weights else None
    settings = METHODS[method].choose_settings(merge(common, RECIPES[method]), start)
    settings = override(settings, lengthen(method, images, options))
    tested = {"worlds": sorted(options.world), "candidates": options.candidates}
    folder = dict(world.split("=", 1) for world in options.world)[trained_on]
    training = {"method": method, "data": folder, "seed": seed, "weights": options.weights}
    training["settings"] = settings.model_dump(mode="json")
    return {"training": training, "trained_on": trained_on} | tested


def lengthen(method: str, images: Sequence[ImageRecord], options: argparse.Namespace) -> dict[str, Any]:
    """Epochs for about as many steps. One of PK sampling has every image about once, one of graph sampling a batch
    for every identity; the rate falls after as large a share of the steps, not of epochs so unlike each other."""
    batches = len(images) / (options.identities * options.images_per_identity)
    if method != "qaconv-gs":
        return {"schedule": {"epochs": max(1, round(options.steps / batches))}}
    identities = len({image.identity for image in images})
    graphs = max(1, round((options.steps - batches) / identities))
    steps, epochs = batches + graphs * identities, 1 + graphs
    decays = np.interp([share * steps for share in _DECAY_AT], [0, batches, steps], [0, 1, epochs])
    return {"schedule": {"epochs": epochs, "decay_at": [float(decay) / epochs for decay in decays]}}


def train_and_test(run: Row, worlds: Mapping[str, Contents], options: argparse.Namespace) -> Row:
    training, began = run["training"], time.monotonic()
    method = METHODS[training["method"]]
    plan = make_plan(training["method"], training, worlds[run["trained_on"]], CPU, options.weights)
    result = fit(plan, make_folder(options.runs, training))
    seconds, steps = round(time.monotonic() - began), len(result.history["loss"])
    encoder = torch_encoder(result.network, result.preprocessing, CPU, torch.float32)
    head = method.matching_head(result.network) if method.matching_head else None
    tests = {name: test(encoder, world, head, options.candidates) for name, world in worlds.items()}
    print(training["method"], run["trained_on"], f"seed {training['seed']}", f"{seconds} s", tests, flush=True)
    return {"seconds": seconds, "steps": steps, "tests": tests}


def test(encoder: Encoder, world: Contents, head: FoldedHead | None, candidates: int) -> dict[str, dict[str, float]]:
    """Stage -> rank1, mAP and, of first stages before a matcher, recall."""
    images = [*world.images["query"], *world.images["gallery"]]
    labels = encode_labels(images, images)
    encoding = encoder.encode_files([image.path for image in images], with_maps=head is not None)
    if head is None:
        embeddings = torch.as_tensor(encoding.embeddings)
        return {"embedding": accuracy_of(embeddings @ embeddings.T, labels)}
    own = find_junk(labels[0])
    matched = symmetric_scores(torch.as_tensor(encoding.maps).flatten(1, 2), head)
    matched.masked_fill_(own, matched.min())
    stages = {"matched": accuracy_of(matched, labels)}
    for stage in FIRST_STAGES:
        vectors = derive(stage, encoding)
        first = (vectors @ vectors.T).masked_fill_(own, -1)
        recall = measure_recall(first, matched, candidates)
        stages[stage] = accuracy_of(first, labels) | {"recall": round(recall, 4)}
        if stage == "stripes":
            stages["re-ranked"] = accuracy_of(rerank(first, matched, candidates), labels)
    return stages


def find_junk(labels: Labels) -> Tensor:
    """(N, N) bool: pairs of the same person by the same camera."""
    identities, cameras = torch.from_numpy(labels.identities), torch.from_numpy(labels.cameras)
    return (identities[:, None] == identities) & (cameras[:, None] == cameras)


def rerank(first: Tensor, matched: Tensor, candidates: int) -> Tensor:
    """(Q, G) with the order of `matched` among the `candidates` best of `first`, which come before the rest."""
    chosen = first.topk(min(candidates, first.shape[1])).indices
    return first.scatter(1, chosen, 2 + matched.gather(1, chosen) - matched.min())


def derive(stage: str, encoding: Encoding) -> Tensor:
    """(N, size) unit vectors of a first stage."""
    if stage == "learned":
        return torch.as_tensor(encoding.embeddings)
    maps = torch.as_tensor(encoding.maps).permute(0, 3, 1, 2)  # (N, c, h, w)
    channels, height, width = maps.shape[1:]
    head = RetrievalHead("pooled" if stage == "pooled" else "stripes", (height, width, channels))
    return functional.normalize(head(maps), dim=1)


def measure_recall(first: Tensor, matched: Tensor, candidates: int) -> float:
    """Both (Q, G), larger is closer."""
    among = torch.zeros_like(first, dtype=torch.bool)
    among.scatter_(1, first.topk(min(candidates, first.shape[1])).indices, True)
    return float(among.gather(1, matched.topk(min(BEST, first.shape[1])).indices).float().mean())


def accuracy_of(scores: Tensor, labels: tuple[Labels, Labels]) -> dict[str, float]:
    """Retrieval accuracy by (Q, G) scores."""
    metrics = evaluate_scores(lambda start, stop: scores[start:stop], *labels)
    return {"rank1": round(metrics.cmc[1], 4), "mAP": round(metrics.mAP, 4)}


def print_accuracies(rows: Sequence[Row], worlds: Sequence[str]) -> None:
    print("\nmean over seeds (lowest to highest); first stage of matchers: stripes\n")
    print("| trained on | tested on | method | rank-1 | re-ranked | matched | mAP | re-ranked | matched |")
    print("|---|---|---|---|---|---|---|---|---|")
    for trained_on, tested_on, method in itertools.product(worlds, worlds, RECIPES):
        tests = select(rows, method, trained_on, tested_on)
        if not tests:
            continue
        first = "stripes" if "stripes" in tests[0] else "embedding"
        cells = [
            span([test[stage] for test in tests], measure) if stage in tests[0] else ""
            for measure in ("rank1", "mAP")
            for stage in (first, "re-ranked", "matched")
        ]
        print("| " + " | ".join([trained_on, tested_on, method, *cells]) + " |")


def print_recalls(rows: Sequence[Row], worlds: Sequence[str], candidates: int) -> None:
    print(f"\nfirst stages: rank-1, and recall of the matcher's {BEST} best among {candidates} candidates\n")
    print("| trained on | tested on | method | " + " | ".join(FIRST_STAGES) + " |\n|---|---|---|---|---|---|")
    for trained_on, tested_on, method in itertools.product(worlds, worlds, RECIPES):
        tests = [test for test in select(rows, method, trained_on, tested_on) if "matched" in test]
        if tests:
            of_stages = [[test[stage] for test in tests] for stage in FIRST_STAGES]
            cells = [f"{span(stage, 'rank1')}; {span(stage, 'recall')}" for stage in of_stages]
            print("| " + " | ".join([trained_on, tested_on, method, *cells]) + " |")


def select(rows: Sequence[Row], method: str, trained_on: str, tested_on: str) -> list[dict[str, Any]]:
    chosen = [row for row in rows if (row["training"]["method"], row["trained_on"]) == (method, trained_on)]
    return [row["tests"][tested_on] for row in chosen]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--methods", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--weights", help="safetensors file; left out: random weights")
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--last-stride", type=int, choices=[1, 2], default=1, help="of the matchers' third stage")
    parser.add_argument("--identities", type=int, default=8)
    parser.add_argument("--images-per-identity", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--runs", required=True, help="folder of the trainings' checkpoints")
    parser.add_argument("--log", required=True, help="file of one line a run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
