"""Export jobs: a model as files for another runtime, kept beside its weights once both agree."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from sqlalchemy import select

from reid_core.export import export_model
from reid_core.model import load_model
from service.db.tables import Dataset, DatasetImage, Model
from service.jobs.lifecycle import renew
from service.jobs.recording import progress_as_json
from service.jobs.specs import EXPORT_PICTURES
from service.models import describe_file
from service.storage import ensure_free_space
from worker.work import Outcome, Work

_COPIES = 3
"""Of the weights' size: ONNX, and what it is turned into, beside some room."""


def run(work: Work) -> Outcome:
    """Writes the files into the job's folder, compares, and moves them into the model's."""
    spec, settings = work.job.spec, work.settings
    for chatty in ("onnx_ir", "onnxscript"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    model = load_model(settings.models_dir / spec["model"], torch.device("cpu"))
    weights = sum(tensor.nbytes for tensor in model.network.state_dict().values())
    ensure_free_space(settings.home, needed_bytes=_COPIES * weights, min_free_bytes=settings.min_free_bytes)
    making = work.folder / "export"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    try:
        work.reporter.progress(progress_as_json(0.0, "convert"))
        pictures = _choose_pictures(work)
        files, agreement = export_model(model, spec["format"], making, pictures, on_progress=work.progress("compare"))
        _publish(work, files)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    names = [path.name for path in files]
    return Outcome({"model": spec["model"], "format": spec["format"], "files": names, "agreement": asdict(agreement)})


def _choose_pictures(work: Work) -> list[Path]:
    """Evenly from all pictures of the data sets."""
    with work.database.read() as session:
        rows = session.execute(
            select(Dataset.path, DatasetImage.path)
            .join(Dataset, Dataset.id == DatasetImage.dataset_id)
            .where(DatasetImage.dataset_id.in_(work.job.spec["datasets"]))
            .order_by(DatasetImage.dataset_id, DatasetImage.split, DatasetImage.position)
        ).all()
    step = max(1, len(rows) // EXPORT_PICTURES)
    return [Path(folder) / path for folder, path in rows[::step][:EXPORT_PICTURES]]


def _publish(work: Work, files: Sequence[Path]) -> None:
    """Moves the files beside the weights, in the place of an earlier export, and lists them in the model's row."""
    with work.database.write() as session:
        renew(session, work.job.id, work.attempt, work.settings.lease_seconds)
        model = session.get_one(Model, work.job.spec["model"], with_for_update=True)
        facts = {path.name: describe_file(path) for path in files}
        for path in files:
            path.replace(work.settings.models_dir / model.id / path.name)
        model.files = {**model.files, **facts}
