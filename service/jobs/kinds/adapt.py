"""Adaptations: a trained model goes on training on images whose identities nobody knows."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from reid_core.errors import CoreError, Fault
from reid_core.external import EXTERNAL
from reid_core.methods import find_method
from reid_core.methods.method import Method
from reid_core.settings import TrainingSettings, override
from service.datasets.readiness import find_ready
from service.db.lookup import find
from service.db.tables import DatasetImage, Gallery, GalleryImage, Model
from service.errors import Problem, invalid_request, problem_from_core
from service.jobs.body_schemas import AdaptBody
from service.jobs.kinds.plan import Plan, Resolved, Workload, count_built, embedding
from service.jobs.kinds.train import outline
from service.models.lifecycle import check_name_is_free
from service.settings import Settings

_ANY_CLASSES = 2
_PASSES_OF_A_STEP = 3  # forward, and twice as much backward


def resolve(session: Session, settings: Settings, body: AdaptBody) -> Resolved:
    """The spec of the adaptation asked for."""
    model = find(session, Model, body.model)
    chosen = _resolve_settings(model, body)
    check_name_is_free(session, body.model_name)
    source, datasets = _resolve_source(session, body)
    spec = {
        "model": model.id,
        **source,
        "model_name": body.model_name,
        "settings": chosen.model_dump(mode="json"),
        "clustering": body.clustering.model_dump(),
        "reliability": body.reliability.model_dump(),
        "device": body.device or settings.device,
        "seed": body.seed,
    }
    return Resolved("adapt", spec, datasets)


def workloads(session: Session, job: Resolved) -> list[Workload]:
    """Every epoch embeds all images and, where all are in reliable clusters, takes a step for each."""
    model = session.get_one(Model, job.spec["model"])
    method = find_method(model.method)
    settings = type(method.recipe).model_validate(job.spec["settings"])
    images, epochs = count_images(session, job.spec), settings.schedule.epochs
    count = partial(count_built, method, settings, _ANY_CLASSES)
    steps = Workload(count, settings.backbone, images, settings.batch.num_images, _PASSES_OF_A_STEP * epochs)
    return [steps, embedding(session, model.id, images, passes=epochs, is_first=False)]


def count_images(session: Session, spec: dict[str, Any]) -> int:
    """The number of images that the job trains on."""
    if gallery := spec.get("gallery"):
        return session.scalar(select(func.count()).where(GalleryImage.gallery_id == gallery)) or 0
    of_dataset = DatasetImage.dataset_id == spec["dataset"], DatasetImage.split == "train"
    return session.scalar(select(func.count()).where(*of_dataset)) or 0


def _resolve_source(session: Session, body: AdaptBody) -> tuple[dict[str, str], tuple[str, ...]]:
    """The images' data set or gallery by its id, and the data sets that the job reads."""
    if body.dataset is not None and body.gallery is None:
        dataset = find_ready(session, body.dataset)
        _require_images(session, {"dataset": dataset.id}, f"data set {dataset.name!r} has no train split", "/dataset")
        return {"dataset": dataset.id}, (dataset.id,)
    if body.gallery is not None and body.dataset is None:
        gallery = find(session, Gallery, body.gallery)
        _require_images(session, {"gallery": gallery.id}, f"gallery {gallery.name!r} has no images", "/gallery")
        return {"gallery": gallery.id}, _datasets_of(session, gallery)
    raise Problem(
        "invalid-request",
        "An adaptation takes the images of either a data set or a gallery.",
        hint="Name one of `dataset` and `gallery`.",
        errors=[Fault(at, "one-of", "exactly one of dataset and gallery") for at in ("/dataset", "/gallery")],
    )


def _require_images(session: Session, source: dict[str, Any], lack: str, pointer: str) -> None:
    if not count_images(session, source):
        raise invalid_request(pointer, "no-images", lack)


def _datasets_of(session: Session, gallery: Gallery) -> tuple[str, ...]:
    """The data sets whose images the gallery refers to."""
    referred = select(GalleryImage.dataset_image_id).where(GalleryImage.gallery_id == gallery.id)
    return tuple(session.scalars(select(DatasetImage.dataset_id).where(DatasetImage.id.in_(referred)).distinct()))


def _resolve_settings(model: Model, body: AdaptBody) -> TrainingSettings:
    """The model's own settings with those asked for; what shapes the network is the model's."""
    if model.method == EXTERNAL:
        message = f"model {model.name!r} is an imported ONNX network, which is not trained here"
        raise invalid_request("/model", "external-model", message, hint="Name a model that was trained here.")
    method = find_method(model.method)
    if method.settle is not None:
        message = f"method {model.method!r} learns from a teacher, which an adaptation does not have"
        raise invalid_request("/model", "needs-a-teacher", message, hint="Name a model of another method.")
    own = type(method.recipe).model_validate(model.settings)
    try:
        chosen = override(override(own, _at_start(method)), body.settings)
        same = outline(method, chosen) == outline(method, own)
    except CoreError as error:
        raise problem_from_core(error, below="/settings") from error
    if not same:
        raise invalid_request("/settings", "another-network", "settings that shape the network are the model's own")
    if chosen.validation.fraction > 0:
        message = "nobody's identity is known, so nobody can be held out"
        raise invalid_request("/settings/validation/fraction", "no-labels", message)
    if chosen.schedule.epochs < 1:
        raise invalid_request("/settings/schedule/epochs", "too-few", "an adaptation has one epoch or more")
    return chosen


def _at_start(method: Method) -> dict[str, Any]:
    """The settings of an adaptation in place of the model's own: the rate of the paper, and nobody who is held out."""
    return {
        "schedule": {"base_lr": method.recipe.schedule.base_lr},
        "validation": {"fraction": 0, "keep": "last", "patience": None},
    }


PLAN = Plan(resolve, workloads)
