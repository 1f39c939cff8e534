"""Training jobs: from a resolved spec to a published model. A plain training is a chain of one stage."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from reid_core.backbones import GlobalBackboneName
from reid_core.backbones.weights import IMAGENET, Transfer
from reid_core.data.records import SPLITS, ImageRecord
from reid_core.devices import resolve_device
from reid_core.methods import find_method
from reid_core.model import load_model
from reid_core.sampling import Graph
from reid_core.training.chain import fit_chain
from reid_core.training.checkpoint import History
from reid_core.training.initial import Initialise, from_file, from_imagenet, from_model
from reid_core.training.loop import CHECKPOINT_NAME, Observer, Plan
from reid_core.training.progress import Progress
from service.datasets.checking import as_dataset_problem, check_files
from service.datasets.images import joined_images, other_people
from service.db.lookup import find
from service.db.tables import Dataset
from service.jobs.graphs import write_graph
from service.jobs.recording import progress_as_json
from service.jobs.stages import Stage, stages_of
from worker.held_out import calibrate_held_out
from worker.publication import describe_origin, engine_warnings, make_model, publish_model, warn
from worker.work import Outcome, Work

logger = logging.getLogger(__name__)


def run(work: Work) -> Outcome:
    """Trains, publishes the last stage's network by a rename of its folder, and gives back its row."""
    datasets, plans = _read_plans(work)
    names = [row.name for of_stage in datasets for row in of_stage]
    if not any(work.folder.glob(f"*/{CHECKPOINT_NAME}")):
        work.reporter.restart_curves({})  # an attempt that was lost before its first checkpoint has left points
    with as_dataset_problem(names):
        result = fit_chain(
            plans,
            work.folder,
            lambda number: _observer(work, number + 1, len(plans)),
            checkpoint_seconds=work.settings.checkpoint_seconds,
        )
    making, manifest, engine = make_model(work, plans[-1].method, plans[-1].settings, result, plans[-1].images)
    calibration = calibrate_held_out(work, making, plans, datasets)
    row = publish_model(work, making, manifest, engine, {**_lineage(work, datasets), "kept": asdict(result.kept)})
    warnings = [*result.warnings, *engine_warnings(work, engine, stage=len(plans))]
    summary = {
        "model": row.id,
        "identities": result.num_classes,
        "images": len(plans[-1].images),
        "kept": asdict(result.kept),
        "warnings": [asdict(warning) for warning in warnings],
        "calibration": calibration,
    }
    return Outcome(summary, [row])


def _read_plans(work: Work) -> tuple[list[list[Dataset]], list[Plan]]:
    """The data sets of every stage and its plan."""
    spec = work.job.spec
    method, device = find_method(spec["method"]), resolve_device(spec["device"])
    teacher = load_model(work.settings.models_dir / spec["teacher"], device) if spec["teacher"] else None
    datasets, plans = [], []
    for stage in stages_of(spec):
        _check_files(work, stage)
        settings = type(method.recipe).model_validate(stage.settings)
        with work.database.read() as session:
            datasets.append([find(session, Dataset, key) for key in stage.datasets])
            parts = list(zip(datasets[-1], [part for _, part in stage.parts], strict=True))
            images = joined_images(session, work.settings, parts)
            others = other_people(session, work.settings, parts)
        initialise = _initialise(work, settings.backbone)
        plans.append(Plan(method, settings, images, spec["seed"], device, initialise, teacher, others))
    return datasets, plans


def _check_files(work: Work, stage: Stage) -> None:
    for key, part in stage.parts:
        splits = SPLITS if part == "all" else (part,)
        check_files(work.database, work.settings, key, splits, on_progress=work.progress("check"))


def _initialise(work: Work, backbone: GlobalBackboneName) -> Initialise | None:
    source = work.job.spec["init_from"]
    if source is None:
        return None
    if isinstance(source, dict):
        return from_file(work.settings.weights_dir / source["weights"], source.get("allow_missing", ()))
    if source in IMAGENET:
        return from_imagenet(backbone, source)
    return from_model(work.settings.models_dir / source)


def _observer(work: Work, stage: int, stages: int) -> Observer:
    def on_transfer(transfer: Transfer) -> None:
        counts = {
            "taken": len(transfer.taken),
            "left_out": list(transfer.left_out),
            "as_initialised": list(transfer.kept),
            "renamed": len(transfer.renamed),
            **({"file": transfer.file, "sha256": transfer.sha256} if transfer.file else {}),
        }
        _transfer_file(work, stage).write_text(json.dumps(counts))
        work.reporter.event("weights", {"stage": stage, **counts})

    def on_resume(step: int, history: History) -> None:
        work.reporter.restart_curves(history)
        work.reporter.event("checkpoint", {"stage": stage, "resumed_at_step": step})

    def on_progress(progress: Progress) -> None:
        state = progress_as_json(
            progress.fraction,
            progress.phase,
            stage=stage,
            stages=stages,
            epoch=progress.epoch,
            epochs=progress.epochs,
            step=progress.step,
            steps=progress.steps,
            images_per_second=progress.images_per_second,
            eta_seconds=progress.eta_seconds,
        )
        work.reporter.progress(state, progress.values, progress.total_step)

    def on_graph(epoch: int, graph: Graph, images: Sequence[ImageRecord]) -> None:
        write_graph(work.folder, epoch, graph, images)
        work.reporter.event("graph", {"epoch": epoch + 1, "classes": len(images)})

    return Observer(on_transfer, on_resume, on_graph, on_progress, partial(warn, work), work.should_stop)


def _lineage(work: Work, datasets: Sequence[Sequence[Dataset]]) -> dict[str, Any]:
    spec = work.job.spec
    used = {row.id: row for of_stage in datasets for row in of_stage}
    parts = {key: part for stage in stages_of(spec) for key, part in stage.parts}
    chain = [
        {"datasets": [row.id for row in of_stage], "weights": _read_transfer(work, stage)}
        for stage, of_stage in enumerate(datasets, 1)
    ]
    return {
        "datasets": [describe_origin(row, parts[row.id]) for row in used.values()],
        "chain": chain,
        "parent": spec["init_from"] if _is_model(spec["init_from"]) else None,
        "init_from": spec["init_from"],
        "weights": chain[0]["weights"],
        "teacher": spec["teacher"],
        "seed": spec["seed"],
    }


def _transfer_file(work: Work, stage: int) -> Path:
    return work.folder / f"transfer-{stage}.json"


def _read_transfer(work: Work, stage: int) -> Any:
    """The transfer of given weights into the stage; None where it started from random ones."""
    file = _transfer_file(work, stage)
    return json.loads(file.read_text()) if file.exists() else None


def _is_model(init_from: Any) -> bool:
    return isinstance(init_from, str) and init_from not in IMAGENET
