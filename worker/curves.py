"""Curves of a job for the tools that people look at them with: TensorBoard event files and an MLflow run.

The job's own record is the database. What is here follows it from a thread of its own: a folder or a server that cannot
take a point is tried again, holds nothing up and fails no job.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, Literal, Protocol

from service.db.tables import Job
from service.errors import Problem
from service.jobs.recording import Points
from service.settings import Settings

logger = logging.getLogger(__name__)

_RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
_CLOSE_SECONDS = 10.0
_MLFLOW_BATCH = 1000
"""Metrics that MLflow takes at once; a hundred parameters."""

_EXTRA = "Install reid-search with the extra `curves`, or unset {setting}."


End = Literal["FINISHED", "FAILED", "KILLED"]
"""The end of an attempt in MLflow's words; a job that was stopped is KILLED."""


class Sink(Protocol):
    """A place that curves are written to."""

    def restart(self, curves: Mapping[str, Sequence[tuple[int, float]]]) -> None:
        """Makes these curves the only ones, as when a job goes on from a checkpoint or begins."""

    def add(self, points: Points) -> None:
        """Adds points, on disk or on the server when it returns."""

    def close(self, end: End) -> None:
        """Says how the attempt ended; nothing is added afterwards."""


class TensorBoardSink:
    """Event files in `<folder>/<job's name>`; TensorBoard drops what came after the step that a job goes on from."""

    def __init__(self, settings: Settings, job: Job) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise _missing("tensorboardX", "REID_TENSORBOARD_DIR") from error
        self._open: Callable[..., Any] = SummaryWriter
        self._folder = str(settings.tensorboard_dir and settings.tensorboard_dir / job_name(job))
        self._described = "\n".join(f"    {name}: {value}" for name, value in describe(job).items())
        self._writer: Any = None

    def restart(self, curves: Mapping[str, Sequence[tuple[int, float]]]) -> None:
        last = max((points[-1][0] for points in curves.values() if points), default=-1)
        # Two attempts within one second would else write to one file.
        self._writer = self._open(self._folder, purge_step=last + 1, filename_suffix=f".{time.time_ns()}")
        if last < 0:
            self._writer.add_text("job", self._described, 0)

    def add(self, points: Points) -> None:
        if self._writer is None:
            self.restart({})
        for name, step, value in points:
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, end: End) -> None:
        if self._writer is not None:
            self._writer.close()


class MlflowSink:
    """A run of the experiment REID_MLFLOW_EXPERIMENT, with every setting as a parameter.

    MLflow keeps every point that it was ever sent; so a job that goes on from a checkpoint gets a new run, with the
    checkpoint's curves, and its old one is deleted.
    """

    def __init__(self, settings: Settings, job: Job) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # else it reports its use to its makers
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # this module's own thread tries again
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        try:
            import mlflow
            import mlflow.entities
        except ImportError as error:
            raise _missing("mlflow-skinny", "REID_MLFLOW_URL") from error
        self._entities: Any = mlflow.entities
        self._client: Any = mlflow.MlflowClient(tracking_uri=settings.mlflow_url)
        self._experiment, self._job = settings.mlflow_experiment, job
        self._run: str | None = None

    def restart(self, curves: Mapping[str, Sequence[tuple[int, float]]]) -> None:
        known = self._client.get_experiment_by_name(self._experiment)
        experiment = known.experiment_id if known else self._client.create_experiment(self._experiment)
        for run in self._client.search_runs([experiment], f"tags.`reid.job` = '{self._job.id}'"):
            self._client.delete_run(run.info.run_id)
        tags = {"reid.job": self._job.id, "reid.kind": self._job.kind}
        run = self._client.create_run(experiment, run_name=job_name(self._job), tags=tags)
        self._run = run.info.run_id
        settings = list(describe(self._job).items())
        for start in range(0, len(settings), 100):
            some = [self._entities.Param(name, value[:500]) for name, value in settings[start : start + 100]]
            self._client.log_batch(self._run, params=some)
        self.add([(name, step, value) for name, points in curves.items() for step, value in points])

    def add(self, points: Points) -> None:
        if self._run is None:
            self.restart({})
        now = int(time.time() * 1000)
        for start in range(0, len(points), _MLFLOW_BATCH):
            some = [
                self._entities.Metric(name, value, now, step) for name, step, value in points[start:][:_MLFLOW_BATCH]
            ]
            self._client.log_batch(self._run, metrics=some)

    def close(self, end: End) -> None:
        if self._run is not None:
            self._client.set_terminated(self._run, end)


class Follower:
    """Writes to a sink from a thread of its own, in order, and again where it failed."""

    def __init__(self, name: str, open_sink: Callable[[], Sink]) -> None:
        self._name, self._open_sink = name, open_sink
        self._work: queue.SimpleQueue[Callable[[Sink], None] | None] = queue.SimpleQueue()
        self._closing, self._used = threading.Event(), False
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def restart(self, curves: Mapping[str, Sequence[tuple[int, float]]]) -> None:
        """Makes these curves the only ones, soon."""
        self._used = True
        self._work.put(lambda sink: sink.restart(curves))

    def add(self, points: Points) -> None:
        """Adds points, soon."""
        self._used = True
        self._work.put(lambda sink: sink.add(points))

    def close(self, end: End) -> None:
        """Waits up to ten seconds for what is on its way; what a sink has not taken by then it never gets."""
        if self._used:
            self._work.put(lambda sink: sink.close(end))
        self._work.put(None)
        self._closing.set()
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            logger.warning("the last points of the curves did not reach %s", self._name)

    def _follow(self) -> None:
        sink: Sink | None = None
        while (work := self._work.get()) is not None:
            for pause in chain(_RETRY_SECONDS, repeat(_RETRY_SECONDS[-1])):
                try:
                    sink = sink or self._open_sink()
                    work(sink)
                    break
                except Problem as problem:
                    logger.warning("no curves for %s: %s %s", self._name, problem.detail, problem.hint)
                    return
                except Exception as error:  # noqa: BLE001 - whatever a foreign client raises
                    kind = type(error).__name__  # its words may hold the address with a password
                    logger.warning("%s did not take the curves, trying again in %g s: %s", self._name, pause, kind)
                if self._closing.wait(pause):
                    time.sleep(_RETRY_SECONDS[0])


def follow_curves(settings: Settings, job: Job) -> list[Follower]:
    """The followers of a job's curves that the settings ask for."""
    followers = []
    if settings.tensorboard_dir:
        followers.append(Follower("TensorBoard", lambda: TensorBoardSink(settings, job)))
    if settings.mlflow_url:
        followers.append(Follower("MLflow", lambda: MlflowSink(settings, job)))
    return followers


def job_name(job: Job) -> str:
    """The model's name and the job's id, which no other job has; slashes would make folders."""
    name = str(job.spec.get("model_name") or job.spec.get("method") or job.kind)
    return f"{name.replace('/', '_')}-{job.id}"


def describe(job: Job) -> dict[str, str]:
    """The settings and the origins of a training by their dotted names."""
    named = ("method", "dataset", "chain", "model", "init_from", "teacher", "seed", "settings")
    return dict(_flatten({name: job.spec[name] for name in named if name in job.spec}))


def _flatten(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):  # the stages of a chain
            yield from _flatten({f"{name}.{number}": one for number, one in enumerate(value, 1)}, path)
        elif isinstance(value, dict):
            yield from _flatten(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", str(value)


def _missing(package: str, setting: str) -> Problem:
    return Problem("internal", f"The package {package} is not installed.", hint=_EXTRA.format(setting=setting))
