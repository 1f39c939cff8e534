"""Trainings: on a data set, on several joined, or stage by stage on a chain of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import lru_cache, partial
from typing import Any

import torch
from sqlalchemy import ColumnElement, and_, func, or_, select, true
from sqlalchemy.orm import Session

from reid_core.data.preprocessing import preprocessing_from_json, settings_of
from reid_core.data.records import Part
from reid_core.errors import CoreError, Fault
from reid_core.external import EXTERNAL
from reid_core.methods import find_method
from reid_core.methods.method import Method
from reid_core.methods.teacher import check_teacher
from reid_core.sampling.identities import too_few_identities
from reid_core.settings import TrainingSettings, override
from reid_core.training.warnings import check_length
from service.datasets.readiness import find_ready
from service.db.lookup import find
from service.db.tables import Dataset, DatasetImage, Model
from service.errors import Problem, invalid_request, problem_at, problem_from_core
from service.jobs.body_schemas import Joined, StageBody, TrainBody
from service.jobs.kinds.plan import Plan, Resolved, Workload, count_built, embedding
from service.jobs.schemas import WarningAnswer
from service.jobs.stages import Stage, stages_of
from service.jobs.starts import resolve_start
from service.models.lifecycle import check_name_is_free
from service.settings import Settings

_ANY_CLASSES = 2
_PASSES_OF_A_STEP = 3  # forward, and twice as much backward


def resolve(session: Session, settings: Settings, body: TrainBody) -> Resolved:
    """The spec of the training asked for."""
    teacher = None if body.teacher is None else find(session, Model, body.teacher)
    init_from, implied = resolve_start(session, settings, body.init_from)
    stages = _resolve_stages(session, body, teacher, implied)
    check_name_is_free(session, body.model_name)
    spec = {
        "method": body.method,
        **(stages[0] if body.chain is None else {"chain": stages}),
        "model_name": body.model_name,
        "init_from": init_from,
        "teacher": teacher.id if teacher else None,
        "device": body.device or settings.device,
        "seed": body.seed,
    }
    return Resolved("train", spec, tuple(key for stage in stages_of(spec) for key in stage.datasets))


def _resolve_stages(
    session: Session, body: TrainBody, teacher: Model | None, implied: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """`{dataset, settings}` of every stage, ids and settings in full."""
    asked = _asked_stages(body)
    method, common = _resolve_settings(body, teacher, implied)
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
    if "preset" in changes:
        raise invalid_request("/settings/preset", "not-of-a-stage", "the preset is the job's own, for all stages")
    try:
        chosen = override(common, changes)
        same = outline(method, chosen) == outline(method, common)
    except CoreError as error:
        raise problem_from_core(error, below="/settings") from error
    if not same:
        message = "settings that shape the network are the job's own, for all stages"
        raise invalid_request("/settings", "another-network", message)
    return chosen


def _resolve_datasets(session: Session, asked: Joined, settings: TrainingSettings) -> Any:
    """The data sets asked for by their ids, in the same form: an id, an object {id, split} or a list of these."""
    named = asked if isinstance(asked, list) else [asked]
    found: list[tuple[Dataset, Part]] = [
        (find_ready(session, one), "train") if isinstance(one, str) else (find_ready(session, one.id), one.split)
        for one in named
    ]
    ids = [dataset.id for dataset, _ in found]
    if len(set(ids)) < len(ids):
        raise invalid_request("/dataset", "repeated-dataset", "a data set is named twice")
    _check_enough_identities(session, found, settings)
    resolved = [dataset.id if part == "train" else {"id": dataset.id, "split": part} for dataset, part in found]
    return resolved if isinstance(asked, list) else resolved[0]


def _resolve_settings(
    body: TrainBody, teacher: Model | None, implied: Mapping[str, Any] | None
) -> tuple[Method, TrainingSettings]:
    try:
        method = find_method(body.method)
    except CoreError as error:
        raise problem_at("/method", error) from error
    try:
        chosen = _settle(method, body.settings, teacher, implied)
        outline(method, chosen)
    except CoreError as error:
        raise problem_from_core(error, below="/settings") from error
    return method, chosen


@lru_cache(maxsize=64)
def outline(method: Method, settings: TrainingSettings) -> tuple[str, dict[str, torch.Size]]:
    """The network's layers, strides and all, and the shape of every tensor, that tell whether another is the same.

    Raises `SettingsError` for settings that are fine alone, impossible together.
    """
    with torch.device("meta"):  # without memory
        network = method.build_network(settings, _ANY_CLASSES)
    return repr(network), {name: tensor.shape for name, tensor in network.state_dict().items()}


def _settle(
    method: Method, asked: dict[str, Any], teacher: Model | None, implied: Mapping[str, Any] | None
) -> TrainingSettings:
    """Completes the settings asked for by what the start implies, or by what suits a teacher for a method with one."""
    if teacher is None or method.settle is None:
        return method.choose_settings(asked, implied)
    if teacher.method == EXTERNAL:
        taught = override(method.recipe, settings_of(preprocessing_from_json(teacher.preprocessing)))
    else:
        taught = type(find_method(teacher.method).recipe).model_validate(teacher.settings)
    return method.settle(method.with_preset(asked), teacher.method, taught)


def _check_enough_identities(
    session: Session, parts: Sequence[tuple[Dataset, Part]], settings: TrainingSettings
) -> None:
    found = sum(
        session.scalar(
            select(func.count(DatasetImage.identity.distinct())).where(
                DatasetImage.dataset_id == dataset.id, _in_part(part)
            )
        )
        or 0
        for dataset, part in parts
    )
    if found == 0:
        names = ", ".join(dataset.name for dataset, _ in parts)
        raise Problem(
            "invalid-dataset",
            f"There are no training images in {names}.",
            hint='Register a data set that has a train split, or train on {"id": ..., "split": "all"}.',
            errors=[Fault("/dataset", "no-train-split", "no training images")],
        )
    batch = getattr(settings, "batch", None)
    needed = getattr(batch, "identities", None) or 1
    if found < needed and settings.schedule.epochs > 0:
        raise problem_from_core(too_few_identities(needed, found), below="/settings")


def workloads(session: Session, job: Resolved) -> list[Workload]:
    """The steps of every stage, and a teacher's forward passes over the same images."""
    stages = _stage_workloads(session, job)
    teacher_id = job.spec["teacher"]
    if teacher_id is None:
        return stages
    teacher = embedding(session, teacher_id, 0, is_first=False)
    return stages + [
        replace(teacher, images=stage.images, batch=stage.batch, passes=stage.passes / _PASSES_OF_A_STEP)
        for stage in stages
    ]


