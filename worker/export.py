"""Export jobs: a model as files for another runtime, kept beside its weights once both agree."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from sqlalchemy import select

from reid_core.data.records import SPLITS
from reid_core.export import export_model
from reid_core.model import load_model, weights_name
from service.datasets.checking import check_files
from service.db.lookup import find
from service.db.tables import Dataset, DatasetImage, Model
from service.evaluations.catalog import evaluations_of
from service.jobs.kinds.export import COMPARED_IMAGES, nothing_to_compare
from service.jobs.recording import progress_as_json
from service.models.bundle import CARD
from service.models.card import make_card, write_markdown
from service.storage import ensure_free_space, find_stored
from worker.model_files import publish_files
from worker.work import Outcome, Work

_COPIES = 3
"""Copies of the weights: ONNX, and what it is turned into, beside some room."""


def run(work: Work) -> Outcome:
    """Writes the files into the job's folder, compares, and moves them into the model's."""
    spec, settings = work.job.spec, work.settings
    images = _choose_images(work)
    _check_files(work)
    for chatty in ("onnx_ir", "onnxscript"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    model = load_model(settings.models_dir / spec["model"], torch.device("cpu"))
    weights = (settings.models_dir / spec["model"] / weights_name(model.manifest.method)).stat().st_size
    ensure_free_space(settings.home, needed_bytes=_COPIES * weights, min_free_bytes=settings.min_free_bytes)
    making = work.folder / "export"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    try:
        work.reporter.progress(progress_as_json(0.0, "convert"))
        files, agreement = export_model(model, spec["format"], making, images, on_progress=work.progress("compare"))
        publish_files(work, [*files, _write_card(work, making)])
    finally:
        shutil.rmtree(making, ignore_errors=True)
    names = [path.name for path in files]
    return Outcome({"model": spec["model"], "format": spec["format"], "files": names, "agreement": asdict(agreement)})


def _write_card(work: Work, folder: Path) -> Path:
    """The model's card as it is now, for whoever gets the export without this service."""
    with work.database.read() as session:
        model = find(session, Model, work.job.spec["model"])
        card = make_card(model, evaluations_of(session, model.id), work.settings)
    path = folder / CARD
    path.write_text(write_markdown(card))
    return path


def _choose_images(work: Work) -> list[Path]:
    """Evenly from all images of the data sets; raises 422 where they were deleted since the job was posted."""
    with work.database.read() as session:
        rows = session.execute(
            select(Dataset.path, DatasetImage.path)
            .join(Dataset, Dataset.id == DatasetImage.dataset_id)
            .where(DatasetImage.dataset_id.in_(work.job.spec["datasets"]))
            .order_by(DatasetImage.dataset_id, DatasetImage.split, DatasetImage.position)
        ).all()
    if not rows:
        raise nothing_to_compare("its data sets have been deleted")
    count = min(COMPARED_IMAGES, len(rows))
    bases = work.settings.bases
    return [
        find_stored(folder, bases) / path
        for folder, path in (rows[index * len(rows) // count] for index in range(count))
    ]


def _check_files(work: Work) -> None:
    with work.database.read() as session:
        left = session.scalars(select(Dataset.id).where(Dataset.id.in_(work.job.spec["datasets"]))).all()
    for key in left:
        check_files(work.database, work.settings, key, SPLITS, on_progress=work.progress("check"))
