"""From a request to a resolved spec: every name an id, every setting written out, everything checked that can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from reid_core.errors import CoreError, Fault
from reid_core.methods import find_method
from reid_core.sampling.identities import too_few_identities
from reid_core.settings import TrainingSettings, override
from service.db.lookup import find
from service.db.tables import Dataset, DatasetImage, Gallery, Job, Model
from service.errors import Problem, problem_from_core
from service.jobs.bodies import EvaluateBody, IndexBody, TrainBody, WeightsFile
from service.jobs.lifecycle import UNFINISHED
from service.settings import Settings


@dataclass(frozen=True, slots=True)
class Resolved:
    """A spec that a worker can carry out, and the ids of the data sets that it reads."""

    kind: str
    spec: dict[str, Any]
    datasets: tuple[str, ...]


def resolve(session: Session, settings: Settings, body: TrainBody | EvaluateBody | IndexBody) -> Resolved:
    """The spec of the job asked for.

    Raises:
        Problem: 404 for unknown things, 409 for things in the wrong state, 422 for what cannot work, with pointers.
    """
    if isinstance(body, TrainBody):
        return _resolve_training(session, settings, body)
    if isinstance(body, EvaluateBody):
        return _resolve_evaluation(session, body)
    gallery = find(session, Gallery, body.gallery)
    return Resolved("index", {"gallery": gallery.id}, ())


def _resolve_training(session: Session, settings: Settings, body: TrainBody) -> Resolved:
    chosen = _resolve_settings(body)
    keys = [body.dataset] if isinstance(body.dataset, str) else body.dataset
    datasets = [_ready(find(session, Dataset, key)) for key in keys]
    if len({dataset.id for dataset in datasets}) < len(datasets):
        raise _impossible("/dataset", "repeated-dataset", "a data set is named twice")
    _check_enough_identities(session, datasets, chosen)
    if body.teacher is not None:
        raise _impossible("/teacher", "no-teacher", f"method {body.method!r} learns from no teacher")
    if body.model_name is not None:
        check_name_is_free(session, body.model_name)
    ids = [dataset.id for dataset in datasets]
    spec = {
        "method": body.method,
        "dataset": ids[0] if isinstance(body.dataset, str) else ids,
        "model_name": body.model_name,
        "settings": chosen.model_dump(mode="json"),
        "init_from": _resolve_initial(session, settings, body.init_from),
        "teacher": None,
        "device": body.device or settings.device,
        "seed": body.seed,
    }
    return Resolved("train", spec, tuple(ids))


def _resolve_settings(body: TrainBody) -> TrainingSettings:
    try:
        method = find_method(body.method)
    except CoreError as error:
        raise Problem(
            error.slug, error.detail, hint=error.hint, errors=[Fault("/method", error.slug, error.detail)]
        ) from error
    try:
        return override(method.recipe, body.settings)
    except CoreError as error:
        raise problem_from_core(error, below="/settings") from error


def _resolve_initial(session: Session, settings: Settings, init_from: WeightsFile | str | None) -> Any:
    if isinstance(init_from, WeightsFile):
        if not (settings.weights_dir / init_from.weights).is_file():
            detail = f"There is no file {init_from.weights!r} in the weights folder."
            raise Problem(
                "weights-unusable",
                detail,
                hint="Put the safetensors file there (REID_WEIGHTS_DIR), or use another init_from.",
                errors=[Fault("/init_from/weights", "no-such-file", detail)],
            )
        return {"weights": init_from.weights}
    if init_from is None or init_from == "imagenet":
        return init_from
    return find(session, Model, init_from).id


def _resolve_evaluation(session: Session, body: EvaluateBody) -> Resolved:
    model, dataset = find(session, Model, body.model), _ready(find(session, Dataset, body.dataset))
    if body.rerank != "none" or body.reranker is not None:
        raise _impossible("/rerank", "no-reranker", "no method of this version re-ranks; use rerank none")
    if not (dataset.report or {}).get("evaluable_queries"):
        raise Problem(
            "invalid-dataset",
            f"Data set {dataset.name!r} has no query with a picture of the same identity on another camera.",
            hint=f"GET /datasets/{dataset.id}/report says why under findings.",
            errors=[Fault("/dataset", "nothing-to-evaluate", "no evaluable query")],
        )
    spec = {"model": model.id, "dataset": dataset.id, "reranker": None, "rerank": "none"}
    return Resolved("evaluate", spec, (dataset.id,))


def check_name_is_free(session: Session, name: str) -> None:
    """Raises the 409 problem when a model has the name or an unfinished job will give it to one."""
    taken_by_model = session.scalar(select(Model.id).where(Model.name == name))
    waiting = session.scalars(select(Job).where(Job.kind == "train", Job.state.in_(UNFINISHED)))
    taken_by_job = next((job.id for job in waiting if job.spec.get("model_name") == name), None)
    if taken := taken_by_model or taken_by_job:
        raise Problem(
            "name-taken", f"The model name {name!r} belongs to {taken}.", hint="Choose another name or delete that one."
        )


def _ready(dataset: Dataset) -> Dataset:
    if dataset.state == "pending":
        raise Problem(
            "wrong-state", f"Data set {dataset.name!r} is still being read.", hint="Try again when its state is ready."
        )
    if dataset.state != "ready":
        raise Problem(
            "invalid-dataset",
            f"Data set {dataset.name!r} could not be read.",
            hint=f"GET /datasets/{dataset.id} says why under error.",
            errors=[Fault("/dataset", "invalid-dataset", "the data set is invalid")],
        )
    return dataset


def _check_enough_identities(session: Session, datasets: Sequence[Dataset], settings: TrainingSettings) -> None:
    found = sum(
        session.scalar(
            select(func.count(DatasetImage.identity.distinct())).where(
                DatasetImage.dataset_id == dataset.id, DatasetImage.split == "train"
            )
        )
        or 0
        for dataset in datasets
    )
    if found == 0:
        names = ", ".join(dataset.name for dataset in datasets)
        raise Problem(
            "invalid-dataset",
            f"There are no training pictures in {names}.",
            hint="Register a data set that has a train split.",
            errors=[Fault("/dataset", "no-train-split", "no training pictures")],
        )
    batch = getattr(settings, "batch", None)
    needed = getattr(batch, "identities", 1)
    if found < needed and settings.schedule.epochs > 0:
        raise problem_from_core(too_few_identities(needed, found), below="/settings")


def _impossible(pointer: str, code: str, message: str) -> Problem:
    return Problem("invalid-request", f"{message[0].upper()}{message[1:]}.", errors=[Fault(pointer, code, message)])
