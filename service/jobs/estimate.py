"""What a job will cost before it is started."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from reid_core.devices import resolve_device
from reid_core.methods import find_method
from reid_core.methods.method import Method
from reid_core.settings import TrainingSettings
from reid_core.training.estimate import Cost, count_cost, measure_rate
from service.db.tables import DatasetImage, Gallery, Model
from service.jobs.schemas import EstimateAnswer
from service.jobs.specs import EXPORT_PICTURES, Resolved, in_part, stages_of
from service.settings import Settings

_EMBEDDING_BATCH = 32
_PASSES_OF_A_STEP = 3  # forward, and twice as much backward
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


def estimate(session: Session, settings: Settings, job: Resolved) -> EstimateAnswer:
    """A rough cost of the job.

    Stages of a chain are added up, and so are the passes of a second model; the memory is that of the one that needs
    most.
    """
    own = _training(session, job) if job.kind == "train" else [_embedding(session, job)]
    parts = own + _second_passes(session, job, own)
    costs = [_count(part) for part in parts]
    asked = "cpu" if job.kind == "export" else job.spec.get("device")
    device = resolve_device(asked or settings.device)
    rates = {backbone: measure_rate(device, backbone) for backbone in {part.settings.backbone for part in parts}}
    operations = [
        part.passes * part.pictures * cost.forward_operations for part, cost in zip(parts, costs, strict=True)
    ]
    seconds = sum(each / rates[part.settings.backbone] for each, part in zip(operations, parts, strict=True))
    return EstimateAnswer(
        memory_bytes=max(cost.memory_bytes for cost in costs),
        seconds=round(seconds, 1),
        operations=sum(operations),
        pictures=sum(part.pictures for part in own),
        basis=_BASIS,
    )


def _training(session: Session, job: Resolved) -> list[_Part]:
    method = find_method(job.spec["method"])
    parts = []
    for stage in stages_of(job.spec):
        settings = type(method.recipe).model_validate(stage.settings)
        wanted = or_(*(and_(DatasetImage.dataset_id == key, in_part(part)) for key, part in stage.parts))
        counts = select(func.count(DatasetImage.identity.distinct()), func.count()).where(wanted)
        identities, pictures = session.execute(counts).one()
        passes = float(_PASSES_OF_A_STEP * settings.schedule.epochs)
        parts.append(_Part(method, settings, max(identities, 2), pictures, settings.batch.num_pictures, passes))
    return parts


def _embedding(session: Session, job: Resolved) -> _Part:
    key = session.get_one(Gallery, job.spec["gallery"]).model_id if job.kind == "index" else job.spec["model"]
    method, settings = _method_of(session, key)
    asked = job.spec.get("flip_average")
    passes = 2.0 if (settings.flip_average if asked is None else asked) else 1.0
    return _Part(method, settings, 2, _pictures_to_embed(session, job), _EMBEDDING_BATCH, passes)


def _second_passes(session: Session, job: Resolved, own: list[_Part]) -> list[_Part]:
    """Those of a teacher or of another model's matcher, forward only, over the same pictures."""
    if job.kind == "train":
        key, share = job.spec["teacher"], 1 / _PASSES_OF_A_STEP
    elif job.kind == "index":
        gallery = session.get_one(Gallery, job.spec["gallery"])
        key, share = (None if gallery.reranker_id == gallery.model_id else gallery.reranker_id), 1.0
    elif job.kind == "export":
        return own  # the other runtime's
    else:
        key, share = (None if job.spec["reranker"] == job.spec["model"] else job.spec["reranker"]), 1.0
    if key is None:
        return []
    method, settings = _method_of(session, key)
    return [replace(part, method=method, settings=settings, classes=2, passes=share * part.passes) for part in own]


def _method_of(session: Session, model_id: str) -> tuple[Method, TrainingSettings]:
    model = session.get_one(Model, model_id)
    method = find_method(model.method)
    return method, type(method.recipe).model_validate(model.settings)


def _pictures_to_embed(session: Session, job: Resolved) -> int:
    if job.kind == "index":
        return session.get_one(Gallery, job.spec["gallery"]).images
    if job.kind == "export":
        of_datasets = select(func.count()).where(DatasetImage.dataset_id.in_(job.datasets))
        return min(EXPORT_PICTURES, session.scalar(of_datasets) or 0)
    splits = ("query", "gallery")
    query = select(func.count()).where(DatasetImage.dataset_id.in_(job.datasets), DatasetImage.split.in_(splits))
    return session.scalar(query) or 0


def _count(part: _Part) -> Cost:
    with torch.device("meta"):
        network = part.method.build_network(part.settings, part.classes)
    image = part.settings.image
    return count_cost(network, batch=part.batch, height=image.height, width=image.width)
