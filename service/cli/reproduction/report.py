"""The results of an experiment as one value: `results.json` is it, and the page shows nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from statistics import mean
from typing import Any

from service.cli.client import Client
from service.cli.reproduction.data import DataSet
from service.cli.reproduction.requests import Run, is_run, request, rerank_of, tested_on
from service.cli.reproduction.runner import Done, Results, count_parameters
from service.papers.experiment import DATA_SETS, Column, Experiment, Measure, Row

_OF_EVALUATION: Mapping[Measure, tuple[str, ...]] = {
    "mAP": ("mAP",),
    "rank1": ("cmc", "1"),
    "rank5": ("cmc", "5"),
    "rank10": ("cmc", "10"),
}
_CURVES = ("loss", "training_rank1")
_CURVE_POINTS = 60


class Report:
    """Puts together what the jobs of a run gave."""

    def __init__(
        self, client: Client, experiment: Experiment, run: Run, data: Mapping[str, DataSet], results: Results
    ) -> None:
        self._client, self._experiment, self._run = client, experiment, run
        self._data, self._results = data, results

    def as_json(self) -> dict[str, Any]:
        """Every number with the job, model, seed and settings that it comes from; accuracies in shares from 0 to 1."""
        experiment, run = self._experiment, self._run
        return {
            "experiment": experiment.name,
            "title": experiment.title,
            "source": experiment.source,
            "place": experiment.place,
            "quoted_place": experiment.quoted_place or experiment.place,
            "notes": list(experiment.notes),
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "small": run.small,
            "seeds": list(run.seeds),
            "init_from": run.init_from,
            "data_sets": {name: _describe(name, each) for name, each in self._data.items()},
            "label_titles": list(experiment.label_titles),
            "columns": [{"title": each.title, "measure": each.measure} for each in experiment.columns],
            "rows": [self._row(row) for row in experiment.rows],
            "trainings": [self._training(name, done) for name, done in self._results.trainings.items()],
        }

    def _row(self, row: Row) -> dict[str, Any]:
        columns = self._experiment.columns
        quoted = row.quoted or (None,) * len(columns)
        cells = [self._cell(row, column) | {"quoted": paper} for column, paper in zip(columns, quoted, strict=True)]
        point = row.point and {"x": row.point.x, "panel": row.point.panel, "series": row.point.series}
        return {"labels": list(row.labels), "point": point, "cells": cells}

    def _cell(self, row: Row, column: Column) -> dict[str, Any]:
        """The values of all seeds; `state` says why there is none."""
        if not self._experiment.is_measured(row, column):
            return {"state": "not in the experiment", "values": [], "reasons": []}
        dataset = tested_on(row, column, self._experiment, self._data)
        if not is_run(row, self._run, self._data) or (dataset is None and column.measure in _OF_EVALUATION):
            return {"state": "not run", "values": [], "reasons": []}
        values, reasons = [], []
        for seed in self._run.seeds:
            name = request(row.training, seed, self._run, self._data).name
            trained = done = self._results.trainings[name]
            if dataset is not None and column.measure in _OF_EVALUATION:
                done = self._results.evaluations[name, dataset.name, rerank_of(row.training, column)]
            if done.problem:
                reasons.append({"seed": seed, "reason": done.problem})
            else:
                facts = {"seed": seed, "job": done.job["id"], "model": trained.made["id"]}
                values.append(facts | self._value(column, done))
        return {"state": "measured" if values else "failed", "values": values, "reasons": reasons}

    def _value(self, column: Column, done: Done) -> dict[str, Any]:
        if column.measure == "hours":
            return {"value": _seconds(done.job) / 3600}
        if column.measure == "parameters":
            return {"value": count_parameters(self._client, done.made)}
        value = done.made
        for key in _OF_EVALUATION[column.measure]:
            value = value[key]
        facts = {"evaluation": done.made["evaluation"], "interval": done.made["interval"].get(column.measure)}
        return {"value": value, **facts}

    def _training(self, name: str, done: Done) -> dict[str, Any]:
        asked = self._results.requests[name]
        told: dict[str, Any] = {"title": asked.title, "name": name, "asked": asked.body, "reason": done.problem}
        told |= {"job": None, "model": None, "seconds": None, "settings": None, "warnings": [], "curves": {}}
        if done.job:
            told |= {"job": done.job["id"], "warnings": (done.job["result"] or {}).get("warnings", [])}
        if done.problem is None:
            curves = self._client.get(f"/jobs/{done.job['id']}/metrics")
            told |= {"model": done.made["id"], "seconds": _seconds(done.job), "settings": done.made["settings"]}
            told |= {"curves": {each: _thinned(curves[each]) for each in _CURVES if each in curves}}
        return told


def _describe(name: str, dataset: DataSet) -> dict[str, Any]:
    facts = {key: dataset.answer[key] for key in ("format", "variant", "fingerprint", "splits")}
    return {"title": DATA_SETS[name], "given": dataset.given, "id": dataset.id, "name": dataset.name, **facts}


def _seconds(job: Any) -> float:
    began, ended = (datetime.fromisoformat(job[name]) for name in ("started_at", "finished_at"))
    return (ended - began).total_seconds()


def _thinned(curve: Sequence[Sequence[float]]) -> list[list[float]]:
    """About so many points of a curve, each the mean of as many values at the last one's step."""
    size = max(1, len(curve) // _CURVE_POINTS)
    groups = [curve[start : start + size] for start in range(0, len(curve), size)]
    return [[group[-1][0], mean(value for _, value in group)] for group in groups]
