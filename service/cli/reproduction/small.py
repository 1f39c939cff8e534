"""The small run: settings that let an experiment end in minutes on two processor cores.

They are this project's, not a paper's, and stand in this one place. What an experiment varies overrides them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BACKBONE = "mobilenet_v2"
_IMAGE = {"height": 128, "width": 64}
_BATCH = {"identities": 8, "images_per_identity": 4}

_FINETUNE: dict[str, Any] = {"batch": {"size": 16}, "schedule": {"epochs": 8}}
_BNNECK: dict[str, Any] = {
    "batch": _BATCH,
    "augmentation": {"padding": 5},
    "schedule": {"epochs": 8, "base_lr": 1e-3, "warmup": 0.1, "decay_at": [0.6, 0.85]},
}
_MATCHER: dict[str, Any] = {
    "last_stride": 1,
    "batch": _BATCH,
    "augmentation": {"padding": 6},
    "gradient_clip": 8,
    "schedule": {"epochs": 4, "base_lr": 0.01},
}

_OF_METHOD: dict[str, dict[str, Any]] = {
    "bnneck": _BNNECK,
    "bnneck-camera": _BNNECK,
    # A class memory needs many small steps.
    "qaconv": _MATCHER | {"batch": {"size": 8}, "schedule": {"epochs": 12, "base_lr": 0.005}},
    "qaconv-pk": _MATCHER,
    "qaconv-gs": _MATCHER,
    # Six stripes need a map whose height is divisible by six.
    "pyramid": {"image": {"height": 192, "width": 64}, "batch": _BATCH, "schedule": {"epochs": 8}},
    "mgn": {"image": {"height": 192, "width": 64}, "schedule": {"epochs": 8}},
    "ptl-mgn": {"image": {"height": 192, "width": 64}, "schedule": {"epochs": 8}},
}


def small_settings(method: str, backbone: str) -> dict[str, Any]:
    """What a training of the method is given beside its experiment's own settings."""
    common = {"backbone": backbone, "image": _IMAGE, "normalisation": "imagenet"}
    if method == "std":
        return {"backbone": backbone, **_FINETUNE}  # sees images as its teacher does
    return common | _OF_METHOD.get(method, _FINETUNE)


def merge(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the changes, which may be partial at any depth."""
    merged = dict(settings)
    for name, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = merge(merged[name], value) if nested else value
    return merged
