"""The publication of a trained network: its files by a rename of their folder, and its row."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reid_core.data.records import ImageRecord
from reid_core.engines.publishing import Published, publish_engine
from reid_core.methods.method import Method
from reid_core.model import Manifest, save_model
from reid_core.settings import TrainingSettings
from reid_core.training.loop import Result
from reid_core.training.warnings import TrainingWarning
from service.db.tables import Dataset, Model
from service.jobs.recording import progress_as_json
from service.models.engines import engine_of_row
from service.models.lifecycle import describe_file
from service.storage import publish_folder
from worker.work import Work

logger = logging.getLogger(__name__)


def make_model(
    work: Work, method: Method, settings: TrainingSettings, result: Result, images: Sequence[ImageRecord]
) -> tuple[Path, Manifest, Published]:
    """Writes the network and its engine, compared on some of the images, into a folder of the job."""
    work.reporter.progress(progress_as_json(1.0, "publish"))
    making = work.folder / "model"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    manifest = save_model(
        making,
        result.network,
        method=method.name,
        settings=settings,
        num_classes=result.num_classes,
        preprocessing=result.preprocessing,
    )
    return making, manifest, publish_engine(making, [image.path for image in images], work.settings.engine)


def publish_model(work: Work, making: Path, manifest: Manifest, engine: Published, lineage: dict[str, Any]) -> Model:
    """Renames the folder to the model's own; the row of the model, which is to be added with the job's end."""
    model_id = f"mdl_{work.job.id.removeprefix('job_')}"
    folder = work.settings.models_dir / model_id
    # An attempt that was lost between its rename and its row has left a folder.
    shutil.rmtree(folder, ignore_errors=True)
    publish_folder(making, folder)
    return Model(
        id=model_id,
        name=work.job.spec["model_name"] or f"{manifest.method}-{model_id[-8:]}",
        method=manifest.method,
        settings=dict(manifest.settings),
        lineage=lineage,
        embedding_size=manifest.embedding_size,
        preprocessing=manifest.preprocessing.as_json(),
        files={path.name: describe_file(path) for path in sorted(folder.iterdir())},
        engine=engine_of_row(engine),
        job_id=work.job.id,
    )


def engine_warnings(work: Work, engine: Published, *, stage: int) -> list[TrainingWarning]:
    """Warns where the model is published with PyTorch because another engine gives something else."""
    if not engine.refused:
        return []
    hint = "PyTorch runs the model, as exactly and slower. REID_ENGINE=torch publishes models so without a warning."
    warning = TrainingWarning("engine-refused", str(engine.reason), hint, stage)
    warn(work, warning)
    return [warning]


def warn(work: Work, warning: TrainingWarning) -> None:
    """Writes the warning to the job's log and events."""
    logger.warning("%s %s", warning.detail, warning.hint)
    work.reporter.event("warning", asdict(warning))


def describe_origin(row: Dataset, part: str) -> dict[str, Any]:
    """A data set in a model's lineage: its name and fingerprint, and the part of it that was trained on."""
    protocol = (row.report or {}).get("protocol")
    return {"id": row.id, "name": row.name, "fingerprint": row.fingerprint, "split": part, "protocol": protocol}
