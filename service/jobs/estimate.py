"""What a job will cost before it is started."""

from __future__ import annotations

from typing import Any

import torch
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from reid_core.methods import find_method
from reid_core.settings import TrainingSettings
from reid_core.training.estimate import Cost, count_cost, measure_rate
from reid_core.training.precision import resolve_device
from service.db.tables import DatasetImage, Gallery, Model
from service.jobs.specs import Resolved
from service.settings import Settings

_EMBEDDING_BATCH = 32
_BASIS = "counted operations at an assumed share of this machine's measured matrix rate; a worker elsewhere may differ"


def estimate(session: Session, settings: Settings, job: Resolved) -> dict[str, Any]:
    """`{memory_bytes, seconds, pictures, basis}`: rough, for choosing a batch and for planning a day."""
    if job.kind == "train":
        chosen, classes, pictures = _training(session, job)
        batch, passes = chosen.batch.num_pictures, 3.0 * chosen.schedule.epochs
    else:
        model = session.get_one(Model, _model_id(session, job))
        chosen = type(find_method(model.method).recipe).model_validate(model.settings)
        pictures, classes, batch, passes = _pictures_to_embed(session, job), 2, _EMBEDDING_BATCH, 1.0
    cost = _count(job.spec.get("method") or model.method, chosen, classes, batch)
    rate = measure_rate(resolve_device(job.spec.get("device") or settings.device), chosen.backbone)
    return {
        "memory_bytes": cost.memory_bytes,
        "seconds": round(passes * pictures * cost.forward_operations / rate, 1),
        "pictures": pictures,
        "basis": _BASIS,
    }


def _training(session: Session, job: Resolved) -> tuple[TrainingSettings, int, int]:
    settings = type(find_method(job.spec["method"]).recipe).model_validate(job.spec["settings"])
    identities, pictures = session.execute(
        select(func.count(DatasetImage.identity.distinct()), func.count()).where(
            DatasetImage.dataset_id.in_(job.datasets), DatasetImage.split == "train"
        )
    ).one()
    return settings, identities, pictures


def _pictures_to_embed(session: Session, job: Resolved) -> int:
    if job.kind == "index":
        return session.get_one(Gallery, job.spec["gallery"]).images
    splits = ("query", "gallery")
    query = select(func.count()).where(DatasetImage.dataset_id.in_(job.datasets), DatasetImage.split.in_(splits))
    return session.scalar(query) or 0


def _model_id(session: Session, job: Resolved) -> str:
    return session.get_one(Gallery, job.spec["gallery"]).model_id if job.kind == "index" else str(job.spec["model"])


def _count(method: str, settings: TrainingSettings, classes: int, batch: int) -> Cost:
    with torch.device("meta"):
        network = find_method(method).build_network(settings, max(classes, 2))
    return count_cost(network, batch=batch, height=settings.image.height, width=settings.image.width)
