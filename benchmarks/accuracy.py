"""Parts that benchmarks of accuracy share: train a plan and test it, a log to go on from, a mean with its spread."""

from __future__ import annotations

import hashlib
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from reid_core.data.contents import Contents
from reid_core.devices import resolve_dtype
from reid_core.evaluation.labels import encode_labels
from reid_core.evaluation.ranking import evaluate
from reid_core.methods import METHODS
from reid_core.model import TrainedModel, load_model, save_model
from reid_core.retrieval.encoder import torch_encoder
from reid_core.training.initial import from_file
from reid_core.training.loop import Plan, Result, fit

Row = dict[str, Any]
"""One run: the values that say which, and what was measured."""


def make_plan(
    method: str,
    run: Row,
    data: Contents,
    device: torch.device,
    weights: str | None,
    teacher: TrainedModel | None = None,
) -> Plan:
    """The plan of a run's `settings` and `seed`, on the training split; `weights` names a file."""
    settings = type(METHODS[method].recipe).model_validate(run["settings"])
    initialise = from_file(Path(weights)) if weights else None
    return Plan(METHODS[method], settings, data.images["train"], run["seed"], device, initialise, teacher)


def train(plan: Plan) -> Result:
    """The trained network; its checkpoints are gone."""
    with tempfile.TemporaryDirectory() as folder:
        return fit(plan, Path(folder))


def train_and_test(plan: Plan, contents: Contents) -> Row:
    """Trains the plan's network and returns the result of `test` on it."""
    return test(plan, train(plan), contents)


def test(plan: Plan, result: Result, contents: Contents) -> Row:
    """Rank-1, 5, 10 and mAP of embeddings on the data set's query and gallery splits, by the standard protocol."""
    settings = plan.settings
    dtype = resolve_dtype(settings.precision, plan.device, settings.backbone, settings.image.width)
    encoder = torch_encoder(result.network, result.preprocessing, plan.device, dtype)
    splits = [contents.images[split] for split in ("query", "gallery")]
    query, gallery = (encoder.embed_files([image.path for image in split]) for split in splits)
    metrics = evaluate(query, gallery, *encode_labels(*splits))
    return {"mAP": round(metrics.mAP, 4)} | {f"rank{rank}": round(metrics.cmc[rank], 4) for rank in (1, 5, 10)}


def as_model(plan: Plan, result: Result) -> TrainedModel:
    """The trained network as a model, to be a teacher."""
    with tempfile.TemporaryDirectory() as folder:
        save_model(
            Path(folder),
            result.network,
            method=plan.method.name,
            settings=plan.settings,
            num_classes=result.num_classes,
            preprocessing=result.preprocessing,
        )
        return load_model(Path(folder), plan.device)


def make_folder(runs: Path, training: Row) -> Path:
    """The folder of a training's checkpoint: the same for the same values."""
    folder = Path(runs, hashlib.sha256(json.dumps(training, sort_keys=True).encode()).hexdigest()[:16])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_or_run(log: Path, runs: Sequence[Row], run: Callable[[Row], Row]) -> list[Row]:
    """A row for each of `runs`: from `log` where one has all of its values, else what `run` adds to them, logged."""
    logged = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    rows = []
    for each in runs:
        row = next((row for row in logged if _has(row, each)), None)
        if row is None:
            row = each | run(each)
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
        rows.append(row)
    return rows


def span(rows: Sequence[Row], name: str) -> str:
    """The mean of a measure; over several rows with the lowest and the highest."""
    values = [row[name] for row in rows]
    shown = f"{statistics.mean(values):.3f}"
    return shown if len(values) == 1 else f"{shown} ({min(values):.3f} to {max(values):.3f})"


def _has(row: Row, values: Mapping[str, Any]) -> bool:
    return all(row.get(name) == value for name, value in values.items())
