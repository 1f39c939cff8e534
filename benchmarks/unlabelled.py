"""People without labels: clusters by a trained model, and its adaptation to them.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.unlabelled --source <folder> --target <folder> --real <folder> \
        --weights <mobilenet_v2 file> --runs <folder> --log rows.jsonl

For every seed a model is trained on the people of `--source`, with labels. Clusters at the default threshold are then
compared with identities, pair by pair: of source's own test people, of target's, and of those of `--real` by the one
model that the first seed trains on real's training people, and by the one trained on source. At last the source's model
is trained further on target's training images with every label hidden (`adapt`), and tested on target's test people
before and after. `--choose` prints the same of training people for a grid of settings: the defaults are chosen by it.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.accuracy import Row, make_folder, make_plan, read_or_run, span, test
from reid_core.clustering import Clustering, cluster_embeddings, compare_pairs
from reid_core.data.contents import Contents
from reid_core.data.loading import number_labels
from reid_core.data.reader import read
from reid_core.data.records import DISTRACTOR, ImageRecord
from reid_core.methods import METHODS
from reid_core.retrieval.encoder import torch_encoder
from reid_core.settings import override
from reid_core.training.adaptation import Adaptation, adapt
from reid_core.training.initial import FROM_IMAGENET
from reid_core.training.loop import Plan, Result, fit

CPU = torch.device("cpu")
METHOD = METHODS["bnneck"]
GRID = {"k1": (6, 10, 15, 20, 30), "k2": (2, 4, 6), "threshold": (0.4, 0.5, 0.6)}


def main() -> None:
    options = parse_options()
    worlds = {name: read(Path(getattr(options, name))) for name in ("source", "target", "real")}
    if options.choose:
        choose(worlds, options)
        return
    runs = [describe(seed, options) for seed in options.seeds]
    rows = read_or_run(Path(options.log), runs, lambda run: measure(run, worlds, options))
    print("| | " + " | ".join(rows[0]["clusters"]) + " |")
    for name in ("precision", "recall", "left_alone"):
        cells = [span([row["clusters"][people] for row in rows], name) for people in rows[0]["clusters"]]
        print(f"| {name} | " + " | ".join(cells) + " |")
    for name in ("rank1", "mAP"):
        before, after = (span([row[when] for row in rows], name) for when in ("before", "after"))
        gains = [row["after"][name] - row["before"][name] for row in rows]
        print(f"{name}: {before} before, {after} after; {statistics.mean(gains):+.3f}, the least {min(gains):+.3f}")


def describe(seed: int, options: argparse.Namespace) -> Row:
    """The settings by which a stored run is recognised."""
    folders = {name: getattr(options, name) for name in ("source", "target", "real", "weights")}
    adapted = {"schedule": {"epochs": options.adapt_epochs, "base_lr": options.adapt_rate}}
    return {"seed": seed, "epochs": options.epochs, "adapted": adapted, **folders}


def measure(run: Row, worlds: dict[str, Contents], options: argparse.Namespace) -> Row:
    plan, by_source = train("source", run["seed"], worlds, options)
    _, by_real = train("real", options.seeds[0], worlds, options)
    clusters = {
        "drawn, own world": compare(by_source, worlds["source"]),
        "drawn, another world": compare(by_source, worlds["target"]),
        "PKU by PKU": compare(by_real, worlds["real"]),
        "PKU by drawn": compare(by_source, worlds["real"]),
    }
    before = test(plan, by_source, worlds["target"])
    began = time.monotonic()
    adapted = train_without_labels(run, plan, by_source, worlds["target"].images["train"], options)
    seconds, after = round(time.monotonic() - began), test(plan, adapted, worlds["target"])
    counts = {name: [value for _, value in adapted.history[name]] for name in ("clusters", "confident_images")}
    print(run["seed"], clusters, before, after, counts, f"{seconds} s", flush=True)
    return {"clusters": clusters, "before": before, "after": after, "counts": counts, "seconds": seconds}


def train(name: str, seed: int, worlds: dict[str, Contents], options: argparse.Namespace) -> tuple[Plan, Result]:
    """The model of that seed, trained on the labelled training people of a world."""
    asked = {
        "preset": "small",
        "backbone": "mobilenet_v2",
        "image": {"height": 128, "width": 64},
        "schedule": {"epochs": options.epochs},
    }
    settings = METHOD.choose_settings(asked, FROM_IMAGENET).model_dump(mode="json")
    training = {"data": getattr(options, name), "seed": seed, "weights": options.weights, "settings": settings}
    plan = make_plan("bnneck", training, worlds[name], CPU, options.weights)
    return plan, fit(plan, make_folder(options.runs, training))


def train_without_labels(
    run: Row, plan: Plan, start: Result, images: Sequence[ImageRecord], options: argparse.Namespace
) -> Result:
    hidden = [replace(image, identity="") for image in images]
    settings = override(plan.settings, run["adapted"])
    adaptation = Adaptation(METHOD, settings, hidden, start.network, run["seed"], CPU)
    return adapt(adaptation, make_folder(options.runs, run))


def compare(trained: Result, world: Contents) -> dict[str, float]:
    """Clusters of the world's test people at the default settings, distractors among them, compared with identities."""
    images = [*world.images["query"], *world.images["gallery"]]
    labels = cluster_embeddings(embed(trained, images), cameras=number_labels(images).cameras).labels
    known = np.array([image.identity != DISTRACTOR for image in images])
    identities = np.where(known, number_labels(images).identities, -1 - np.arange(len(images)))  # each its own
    pairs = compare_pairs(labels, identities)
    return {
        "precision": round(pairs.precision or 0.0, 4),
        "recall": round(pairs.recall or 0.0, 4),
        "left_alone": round(float((labels < 0).mean()), 4),
        "images": len(images),
    }


