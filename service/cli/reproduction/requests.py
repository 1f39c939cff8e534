"""The jobs of an experiment: bodies of trainings with a name that says all that they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reid_core.merging import merge
from service.cli.reproduction.data import DataSet
from service.cli.reproduction.small import small_settings
from service.papers.experiment import Column, Experiment, Row, Training


@dataclass(frozen=True, slots=True)
class Run:
    """The choices of a run, whatever its experiment.

    Attributes:
        backbone: of the small run.
        recipes: the service's own settings of every method; a model trained by others is not taken for the same.
    """

    small: bool
    seeds: tuple[int, ...]
    init_from: Any
    backbone: str = ""
    recipes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """The body of a training; `needs` are the names of the models that it is made from."""

    name: str
    title: str
    body: Mapping[str, Any]
    needs: tuple[str, ...]
    depth: int


def request(training: Training, seed: int, run: Run, data: Mapping[str, DataSet], title: str = "") -> Request:
    """The job that makes the model. The same training of the same data has the same name in every experiment."""
    start, teacher = (each and request(each, seed, run, data) for each in (training.start, training.teacher))
    needed = [each for each in (start, teacher) if each]
    own = small_settings(training.method, run.backbone) if run.small else {}
    parts = [_part(data[name].name, training.split) for name in training.datasets]
    body = {
        "kind": "train",
        "method": training.method,
        "dataset": parts[0] if len(parts) == 1 else parts,
        "settings": merge(own, training.settings),
        "init_from": start.name if start else run.init_from,
        "teacher": teacher.name if teacher else None,
        "seed": seed,
    }
    unsaid = [run.recipes.get(training.method), [data[name].fingerprint for name in training.datasets]]
    name = f"reproduced-{training.method}-{_digest([body, unsaid])}"
    depth = 1 + max((each.depth for each in needed), default=-1)
    title = title or f"{training.method} on {' + '.join(training.datasets)}"
    return Request(name, title, {**body, "model_name": name}, tuple(each.name for each in needed), depth)


def requests(experiment: Experiment, run: Run, data: Mapping[str, DataSet]) -> list[Request]:
    """The trainings of all rows that are run, each once, those that others need before them."""
    found: dict[str, Request] = {}
    for seed in run.seeds:
        for row in experiment.rows:
            if is_run(row, run, data):
                own = request(row.training, seed, run, data, _title(row, seed, run))
                found[own.name] = own
                for each in _needed(row.training):
                    other = request(each, seed, run, data)
                    found.setdefault(other.name, other)
    return sorted(found.values(), key=lambda each: each.depth)


def is_run(row: Row, run: Run, data: Mapping[str, DataSet]) -> bool:
    """False for rows outside the small run, and for those whose data are not at hand."""
    return (row.small or not run.small) and row.training.all_datasets <= data.keys()


def tested_on(row: Row, column: Column, experiment: Experiment, data: Mapping[str, DataSet]) -> DataSet | None:
    """The data set that the cell is measured on; None where it is not measured on one."""
    name = column.dataset or row.training.datasets[-1]
    return data.get(name) if experiment.is_measured(row, column) else None


def rerank_of(training: Training, column: Column) -> str:
    """QAConv's models are ranked by their matcher, as its paper does."""
    return "qaconv" if training.method.startswith("qaconv") else column.rerank


def _needed(training: Training) -> Iterator[Training]:
    for each in training.needed:
        yield from _needed(each)
        yield each


def _title(row: Row, seed: int, run: Run) -> str:
    words: Sequence[str] = [label for label in row.labels if label]
    return ", ".join([*words, *([f"seed {seed}"] if len(run.seeds) > 1 else [])])


def _part(name: str, split: str) -> Any:
    return name if split == "train" else {"id": name, "split": split}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
