"""Calibration jobs: what a model's scores mean, kept beside its weights."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from reid_core.calibration.record import FILE_NAME, Calibration, calibrate, read_calibrations, write_calibrations
from reid_core.calibration.scoring import score_files
from reid_core.data.records import SPLITS
from reid_core.devices import resolve_device
from reid_core.engines.serving import serve
from reid_core.errors import WeightsError
from service.datasets.checking import as_dataset_problem, check_files
from service.db.lookup import find
from service.db.tables import Dataset, Model
from service.jobs.unseen import seen_of, unseen_images
from service.models.lifecycle import describe_file
from service.storage import flush_file, replace_file
from worker.model_files import own_model, withdraw_files
from worker.work import Outcome, Work

logger = logging.getLogger(__name__)


def run(work: Work) -> Outcome:
    """Scores pairs of people whom the model has not seen as searches would, and fits what their scores mean."""
    spec, settings = work.job.spec, work.settings
    check_files(work.database, settings, spec["dataset"], SPLITS, on_progress=work.progress("check"))
    with work.database.read() as session:
        dataset = find(session, Dataset, spec["dataset"])
        seen = seen_of(session, find(session, Model, spec["model"]), dataset)
        images = unseen_images(session, settings, dataset, seen)
    served = serve(settings.models_dir / spec["model"], resolve_device(settings.device), settings.engine)
    score = partial(
        score_files,
        served.encoder,
        served.head,
        rerank=spec["rerank"],
        on_progress=work.progress("score"),
        should_stop=work.should_stop,
    )
    described = {
        "dataset": dataset.id,
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "people": "all" if seen == "nothing" else "those of the query split",
    }
    with as_dataset_problem([dataset.name]):
        calibration = calibrate(images, score, spec["rerank"], described)
    _publish(work, calibration)
    return Outcome({"model": spec["model"], "dataset": dataset.id, "rerank": spec["rerank"], **_told(calibration)})


def _told(calibration: Calibration) -> dict[str, object]:
    fit = calibration.fit
    return {
        "kind": fit.curve.kind,
        "expected_calibration_error": fit.expected_calibration_error,
        "log_loss": fit.log_loss,
        "fitted_on": dict(calibration.fitted_on),
    }


def _publish(work: Work, calibration: Calibration) -> None:
    """Puts the calibration beside the model's others, in a file that is replaced whole."""
    made = work.folder / FILE_NAME
    withdraw_files(work, [FILE_NAME])
    with own_model(work) as model:  # locked: another job may add a calibration to the same file
        folder = work.settings.models_dir / model.id
        write_calibrations(made, {**_kept(folder), calibration.rerank: calibration})
        flush_file(made)
        facts = describe_file(made)
        replace_file(made, folder / FILE_NAME)
        model.files = {**model.files, FILE_NAME: facts}


def _kept(folder: Path) -> dict[str, Calibration]:
    try:
        return read_calibrations(folder)
    except WeightsError as error:
        logger.warning("%s It is replaced.", error.detail)
        return {}
