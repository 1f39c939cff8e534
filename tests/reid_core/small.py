"""Settings of trainings that take seconds."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, Any] = {
    "backbone": "resnet18",
    "image": {"height": 32, "width": 16},
    "batch": {"identities": 4, "images_per_identity": 3},
    "schedule": {"epochs": 4, "base_lr": 2e-3, "warmup": 0.0, "decay_at": []},
    "augmentation": {"padding": 1},
    "precision": "fp32",
}
