"""The plan of a kind of job: its spec from a request, and the work of networks that the spec means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from sqlalchemy.orm import Session

from reid_core.backbones import GlobalBackboneName
from reid_core.external import EXTERNAL
from reid_core.methods import find_method
from reid_core.methods.method import Method
from reid_core.settings import TrainingSettings
from reid_core.training.estimate import Cost, cost_of, count_cost
from service.db.tables import Model
from service.jobs.schemas import Kind, WarningAnswer
from service.settings import Settings

_EMBEDDING_BATCH = 32
_ANY_CLASSES = 2


@dataclass(frozen=True, slots=True)
class Resolved:
    """A spec that a worker can carry out, and the ids of the data sets that it reads."""

    kind: Kind
    spec: dict[str, Any]
    datasets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Workload:
    """A network's work on one set of images.

    Attributes:
        count: (images at a time) -> the network's cost.
        backbone: the network's; None of an external one.
        batch: images at a time.
        passes: forward passes over all images; a backward pass counts as two.
        is_first: False where another network of the job works on the same images, which are counted once.
    """

    count: Callable[[int], Cost]
    backbone: GlobalBackboneName | None
    images: int
    batch: int
    passes: float
    is_first: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """The planning of a kind of job.

    Attributes:
        resolve: (session, settings, body) -> the spec with every name an id and every setting written out. Raises the
            problem of what cannot be: 404 for unknown things, 409 for things in the wrong state, 422 with pointers.
        workloads: (session, resolved) -> the work.
        device: where the job runs, whatever its spec says; None: where that or REID_DEVICE says.
        warn: (session, resolved) -> warnings of a job that may be started all the same.
    """

    resolve: Callable[[Session, Settings, Any], Resolved]
    workloads: Callable[[Session, Resolved], Sequence[Workload]]
    device: str | None = None
    warn: Callable[[Session, Resolved], list[WarningAnswer]] = lambda session, job: []


def embedding(
    session: Session, model_id: str, images: int, *, passes: float | None = None, is_first: bool = True
) -> Workload:
    """The work of embedding so many images by the model; `passes` left out are those that its settings ask for."""
    model = session.get_one(Model, model_id)
    if passes is None:
        passes = passes_of(model.preprocessing.get("flip_average", False))  # models of earlier versions do not say
    if model.method == EXTERNAL:
        count, backbone = partial(_count_external, model.settings), None
    else:
        method = find_method(model.method)
        settings = type(method.recipe).model_validate(model.settings)
        count, backbone = partial(count_built, method, settings, _ANY_CLASSES), settings.backbone
    return Workload(count, backbone, images, _EMBEDDING_BATCH, passes, is_first)


def count_built(method: Method, settings: TrainingSettings, classes: int, batch: int) -> Cost:
    """The cost of the method's network with a classifier of so many classes."""
    with torch.device("meta"):  # without memory
        network = method.build_network(settings, classes)
    return count_cost(network, batch=batch, height=settings.image.height, width=settings.image.width)


def _count_external(facts: Mapping[str, Any], batch: int) -> Cost:
    """The cost by what the network's check has counted."""
    return cost_of(facts["weights"], facts["activations"], facts["operations"], batch=batch)


def passes_of(flip_average: bool) -> float:
    """Forward passes over an image for one embedding."""
    return 2.0 if flip_average else 1.0
