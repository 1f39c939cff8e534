"""Engines of models: what came of publishing one, as its row keeps it and as clients are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reid_core.engines import FROM_BEFORE
from reid_core.external import EXTERNAL
from service.db.tables import Model
from service.settings import Settings

if TYPE_CHECKING:  # brings PyTorch
    from reid_core.engines.publishing import Published

_SHOWN = ("name", "precision", "difference", "images", "reason")


def engine_of_row(published: Published) -> dict[str, Any]:
    """The engine as the model's row keeps it: name, precision, difference, images and reason of `published`."""
    return {name: getattr(published, name) for name in _SHOWN}


def describe_engine(model: Model, settings: Settings) -> dict[str, Any]:
    """The engine that runs the model's network on CPUs under these settings, in the words of its row."""
    published = model.engine or _torch(FROM_BEFORE)
    if model.method == EXTERNAL:
        return published
    if settings.engine == "torch":
        return _torch("REID_ENGINE=torch")
    if settings.device.startswith("cuda"):
        return _torch(f"REID_DEVICE={settings.device}")
    if settings.engine not in ("auto", published["name"]):
        return published | {"reason": f"REID_ENGINE={settings.engine}, for which it has no file: it cannot be used"}
    return published


def _torch(reason: str) -> dict[str, Any]:
    return {"name": "torch", "precision": None, "difference": None, "images": 0, "reason": reason}
