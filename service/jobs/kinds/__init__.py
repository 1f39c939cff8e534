"""The kinds of jobs: each is one file here, which plans it from a request, and one in `worker/`, which carries it out.

This table needs no PyTorch, as those files do: processes that only pass jobs on do without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from service.db.tables import Dataset, Gallery
from service.queue.tasks import SHORT_QUEUE, TRAINING_QUEUE

Subject = Gallery | Dataset | None


def _nothing(session: Session, spec: Mapping[str, Any]) -> Subject:
    return None


def _gallery(session: Session, spec: Mapping[str, Any]) -> Subject:
    """None for a job that only builds the index: the gallery is as ready meanwhile as before."""
    return session.get(Gallery, spec["gallery"]) if spec.get("embed", True) else None


def _dataset(session: Session, spec: Mapping[str, Any]) -> Subject:
    return session.get(Dataset, spec["dataset"])


@dataclass(frozen=True, slots=True)
class JobKind:
    """The way of a kind of job to the process that carries it out.

    Attributes:
        queue: where they wait.
        worker: the module whose `run` carries one out.
        subject: (session, spec) -> the row that the job changes and that shows the job as its own; None where that is
            gone, or is made only at the job's end.
        uses_networks: False for a kind that is carried out without PyTorch.
    """

    queue: str
    worker: str
    subject: Callable[[Session, Mapping[str, Any]], Subject] = _nothing
    uses_networks: bool = True


KINDS: dict[str, JobKind] = {
    "train": JobKind(TRAINING_QUEUE, "worker.train"),
    "adapt": JobKind(TRAINING_QUEUE, "worker.adapt"),
    "evaluate": JobKind(SHORT_QUEUE, "worker.evaluate"),
    "calibrate": JobKind(SHORT_QUEUE, "worker.calibrate"),
    "index": JobKind(SHORT_QUEUE, "worker.index", _gallery),
    "cluster": JobKind(SHORT_QUEUE, "worker.cluster"),
    "export": JobKind(SHORT_QUEUE, "worker.export"),
    "search_batch": JobKind(SHORT_QUEUE, "worker.search_batch"),
    "register": JobKind(SHORT_QUEUE, "worker.register", _dataset, uses_networks=False),
    "delete": JobKind(SHORT_QUEUE, "worker.delete", _gallery, uses_networks=False),
}
"""A new kind has an entry here, its body in `jobs/schemas.py`, and a plan in `jobs/planning.py`."""


def kinds_of(queue: str) -> list[str]:
    """The kinds of jobs that wait on the queue."""
    return [name for name, kind in KINDS.items() if kind.queue == queue]
