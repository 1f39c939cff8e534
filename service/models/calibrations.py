"""Calibrations of models, as their folders keep them; read again only where the file has changed."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

from reid_core.calibration.folds import HeldOutFit
from reid_core.calibration.record import FILE_NAME, Calibration, read_calibrations
from reid_core.errors import WeightsError
from service.settings import Settings

log = logging.getLogger(__name__)

_KEPT = 64


def calibrations_of(settings: Settings, model_id: str) -> dict[str, Calibration]:
    """The model's calibrations by their way of re-ranking; raises WeightsError where their file is damaged."""
    folder = settings.models_dir / model_id
    try:
        found = (folder / FILE_NAME).stat()
    except OSError:
        return {}
    return _read(folder, found.st_mtime_ns, found.st_ino)


def describe_calibrations(settings: Settings, model_id: str) -> list[dict[str, Any]]:
    """The model's calibrations as clients see them; none of a damaged file, which the log names."""
    try:
        kept = calibrations_of(settings, model_id)
    except WeightsError as error:
        log.warning("calibrations of model %s are not shown: %s", model_id, error.detail)
        return []
    return [
        {
            "rerank": rerank,
            "persons": _describe(calibration.persons) if calibration.persons else None,
            "fitted_on": dict(calibration.fitted_on),
            **_describe(calibration.fit),
        }
        for rerank, calibration in sorted(kept.items())
    ]


def _describe(fit: HeldOutFit) -> dict[str, Any]:
    value = fit.as_json()
    shown = ("log_loss", "expected_calibration_error", "reliability")
    return {"kind": fit.curve.kind, **{name: value[name] for name in shown}}


@lru_cache(_KEPT)
def _read(folder: Path, changed: int, inode: int) -> dict[str, Calibration]:
    """`changed` and `inode` tell one file from the next, which takes its place whole."""
    return read_calibrations(folder)