def embed(result: Result, images: Sequence[ImageRecord]) -> NDArray[np.float32]:
    encoder = torch_encoder(result.network, result.preprocessing, CPU, torch.float32)
    embeddings: NDArray[np.float32] = encoder.embed_files([image.path for image in images]).numpy()
    return embeddings


def choose(worlds: dict[str, Contents], options: argparse.Namespace) -> None:
    """Mean F1 of pairs over training people: target's, as many images of two cameras only, and real's."""
    trained = train("source", options.seeds[0], worlds, options)
    sets: dict[str, Any] = {}
    for name, images in (
        ("target", worlds["target"].images["train"]),
        ("few", take_few(worlds["target"].images["train"])),
        ("real", worlds["real"].images["train"]),
    ):
        labels = number_labels(images)
        sets[name] = embed(trained[1], images), labels.cameras, labels.identities
    for values in itertools.product(*GRID.values()):
        settings = Clustering(**dict(zip(GRID, values, strict=True)))
        pairs = [
            compare_pairs(cluster_embeddings(embeddings, settings, cameras=cameras).labels, identities)
            for embeddings, cameras, identities in sets.values()
        ]
        f1 = statistics.mean(each.f1 for each in pairs)
        print(
            f"{settings} {f1:.3f}", *(f"{each.precision or 0:.2f}/{each.recall or 0:.2f}" for each in pairs), flush=True
        )


def take_few(images: Sequence[ImageRecord]) -> list[ImageRecord]:
    """The first two images of each person by the first two cameras."""
    cameras, seen = sorted({image.camera for image in images})[:2], dict[tuple[str, str], int]()
    few = []
    for image in images:
        key = image.identity, image.camera
        seen[key] = seen.get(key, 0) + 1
        if image.camera in cameras and seen[key] <= 2:
            few.append(image)
    return few


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="folder with train, query and gallery splits")
    parser.add_argument("--target", required=True, help="another one, whose training labels are hidden")
    parser.add_argument("--real", required=True, help="a third one")
    parser.add_argument("--weights", required=True, help="safetensors file of a MobileNetV2")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10, help="of the trainings with labels")
    parser.add_argument("--adapt-epochs", type=int, default=4)
    parser.add_argument("--adapt-rate", type=float, default=3.5e-4)
    parser.add_argument("--runs", required=True, help="folder of the trainings' checkpoints")
    parser.add_argument("--log", required=True, help="file of one line a run")
    parser.add_argument("--choose", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
