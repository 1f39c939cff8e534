"""From a request to a resolved spec: every name an id, every setting written out, everything checked that can be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from sqlalchemy import ColumnElement, func, select, true
from sqlalchemy.orm import Session

from reid_core.data.preprocessing import preprocessing_from_json
from reid_core.data.records import Part
from reid_core.errors import CoreError, Fault
from reid_core.methods import METHODS, find_method
from reid_core.methods.method import Method
from reid_core.methods.teacher import check_teacher
from reid_core.sampling.identities import too_few_identities
from reid_core.settings import TrainingSettings, override
from service.db.lookup import find
from service.db.tables import Dataset, DatasetImage, Gallery, Model
from service.errors import Problem, problem_from_core
from service.jobs.bodies import EvaluateBody, ExportBody, JobBody, Joined, StageBody, TrainBody, WeightsFile
from service.jobs.lifecycle import check_name_is_free
from service.jobs.schemas import Kind
from service.readiness import find_ready
from service.settings import Settings

EXPORT_PICTURES = 60
"""At most so many are compared."""

_ANY_CLASSES = 2


@dataclass(frozen=True, slots=True)
class Resolved:
    """A spec that a worker can carry out, and the ids of the data sets that it reads."""

    kind: Kind
    spec: dict[str, Any]
    datasets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """One training of a job: the ids of its data sets with the part of each, `train` or `all`, and settings in full."""

    parts: tuple[tuple[str, Part], ...]
    settings: Mapping[str, Any]

    @property
    def datasets(self) -> tuple[str, ...]:
        """The ids."""
        return tuple(key for key, _ in self.parts)


def stages_of(spec: Mapping[str, Any]) -> list[Stage]:
    """The stages of a training's spec, in order; a plain training is a chain of one."""
    stages = [(stage["dataset"], stage["settings"]) for stage in spec.get("chain", [spec])]
    return [
        Stage(tuple(map(_part, asked if isinstance(asked, list) else [asked])), settings) for asked, settings in stages
    ]


def in_part(part: Part) -> ColumnElement[bool]:
    """The condition on rows of pictures that are in this part of their data set."""
    if part == "all":
        return true()
    return DatasetImage.split == part


def resolve(session: Session, settings: Settings, body: JobBody) -> Resolved:
    """The spec of the job asked for.

    Raises:
        Problem: 404 for unknown things, 409 for things in the wrong state, 422 for what cannot work, with pointers.
    """
    if isinstance(body, TrainBody):
        return _resolve_training(session, settings, body)
    if isinstance(body, EvaluateBody):
        return _resolve_evaluation(session, body)
    if isinstance(body, ExportBody):
        return _resolve_export(session, body)
    gallery = find(session, Gallery, body.gallery)
    return Resolved("index", {"gallery": gallery.id}, ())


def _resolve_training(session: Session, settings: Settings, body: TrainBody) -> Resolved:
    teacher = None if body.teacher is None else find(session, Model, body.teacher)
    stages = _resolve_stages(session, body, teacher)
    check_name_is_free(session, body.model_name)
    spec = {
        "method": body.method,
        **(stages[0] if body.chain is None else {"chain": stages}),
        "model_name": body.model_name,
        "init_from": _resolve_initial(session, settings, body.init_from),
        "teacher": teacher.id if teacher else None,
        "device": body.device or settings.device,
        "seed": body.seed,
    }
    return Resolved("train", spec, tuple(key for stage in stages_of(spec) for key in stage.datasets))


def _resolve_stages(session: Session, body: TrainBody, teacher: Model | None) -> list[dict[str, Any]]:
    """`{dataset, settings}` of every stage, ids and settings in full."""
    asked = _asked_stages(body)
    method, common = _resolve_settings(body, teacher)
    seen = preprocessing_from_json(teacher.preprocessing) if teacher else None
    stages = []
    for place, stage in asked:
        with _pointing_below(place):
            chosen = _vary(method, common, stage.settings)
            ids = _resolve_datasets(session, stage.dataset, chosen)
        check_teacher(method, chosen, seen)
        stages.append({"dataset": ids, "settings": chosen.model_dump(mode="json")})
    return stages


