"""Training jobs: from a resolved spec to a published model."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reid_core.backbones import BackboneName
from reid_core.backbones.weights import Transfer
from reid_core.data.records import Picture
from reid_core.methods import find_method
from reid_core.model import Manifest, save_model
from reid_core.sampling import Graph
from reid_core.training.checkpoint import History
from reid_core.training.initial import Initialise, from_file, from_imagenet, from_model
from reid_core.training.loop import Observer, Plan, Result, fit
from reid_core.training.precision import resolve_device
from reid_core.training.progress import Progress
from service.datasets import joined_pictures
from service.db.lookup import find
from service.db.tables import Dataset, Model
from service.jobs.graphs import write_graph
from service.jobs.recording import progress_as_json
from service.storage import publish_folder
from worker.work import Outcome, Work

_NAMES_SHOWN = 20
_TRANSFER_NAME = "transfer.json"


def run(work: Work) -> Outcome:
    """Trains, publishes the model's folder by a rename, and gives back its row."""
    spec = work.job.spec
    datasets, pictures = _read_pictures(work)
    method = find_method(spec["method"])
    settings = type(method.recipe).model_validate(spec["settings"])
    plan = Plan(
        method=method,
        settings=settings,
        pictures=pictures,
        seed=spec["seed"],
        device=resolve_device(spec["device"]),
        initialise=_initialise(work, settings.backbone),
    )
    result = fit(plan, work.folder, _observer(work), checkpoint_seconds=work.settings.checkpoint_seconds)
    model_id = f"mdl_{work.job.id.removeprefix('job_')}"
    folder, manifest = _publish(work, model_id, plan, result)
    row = Model(
        id=model_id,
        name=spec["model_name"] or f"{method.name}-{model_id[-8:]}",
        method=method.name,
        settings=dict(manifest.settings),
        lineage=_lineage(work, datasets),
        embedding_size=manifest.embedding_size,
        preprocessing=manifest.preprocessing.as_json(),
        files={path.name: _describe_file(path) for path in sorted(folder.iterdir())},
        job_id=work.job.id,
    )
    return Outcome({"model": model_id, "identities": result.num_classes, "images": len(pictures)}, [row])


def _read_pictures(work: Work) -> tuple[list[Dataset], list[Picture]]:
    keys = work.job.spec["dataset"]
    with work.database.read() as session:
        datasets = [find(session, Dataset, key) for key in ([keys] if isinstance(keys, str) else keys)]
        return datasets, joined_pictures(session, datasets, "train")


def _initialise(work: Work, backbone: BackboneName) -> Initialise | None:
    source = work.job.spec["init_from"]
    if source is None:
        return None
    if source == "imagenet":
        return from_imagenet(backbone)
    if isinstance(source, dict):
        return from_file(work.settings.weights_dir / source["weights"])
    return from_model(work.settings.models_dir / source)


def _observer(work: Work) -> Observer:
    def on_transfer(transfer: Transfer) -> None:
        told = {
            "taken": len(transfer.taken),
            "left_out": list(transfer.left_out[:_NAMES_SHOWN]),
            "as_initialised": list(transfer.kept[:_NAMES_SHOWN]),
        }
        (work.folder / _TRANSFER_NAME).write_text(json.dumps(told))
        work.reporter.event("weights", told)

    def on_resume(step: int, history: History) -> None:
        work.reporter.restart_curves(history)
        work.reporter.event("checkpoint", {"resumed_at_step": step})

    def on_progress(progress: Progress) -> None:
        shown = progress_as_json(
            progress.fraction,
            progress.phase,
            epoch=progress.epoch,
            epochs=progress.epochs,
            step=progress.step,
            steps=progress.steps,
            images_per_second=round(progress.images_per_second, 1),
            eta_seconds=round(progress.eta_seconds, 1),
        )
        work.reporter.progress(shown, progress.values, progress.total_step)

    def on_graph(epoch: int, graph: Graph, pictures: Sequence[Picture]) -> None:
        write_graph(work.folder, epoch, graph, pictures)
        work.reporter.event("graph", {"epoch": epoch + 1, "classes": len(pictures)})

    return Observer(on_transfer, on_resume, on_graph, on_progress, work.should_stop)


def _publish(work: Work, model_id: str, plan: Plan, result: Result) -> tuple[Path, Manifest]:
    work.reporter.progress(progress_as_json(1.0, "publish"))
    making = work.folder / "model"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    manifest = save_model(
        making,
        result.network,
        method=plan.method.name,
        settings=plan.settings,
        num_classes=result.num_classes,
        preprocessing=result.preprocessing,
    )
    folder = work.settings.models_dir / model_id
    # What an attempt left that was lost between its rename and its row.
    shutil.rmtree(folder, ignore_errors=True)
    publish_folder(making, folder)
    return folder, manifest


def _lineage(work: Work, datasets: Sequence[Dataset]) -> dict[str, Any]:
    spec, transfer = work.job.spec, work.folder / _TRANSFER_NAME
    return {
        "datasets": [{"id": row.id, "name": row.name, "fingerprint": row.fingerprint} for row in datasets],
        "parent": spec["init_from"] if _is_model(spec["init_from"]) else None,
        "init_from": spec["init_from"],
        "weights": json.loads(transfer.read_text()) if transfer.exists() else None,
        "teacher": spec["teacher"],
        "seed": spec["seed"],
    }


def _is_model(init_from: Any) -> bool:
    return isinstance(init_from, str) and init_from != "imagenet"


def _describe_file(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