def _stage_workloads(session: Session, job: Resolved) -> list[Workload]:
    method = find_method(job.spec["method"])
    work = []
    for stage in stages_of(job.spec):
        settings = type(method.recipe).model_validate(stage.settings)
        identities, images = _count(session, stage)
        seen = method.count_steps(settings, identities, images) * min(settings.batch.num_images, images)
        passes = _PASSES_OF_A_STEP * seen / max(1, images)
        count = partial(count_built, method, settings, max(identities, 2))
        work.append(Workload(count, settings.backbone, images, settings.batch.num_images, passes))
    return work


def _count(session: Session, stage: Stage) -> tuple[int, int]:
    """Counts the identities and images that the stage trains on."""
    wanted = or_(*(and_(DatasetImage.dataset_id == key, _in_part(part)) for key, part in stage.parts))
    counts = select(func.count(DatasetImage.identity.distinct()), func.count()).where(wanted)
    identities, images = session.execute(counts).one()
    return identities, images


def warn(session: Session, job: Resolved) -> list[WarningAnswer]:
    """A warning for every stage that is short for its settings."""
    method, found = find_method(job.spec["method"]), []
    for number, stage in enumerate(stages_of(job.spec), 1):
        settings = type(method.recipe).model_validate(stage.settings)
        found += [
            WarningAnswer(**asdict(replace(warning, stage=number)))
            for warning in check_length(method, settings, *_count(session, stage))
        ]
    return found


def _in_part(part: Part) -> ColumnElement[bool]:
    """The condition on rows of images that are in this part of their data set."""
    if part == "all":
        return true()
    return DatasetImage.split == part


PLAN = Plan(resolve, workloads, warn=warn)
