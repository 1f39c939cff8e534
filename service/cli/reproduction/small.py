"""The small run: settings that let an experiment end in minutes on two processor cores.

They are this project's, not a paper's, and stand in this one place. What an experiment varies overrides them.
"""

from __future__ import annotations

from typing import Any

BACKBONE = "mobilenet_v2"
_IMAGE = {"height": 128, "width": 64}
_TALL = {"height": 192, "width": 64}
"""Six stripes need a map whose height is divisible by six."""

_BNNECK: dict[str, Any] = {"augmentation": {"padding": 5}, "schedule": {"epochs": 8}}
_FINETUNE: dict[str, Any] = {"schedule": {"epochs": 8}}
_MATCHER: dict[str, Any] = {"last_stride": 1, "augmentation": {"padding": 6}, "schedule": {"epochs": 4}}

_OF_METHOD: dict[str, dict[str, Any]] = {
    "bnneck": _BNNECK,
    "bnneck-camera": _BNNECK,
    # A class memory needs many small steps.
    "qaconv": _MATCHER | {"schedule": {"epochs": 12}},
    "qaconv-pk": _MATCHER,
    "qaconv-gs": _MATCHER,
    "pyramid": {"image": _TALL, "parts": 6, "levels": "111111", "schedule": {"epochs": 8}},
    "mgn": {"image": _TALL, "schedule": {"epochs": 8}},
    "ptl-mgn": {"image": _TALL, "schedule": {"epochs": 8}},
}


def small_settings(method: str, backbone: str) -> dict[str, Any]:
    """The settings of the method's trainings beside those of their experiment."""
    chosen = {"preset": "small", "backbone": backbone, **_OF_METHOD.get(method, _FINETUNE)}
    if method == "std":
        return chosen  # sees images as its teacher does
    return {"image": _IMAGE, "normalisation": "imagenet"} | chosen
