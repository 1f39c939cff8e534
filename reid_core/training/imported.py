"""Trained networks from weights files of other installations: a known method's network, all of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from reid_core.backbones.weights import COUNTER, load_weights_file, read_weights_shapes
from reid_core.errors import WeightsError
from reid_core.methods.method import Method
from reid_core.network import ReidNetwork
from reid_core.settings import TrainingSettings

_SOME_CLASSES, _MORE_CLASSES = 2, 3
_NAMED = 5


def read_network(path: Path, method: Method, settings: TrainingSettings) -> tuple[ReidNetwork, int]:
    """The method's network with the weights of a safetensors file, and the number of its classes, which the file tells.

    Raises:
        WeightsError: the file cannot be read, has not every tensor of the network in its shape, or others besides, or
            numbers in it are not finite.
        SettingsError: the settings are impossible together.
    """
    shapes = read_weights_shapes(path)
    num_classes = _count_classes(shapes, method, settings)
    network = _outline(method, settings, num_classes)
    own = network.state_dict()
    _check_names(own, shapes)
    given = load_weights_file(path)
    weights = {name: given.get(name, torch.zeros(())).to(tensor.dtype) for name, tensor in own.items()}
    _check_finite(weights)
    network.load_state_dict(weights, assign=True)
    return network, num_classes


def _outline(method: Method, settings: TrainingSettings, num_classes: int) -> ReidNetwork:
    with torch.device("meta"):  # without memory
        return method.build_network(settings, num_classes)


def _count_classes(shapes: Mapping[str, Tensor], method: Method, settings: TrainingSettings) -> int:
    """The size of the first tensor in the file along the dimension that grows with the classes of the network."""
    some, more = (_outline(method, settings, count).state_dict() for count in (_SOME_CLASSES, _MORE_CLASSES))
    for name, tensor in some.items():
        grown = [place for place, size in enumerate(tensor.shape) if size != more[name].shape[place]]
        if grown and name in shapes and shapes[name].ndim == tensor.ndim:
            return max(1, shapes[name].shape[grown[0]])
    return _SOME_CLASSES


def _check_names(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    missing = [name for name in own if name not in given and not name.endswith(COUNTER)]
    other = [name for name in own if name in given and own[name].shape != given[name].shape]
    unknown = [name for name in given if name not in own]
    shapes = [f"{name} {tuple(given[name].shape)} instead of {tuple(own[name].shape)}" for name in other]
    faults = [("missing", missing), ("of another shape", shapes), ("unknown to the network", unknown)]
    told = [f"{len(names)} {what}: {_listed(names)}" for what, names in faults if names]
    if told:
        raise WeightsError(
            f"Of the network's {len(own)} tensors in the file, {'; '.join(told)}.",
            hint="Give the method and the settings that the network was trained with, backbone and strides above all.",
        )


def _check_finite(weights: Mapping[str, Tensor]) -> None:
    wrong = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if wrong:
        raise WeightsError(
            f"Numbers in {len(wrong)} tensors are not finite: {_listed(wrong)}.", hint="The training has diverged."
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
