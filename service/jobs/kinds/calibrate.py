"""Calibrations: what a model's scores mean, from images of people whom it was not trained on."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from reid_core.calibration.folds import LEAST_PEOPLE
from reid_core.calibration.record import MOST_IMAGES
from reid_core.errors import Fault
from reid_core.methods import METHODS, matches_locally
from service.datasets.readiness import find_ready
from service.db.lookup import find
from service.db.tables import Dataset, DatasetImage, Model
from service.errors import Problem, invalid_request
from service.jobs.body_schemas import CalibrateBody
from service.jobs.kinds.plan import Plan, Resolved, Workload, embedding
from service.jobs.unseen import count_unseen_people, seen_of
from service.settings import Settings


def resolve(session: Session, settings: Settings, body: CalibrateBody) -> Resolved:
    """The spec of the calibration asked for."""
    model, dataset = find(session, Model, body.model), find_ready(session, body.dataset)
    if body.rerank == "qaconv" and not matches_locally(model.method):
        able = " or ".join(filter(matches_locally, METHODS))
        message = f"model {model.name!r} is of method {model.method!r}, which matches no local features"
        raise invalid_request(
            "/rerank", "cannot-rerank", message, hint=f"Calibrate a model that was trained by {able}."
        )
    _require_unseen(session, model, dataset)
    spec = {"model": model.id, "dataset": dataset.id, "rerank": body.rerank}
    return Resolved("calibrate", spec, (dataset.id,))


def workloads(session: Session, job: Resolved) -> list[Workload]:
    """Embedding the images of the data set, or as many as a calibration takes."""
    images = select(func.count()).where(DatasetImage.dataset_id.in_(job.datasets))
    return [embedding(session, job.spec["model"], min(MOST_IMAGES, session.scalar(images) or 0))]


def _require_unseen(session: Session, model: Model, dataset: Dataset) -> None:
    people = count_unseen_people(session, dataset, seen_of(session, model, dataset))
    if people < LEAST_PEOPLE:
        message = (
            f"data set {dataset.name!r} shows {people} people by more than one camera whom model {model.name!r} was "
            f"not trained on; a calibration needs {LEAST_PEOPLE}"
        )
        raise Problem(
            "invalid-dataset",
            f"{message[0].upper()}{message[1:]}.",
            hint="Name a data set with other people, or train with settings.validation.fraction, which holds some out.",
            errors=[Fault("/dataset", "too-few-people", message)],
        )


PLAN = Plan(resolve, workloads)
