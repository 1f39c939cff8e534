"""The weights that a training starts from: named in its spec, and looked at before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sqlalchemy.orm import Session

from reid_core.backbones.weights import IMAGENET, check_imagenet_weights
from reid_core.errors import Fault, WeightsError
from reid_core.external import EXTERNAL
from reid_core.methods import find_method
from reid_core.training.initial import FROM_IMAGENET, check_file, settings_of_file, settings_of_model
from service.db.lookup import find
from service.db.tables import Model
from service.errors import Problem, invalid_request, problem_at
from service.jobs.body_schemas import WeightsFile
from service.jobs.kinds.plan import Resolved
from service.jobs.stages import stages_of
from service.settings import Settings

_ANY_CLASSES = 2


def resolve_start(
    session: Session, settings: Settings, init_from: WeightsFile | str | None
) -> tuple[Any, Mapping[str, Any] | None]:
    """The start as a spec names it, and the settings that it implies; random weights imply none.

    Raises 422 for a file that is not there or not safetensors, 404 for an unknown model.
    """
    if isinstance(init_from, WeightsFile):
        _check_is_there(settings, init_from.weights)
        try:
            implied = settings_of_file(settings.weights_dir / init_from.weights)
        except WeightsError as error:
            raise problem_at("/init_from/weights", error) from error
        return init_from.model_dump(exclude_defaults=True), implied
    if init_from is None:
        return None, None
    if init_from in IMAGENET:
        return init_from, FROM_IMAGENET
    model = find(session, Model, init_from)
    if model.method == EXTERNAL:
        message = f"model {model.name!r} is an imported ONNX network, whose weights fit no network that is trained here"
        hint = 'Name another model, "imagenet", or weights of a backbone; it can be the teacher of a training by std.'
        raise invalid_request("/init_from", "external-model", message, hint=hint)
    return model.id, settings_of_model(model.settings)


def check_start(settings: Settings, job: Resolved) -> None:
    """Raises 422 where a weights file fits another network, or where ImageNet weights cannot be had.

    These are looked for in the cache and, where they are not there, asked for at their address.
    """
    init_from = job.spec.get("init_from")
    try:
        if isinstance(init_from, dict):
            _check_file(job, settings.weights_dir / init_from["weights"], init_from.get("allow_missing", ()))
        elif init_from in IMAGENET:
            check_imagenet_weights(stages_of(job.spec)[0].settings["backbone"], init_from)
    except WeightsError as error:
        raise problem_at("/init_from/weights" if isinstance(init_from, dict) else "/init_from", error) from error


def _check_is_there(settings: Settings, name: str) -> None:
    known = sorted(path.name for path in settings.weights_dir.glob("*") if path.is_file())
    if name not in known:
        detail = f"There is no file {name!r} in the weights folder."
        raise Problem(
            "weights-unusable",
            detail,
            hint=f"Put it there (REID_WEIGHTS_DIR), or use one of: {', '.join(known) or 'none yet'}.",
            errors=[Fault("/init_from/weights", "no-such-file", detail)],
        )


def _check_file(job: Resolved, path: Path, allow_missing: Sequence[str]) -> None:
    method = find_method(job.spec["method"])
    settings = type(method.recipe).model_validate(stages_of(job.spec)[0].settings)
    with torch.device("meta"):  # without memory
        network = method.build_network(settings, _ANY_CLASSES)
    check_file(path, network, allow_missing)
