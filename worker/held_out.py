"""The calibration of a new model, on the training identities that its training held out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reid_core.calibration.record import FILE_NAME, Calibration, calibrate, write_calibrations
from reid_core.calibration.scoring import Rerank, score_files
from reid_core.data.records import ImageRecord
from reid_core.errors import DatasetError
from reid_core.model import load_model
from reid_core.training.loop import Plan
from reid_core.training.validation import hold_out
from service.db.tables import Dataset, Model
from service.jobs.unseen import seen_of
from worker.work import Work

logger = logging.getLogger(__name__)


def calibrate_held_out(
    work: Work, folder: Path, plans: Sequence[Plan], datasets: Sequence[Sequence[Dataset]]
) -> dict[str, Any]:
    """Writes the calibrations of the new model in `folder`, by its embeddings and by its matcher where it has one.

    Returns `fitted`, the ways of re-ranking that have one, and `reason`, why none has; null where some have.
    """
    reason = _why_seen(work, datasets)
    images = _held_out(plans)
    if reason is None and not images:
        reason = "No people were held out of the training: settings.validation.fraction says how many are."
    if reason is None:
        try:
            return {"fitted": _fit(work, folder, plans[-1], datasets[-1], images), "reason": None}
        except DatasetError as error:  # too few
            reason = error.detail
    logger.info("no calibration: %s A calibrate job makes one.", reason)
    return {"fitted": [], "reason": reason}


def _fit(work: Work, folder: Path, plan: Plan, datasets: Sequence[Dataset], images: Sequence[ImageRecord]) -> list[str]:
    model = load_model(folder, plan.device)
    encoder, head = model.encoder(), model.matching_head()
    progress = work.progress("calibrate")
    score = partial(score_files, encoder, head, on_progress=progress, should_stop=work.should_stop)
    described = {
        "dataset": ", ".join(row.id for row in datasets),
        "name": ", ".join(row.name for row in datasets),
        "fingerprint": ", ".join(row.fingerprint or "unknown" for row in datasets),
        "people": "those held out of the training",
        "seed": plan.seed,
    }
    reranks: list[Rerank] = ["none"] if head is None else ["none", "qaconv"]
    fitted: dict[str, Calibration] = {}
    for rerank in reranks:
        fitted[rerank] = calibrate(images, partial(score, rerank=rerank), rerank, described)
    write_calibrations(folder / FILE_NAME, fitted)
    return list(fitted)


def _held_out(plans: Sequence[Plan]) -> list[ImageRecord]:
    """The images that the last stage held out, of people whom no stage before was trained on."""
    splits = [hold_out(plan.images, plan.settings.validation.fraction, plan.seed) for plan in plans]
    trained_on = {image.identity for images, _ in splits for image in images}
    held_out = splits[-1][1]
    if held_out is None:
        return []
    return [image for image in (*held_out.query, *held_out.gallery) if image.identity not in trained_on]


def _why_seen(work: Work, datasets: Sequence[Sequence[Dataset]]) -> str | None:
    """The reason why the held-out people are not new: the model started or learned from one that has seen them."""
    before = {key for key in (work.job.spec["init_from"], work.job.spec["teacher"]) if isinstance(key, str)}
    with work.database.read() as session:
        for model in filter(None, (session.get(Model, key) for key in sorted(before))):
            for dataset in datasets[-1]:
                if seen_of(session, model, dataset) != "nothing":
                    return f"Model {model.name!r}, from which it learned, was trained on data set {dataset.name!r}."
    return None
