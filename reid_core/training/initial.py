"""The first weights of a network: torchvision's ImageNet weights, a file, or another model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from reid_core.backbones import GlobalBackboneName
from reid_core.backbones.instance_norm import find_instance_norm
from reid_core.backbones.names import translate
from reid_core.backbones.weights import (
    Transfer,
    copy_matching,
    download_imagenet_weights,
    load_backbone_weights,
    load_weights_file,
    read_weights_shapes,
)
from reid_core.errors import WeightsError
from reid_core.model import load_model_weights
from reid_core.retrieval.store import file_sha256

Initialise = Callable[[nn.Module], Transfer]

FROM_IMAGENET: Mapping[str, Any] = {"normalisation": "imagenet", "instance_norm": "none"}
"""The settings of a network with torchvision's weights."""

_OF_NETWORK = ("normalisation", "instance_norm", "neck_norm")
"""The settings of a network without which its weights mean something else."""


def settings_of_file(path: Path) -> dict[str, Any]:
    """The settings of the network whose weights the file holds: those of ImageNet's, with the layers that it names."""
    names = set(translate(read_weights_shapes(path)).values())
    return {**FROM_IMAGENET, "instance_norm": find_instance_norm(names)}


def settings_of_model(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a model's settings that go with its weights; it has instance normalisation only where it says so."""
    return {"instance_norm": "none"} | {name: settings[name] for name in _OF_NETWORK if name in settings}


def from_imagenet(backbone: GlobalBackboneName, name: str = "imagenet") -> Initialise:
    """torchvision's ImageNet weights, `name` as in `IMAGENET`, into the network's backbone."""

    def initialise(network: nn.Module) -> Transfer:
        weights, file = download_imagenet_weights(backbone, name)
        transfer = load_backbone_weights(network.get_submodule("backbone"), weights, source=f"The file {file.name!r}")
        return replace(transfer, file=file.name, sha256=file_sha256(file))

    return initialise


def from_file(path: Path, allow_missing: Sequence[str] = ()) -> Initialise:
    """Backbone weights from a safetensors file; parameters that begin with one of `allow_missing` may be missing."""

    def initialise(network: nn.Module) -> Transfer:
        backbone, weights = network.get_submodule("backbone"), load_weights_file(path)
        transfer = load_backbone_weights(backbone, weights, source=repr(path.name), allow_missing=allow_missing)
        return replace(transfer, file=path.name, sha256=file_sha256(path))

    return initialise


def check_file(path: Path, network: nn.Module, allow_missing: Sequence[str] = ()) -> None:
    """Raises WeightsError where `from_file` would; `network` may be without memory (device `meta`)."""
    backbone, weights = network.get_submodule("backbone"), read_weights_shapes(path)
    load_backbone_weights(backbone, weights, source=repr(path.name), allow_missing=allow_missing)


def from_model(folder: Path) -> Initialise:
    """Takes all weights of another model that have the same name and shape; a classifier of another size is made anew.

    Raises (when called):
        WeightsError: nothing of the model fits.
    """

    return lambda network: _copy(load_model_weights(folder), network)


def from_network(trained: nn.Module) -> Initialise:
    """The same of a network that is at hand."""
    return from_weights(trained.state_dict())


def from_weights(weights: Mapping[str, Tensor]) -> Initialise:
    """The same of tensors by their names."""
    return lambda network: _copy(weights, network)


def _copy(weights: Mapping[str, Tensor], network: nn.Module) -> Transfer:
    transfer = copy_matching(network, weights)
    if not transfer.taken:
        raise WeightsError(
            "Nothing of the given model fits this network.", hint="Start from a model of the same backbone."
        )
    return transfer
