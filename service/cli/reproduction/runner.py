"""Doing an experiment's jobs: started unless they were before, waited for, their results gathered.

A job is found again by what it is about, so a run that was stopped goes on where it was. One that fails costs its own
cells; the others go on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from service.cli.client import OVER, Client, NoAnswer, Refused
from service.cli.reproduction.data import DataSet
from service.cli.reproduction.requests import Request, Run, is_run, request, requests, rerank_of, tested_on
from service.papers.experiment import Experiment

Show = Callable[[str, float, float], None]
"""Told of the job in hand, its fraction, and the fraction of all."""

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(slots=True)
class Done:
    """A job's end: the job, what it made, or why it did not."""

    job: Any = None
    made: Any = None
    problem: str | None = None


Wanted = tuple[str, str, str]
"""An evaluation: names of model and data set, and how it is re-ranked."""


@dataclass(slots=True)
class Results:
    """Everything that the jobs gave, by the model's name or by what was wanted."""

    requests: Mapping[str, Request]
    trainings: dict[str, Done] = field(default_factory=dict)
    evaluations: dict[Wanted, Done] = field(default_factory=dict)


class Runner:
    """Runs the jobs of one experiment in a service."""

    def __init__(self, client: Client, show: Show) -> None:
        self._client = client
        self._show = show
        self._earlier = {kind: list(client.pages("/jobs", kind=kind)) for kind in ("train", "evaluate")}
        self._total = self._over = 0

    def run(self, experiment: Experiment, run: Run, data: Mapping[str, DataSet]) -> Results:
        """Trains and evaluates; what no other job waits for is started together.

        Raises:
            NoAnswer: the service went away.
        """
        results = Results({each.name: each for each in requests(experiment, run, data)})
        wanted = wanted_of(experiment, run, data)
        self._total = len(results.requests) + len(wanted)
        evaluating: dict[Wanted, Done] = {}
        for _, group in groupby(results.requests.values(), key=lambda each: each.depth):
            level = list(group)
            started = {each.name: self._start_training(each, results) for each in level}
            for each in level:
                done = results.trainings[each.name] = self._finish_training(each, started[each.name])
                of_model = [one for one in wanted if one[0] == each.name]
                evaluating |= {one: self._start_evaluation(one, wanted[one], done) for one in of_model}
        for one, started_one in evaluating.items():
            title = f"measuring {results.requests[one[0]].title}"
            results.evaluations[one] = self._finish(started_one, title)
            results.evaluations[one].made = (started_one.job or {}).get("result")
        return results

    def _start_training(self, each: Request, results: Results) -> Done:
        if lost := [name for name in each.needs if results.trainings[name].problem]:
            first = results.requests[lost[0]].title
            return Done(problem=f"{first}, which it needs, failed: {results.trainings[lost[0]].problem}")
        return self._start("train", each.body, each.name, lambda spec: spec.get("model_name") == each.name)

    def _finish_training(self, each: Request, started: Done) -> Done:
        done = self._finish(started, each.title)
        if done.problem is None:
            done.made = self._client.get(f"/models/{each.name}")
        return done

    def _start_evaluation(self, one: Wanted, dataset: DataSet, trained: Done) -> Done:
        if trained.problem:
            return Done(problem=trained.problem)
        model, rerank = trained.made["id"], one[2]
        body = {"kind": "evaluate", "model": model, "dataset": dataset.id, "rerank": rerank}

        def is_same(spec: Mapping[str, Any]) -> bool:
            as_asked = spec["candidates"] is None and spec["flip_average"] is None and spec["reranker"] in (None, model)
            as_asked = as_asked and not spec.get("multi_query") and spec.get("open_set") is None
            return as_asked and all(spec[name] == body[name] for name in ("model", "dataset", "rerank"))

        return self._start("evaluate", body, f"{model}-{dataset.id}-{rerank}", is_same)

    def _start(self, kind: str, body: Mapping[str, Any], key: str, is_same: Callable[[Any], bool]) -> Done:
        """The job, which may be over already; one that failed or was cancelled goes on from its checkpoint."""
        earlier = [job for job in self._earlier[kind] if is_same(job["spec"])]
        try:
            if earlier and earlier[0]["state"] in ("failed", "cancelled"):
                return Done(self._client.post(f"/jobs/{earlier[0]['id']}/resume", {}))
            if earlier and not self._is_deleted(earlier[0]):
                return Done(earlier[0])
            return Done(self._client.post("/jobs", dict(body), key=f"{key}-{len(earlier)}"))
        except NoAnswer:
            raise
        except Refused as refused:
            return Done(problem=str(refused))

    def _is_deleted(self, job: Any) -> bool:
        """True for a training whose model was deleted after it."""
        return job["state"] == "succeeded" and self._client.find(f"/models/{job['result']['model']}") is None

    def _finish(self, started: Done, title: str) -> Done:
        """Waits for the job."""
        if started.job is not None:
            job = started.job = self._client.watch_job(started.job["id"], lambda job: self._tell(title, job))
            if job["state"] != "succeeded":
                error = job["error"] or {"detail": f"The job was {job['state']}.", "hint": ""}
                started.problem = f"{error['detail']} {error['hint']}".strip()
        self._over += 1
        return started

    def _tell(self, title: str, job: Any) -> None:
        fraction = 1.0 if job["state"] in OVER else float(job["progress"]["fraction"])
        self._show(title, fraction, (self._over + fraction) / self._total)


def wanted_of(experiment: Experiment, run: Run, data: Mapping[str, DataSet]) -> dict[Wanted, DataSet]:
    """All evaluations of the experiment with the data set of each."""
    wanted = {}
    for seed in run.seeds:
        for row in experiment.rows:
            if is_run(row, run, data):
                model = request(row.training, seed, run, data).name
                for column in experiment.columns:
                    dataset = tested_on(row, column, experiment, data)
                    if dataset and column.measure not in ("hours", "parameters"):
                        wanted[model, dataset.name, rerank_of(row.training, column)] = dataset
    return wanted


def count_parameters(client: Client, model: Any) -> int:
    """The trained numbers of the model, by the header of its weights file: its running statistics are none."""
    path = f"/models/{model['id']}/files/weights.safetensors"
    size = int.from_bytes(client.content(path, last=7), "little")
    header = json.loads(client.content(path, first=8, last=7 + size))
    tensors = {name: facts for name, facts in header.items() if name != "__metadata__"}
    return sum(math.prod(facts["shape"]) for name, facts in tensors.items() if not name.endswith(_BUFFERS))