def _asked_stages(body: TrainBody) -> list[tuple[str, StageBody]]:
    """Every stage with its place in the body; a plain training is a chain of one."""
    if body.dataset is not None and body.chain is None:
        return [("", StageBody(dataset=body.dataset))]
    if body.chain is not None and body.dataset is None:
        return [(f"/chain/{number}", stage) for number, stage in enumerate(body.chain)]
    raise Problem(
        "invalid-request",
        "A training takes either a data set or a chain.",
        hint="Name one of `dataset` and `chain`; each stage of a chain has a `dataset` of its own.",
        errors=[Fault(pointer, "one-of", "exactly one of dataset and chain") for pointer in ("/dataset", "/chain")],
    )


@contextmanager
def _pointing_below(place: str) -> Iterator[None]:
    """Problems from within point below this place of the body."""
    try:
        yield
    except Problem as problem:
        problem.errors = tuple(replace(fault, pointer=place + fault.pointer) for fault in problem.errors)
        raise


def _vary(method: Method, common: TrainingSettings, changes: Mapping[str, Any]) -> TrainingSettings:
    """The job's settings with a stage's changes, which must leave the network as it is."""
    try:
        chosen = override(common, changes)
        same = _outline(method, chosen) == _outline(method, common)
    except CoreError as error:
        raise problem_from_core(error, below="/settings") from error
    if not same:
        message = "settings that shape the network are the job's own, for all stages"
        raise _impossible("/settings", "another-network", message)
    return chosen


def _part(named: str | Mapping[str, Any]) -> tuple[str, Part]:
    """Of a spec: a data set's id alone means its training split."""
    return (named, "train") if isinstance(named, str) else (named["id"], named["split"])


def _resolve_datasets(session: Session, asked: Joined, settings: TrainingSettings) -> Any:
    """What was asked for with ids, in the same form: an id, an object {id, split} or a list of these."""
    named = asked if isinstance(asked, list) else [asked]
    found: list[tuple[Dataset, Part]] = [
        (find_ready(session, one), "train") if isinstance(one, str) else (find_ready(session, one.id), one.split)
        for one in named
    ]
    ids = [dataset.id for dataset, _ in found]
    if len(set(ids)) < len(ids):
        raise _impossible("/dataset", "repeated-dataset", "a data set is named twice")
    _check_enough_identities(session, found, settings)
    resolved = [dataset.id if part == "train" else {"id": dataset.id, "split": part} for dataset, part in found]
    return resolved if isinstance(asked, list) else resolved[0]


def _resolve_settings(body: TrainBody, teacher: Model | None) -> tuple[Method, TrainingSettings]:
    try:
        method = find_method(body.method)
    except CoreError as error:
        raise Problem(
            error.slug, error.detail, hint=error.hint, errors=[Fault("/method", error.slug, error.detail)]
        ) from error
    try:
        chosen = _settle(method, body.settings, teacher)
        _outline(method, chosen)
    except CoreError as error:
        raise problem_from_core(error, below="/settings") from error
    return method, chosen


@lru_cache(maxsize=64)
def _outline(method: Method, settings: TrainingSettings) -> tuple[str, dict[str, torch.Size]]:
    """The network's layers, strides and all, and the shape of every tensor, that tell whether another is the same.

    Raises `SettingsError` for settings that are fine alone, impossible together.
    """
    with torch.device("meta"):  # without memory
        network = method.build_network(settings, _ANY_CLASSES)
    return repr(network), {name: tensor.shape for name, tensor in network.state_dict().items()}


def _settle(method: Method, asked: dict[str, Any], teacher: Model | None) -> TrainingSettings:
    """What was asked for; the rest as the recipe has it, or for a method that learns from a model, as that suggests."""
    if teacher is None or method.settle is None:
        return override(method.recipe, asked)
    taught = type(find_method(teacher.method).recipe).model_validate(teacher.settings)
    return method.settle(asked, teacher.method, taught)


def _resolve_initial(session: Session, settings: Settings, init_from: WeightsFile | str | None) -> Any:
    if isinstance(init_from, WeightsFile):
        known = sorted(path.name for path in settings.weights_dir.glob("*") if path.is_file())
        if init_from.weights not in known:
            detail = f"There is no file {init_from.weights!r} in the weights folder."
            raise Problem(
                "weights-unusable",
                detail,
                hint=f"Put it there (REID_WEIGHTS_DIR), or use one of: {', '.join(known) or 'none yet'}.",
                errors=[Fault("/init_from/weights", "no-such-file", detail)],
            )
        return {"weights": init_from.weights}
    if init_from is None or init_from == "imagenet":
        return init_from
    return find(session, Model, init_from).id


