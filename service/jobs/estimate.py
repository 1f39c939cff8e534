"""What a job will cost before it is started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from reid_core.methods import find_method
from reid_core.methods.method import Method
from reid_core.settings import TrainingSettings
from reid_core.training.estimate import Cost, count_cost, measure_rate
from reid_core.training.precision import resolve_device
from service.db.tables import DatasetImage, Gallery, Model
from service.jobs.specs import Resolved, stages_of
from service.settings import Settings

_EMBEDDING_BATCH = 32
_BASIS = "counted operations at an assumed share of this machine's measured matrix rate; a worker elsewhere may differ"


@dataclass(frozen=True, slots=True)
class _Part:
    """A network's work on one set of pictures; `passes` counts forward passes over all of them."""

    method: Method
    settings: TrainingSettings
    classes: int
    pictures: int
    batch: int
    passes: float


def estimate(session: Session, settings: Settings, job: Resolved) -> dict[str, Any]:
    """`{memory_bytes, seconds, pictures, basis}`: rough, for choosing a batch and for planning a day.

    Stages of a chain are added up; the memory is that of the one that needs most.
    """
    parts = _training(session, job) if job.kind == "train" else [_embedding(session, job)]
    costs = [_count(part) for part in parts]
    device = resolve_device(job.spec.get("device") or settings.device)
    rate = measure_rate(device, parts[0].settings.backbone)
    operations = [
        part.passes * part.pictures * cost.forward_operations for part, cost in zip(parts, costs, strict=True)
    ]
    return {
        "memory_bytes": max(cost.memory_bytes for cost in costs),
        "seconds": round(sum(operations) / rate, 1),
        "pictures": sum(part.pictures for part in parts),
        "basis": _BASIS,
    }


def _training(session: Session, job: Resolved) -> list[_Part]:
    method = find_method(job.spec["method"])
    parts = []
    for stage in stages_of(job.spec):
        settings = type(method.recipe).model_validate(stage.settings)
        identities, pictures = session.execute(
            select(func.count(DatasetImage.identity.distinct()), func.count()).where(
                DatasetImage.dataset_id.in_(stage.datasets), DatasetImage.split == "train"
            )
        ).one()
        passes = 3.0 * settings.schedule.epochs
        parts.append(_Part(method, settings, max(identities, 2), pictures, settings.batch.num_pictures, passes))
    return parts


def _embedding(session: Session, job: Resolved) -> _Part:
    model = session.get_one(Model, _model_id(session, job))
    method = find_method(model.method)
    settings = type(method.recipe).model_validate(model.settings)
    return _Part(method, settings, 2, _pictures_to_embed(session, job), _EMBEDDING_BATCH, 1.0)


def _pictures_to_embed(session: Session, job: Resolved) -> int:
    if job.kind == "index":
        return session.get_one(Gallery, job.spec["gallery"]).images
    splits = ("query", "gallery")
    query = select(func.count()).where(DatasetImage.dataset_id.in_(job.datasets), DatasetImage.split.in_(splits))
    return session.scalar(query) or 0


def _model_id(session: Session, job: Resolved) -> str:
    return session.get_one(Gallery, job.spec["gallery"]).model_id if job.kind == "index" else str(job.spec["model"])


def _count(part: _Part) -> Cost:
    with torch.device("meta"):
        network = part.method.build_network(part.settings, part.classes)
    image = part.settings.image
    return count_cost(network, batch=part.batch, height=image.height, width=image.width)
