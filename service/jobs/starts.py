"""Looking at the weights that a training would start from, before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from reid_core.backbones.weights import IMAGENET, check_imagenet_weights
from reid_core.errors import Fault, WeightsError
from reid_core.methods import find_method
from reid_core.training.initial import check_file
from service.errors import Problem
from service.jobs.kinds.plan import Resolved
from service.jobs.stages import stages_of
from service.settings import Settings

_ANY_CLASSES = 2


def check_start(settings: Settings, job: Resolved, *, ask_elsewhere: bool) -> None:
    """Raises 422 where the weights file of a training is damaged or fits another network.

    With `ask_elsewhere` also where ImageNet weights are neither in the cache nor to be had from their address, which is
    asked for them.
    """
    init_from = job.spec.get("init_from")
    try:
        if isinstance(init_from, dict):
            _check_file(job, settings.weights_dir / init_from["weights"], init_from.get("allow_missing", ()))
        elif init_from in IMAGENET and ask_elsewhere:
            check_imagenet_weights(stages_of(job.spec)[0].settings["backbone"], init_from)
    except WeightsError as error:
        pointer = "/init_from/weights" if isinstance(init_from, dict) else "/init_from"
        faults = [Fault(pointer, error.slug, error.detail)]
        raise Problem(error.slug, error.detail, hint=error.hint, errors=faults) from error


def _check_file(job: Resolved, path: Path, allow_missing: Sequence[str]) -> None:
    method = find_method(job.spec["method"])
    settings = type(method.recipe).model_validate(stages_of(job.spec)[0].settings)
    with torch.device("meta"):  # without memory
        network = method.build_network(settings, _ANY_CLASSES)
    check_file(path, network, allow_missing)