def _resolve_evaluation(session: Session, body: EvaluateBody) -> Resolved:
    model, dataset = find(session, Model, body.model), find_ready(session, body.dataset)
    reranker = _resolve_reranker(session, body, model)
    if not (dataset.report or {}).get("evaluable_queries"):
        raise Problem(
            "invalid-dataset",
            f"Data set {dataset.name!r} has no query with a picture of the same identity on another camera.",
            hint=f"GET /datasets/{dataset.id}/report says why under findings.",
            errors=[Fault("/dataset", "nothing-to-evaluate", "no evaluable query")],
        )
    spec = {
        "model": model.id,
        "dataset": dataset.id,
        "rerank": body.rerank,
        "reranker": reranker.id if reranker else None,
        "candidates": body.candidates,
        "flip_average": body.flip_average,
    }
    return Resolved("evaluate", spec, (dataset.id,))


def _resolve_export(session: Session, body: ExportBody) -> Resolved:
    model = find(session, Model, body.model)
    if body.dataset is None:
        trained_on = [row["id"] for row in model.lineage.get("datasets", [])]
        ready = select(Dataset.id).where(Dataset.id.in_(trained_on), Dataset.state == "ready")
        datasets = list(session.scalars(ready.order_by(Dataset.id)))
    else:
        datasets = [find_ready(session, body.dataset).id]
    if session.scalar(select(DatasetImage.id).where(DatasetImage.dataset_id.in_(datasets)).limit(1)) is None:
        message = (
            f"none of the data sets that {model.name!r} was trained on is left"
            if body.dataset is None
            else f"data set {body.dataset!r} has no pictures"
        )
        raise nothing_to_compare(message)
    return Resolved("export", {"model": model.id, "format": body.format, "datasets": datasets}, tuple(datasets))


def nothing_to_compare(reason: str) -> Problem:
    """An export has no pictures to be compared on."""
    return Problem(
        "invalid-request",
        f"There is nothing to compare the file on: {reason}.",
        hint="Name as dataset any that is ready; a few pictures of people are enough.",
        errors=[Fault("/dataset", "nothing-to-compare", reason)],
    )


def _resolve_reranker(session: Session, body: EvaluateBody, model: Model) -> Model | None:
    """The model whose matcher re-ranks; None unless asked for. Raises 404 or 422."""
    if body.rerank != "qaconv":
        for name in ("reranker", "candidates"):
            if getattr(body, name) is not None:
                raise _impossible(f"/{name}", "not-used", f"{name} is only used with rerank qaconv")
        return None
    reranker = model if body.reranker is None else find(session, Model, body.reranker)
    if METHODS[reranker.method].matching_head is None:
        able = " or ".join(name for name, method in METHODS.items() if method.matching_head is not None)
        message = f"model {reranker.name!r} is of method {reranker.method!r}, which matches no local features"
        raise Problem(
            "invalid-request",
            f"{message[0].upper()}{message[1:]}.",
            hint=f"Name as reranker a model that was trained by {able}, or use rerank k_reciprocal.",
            errors=[Fault("/rerank" if body.reranker is None else "/reranker", "cannot-rerank", message)],
        )
    return reranker


def _check_enough_identities(
    session: Session, parts: Sequence[tuple[Dataset, Part]], settings: TrainingSettings
) -> None:
    found = sum(
        session.scalar(
            select(func.count(DatasetImage.identity.distinct())).where(
                DatasetImage.dataset_id == dataset.id, in_part(part)
            )
        )
        or 0
        for dataset, part in parts
    )
    if found == 0:
        names = ", ".join(dataset.name for dataset, _ in parts)
        raise Problem(
            "invalid-dataset",
            f"There are no training pictures in {names}.",
            hint='Register a data set that has a train split, or train on {"id": ..., "split": "all"}.',
            errors=[Fault("/dataset", "no-train-split", "no training pictures")],
        )
    batch = getattr(settings, "batch", None)
    needed = getattr(batch, "identities", None) or 1
    if found < needed and settings.schedule.epochs > 0:
        raise problem_from_core(too_few_identities(needed, found), below="/settings")


def _impossible(pointer: str, code: str, message: str) -> Problem:
    return Problem("invalid-request", f"{message[0].upper()}{message[1:]}.", errors=[Fault(pointer, code, message)])
