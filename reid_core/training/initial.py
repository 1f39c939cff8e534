"""The first weights of a network: torchvision's ImageNet weights, a file, or another model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from reid_core.backbones import BackboneName
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

Initialise = Callable[[nn.Module], Transfer]


def from_imagenet(backbone: BackboneName) -> Initialise:
    """torchvision's ImageNet weights into the network's backbone."""
    return lambda network: load_backbone_weights(
        network.get_submodule("backbone"), download_imagenet_weights(backbone), source="torchvision's ImageNet weights"
    )


def from_file(path: Path) -> Initialise:
    """Backbone weights from a safetensors file with torchvision's parameter names."""
    return lambda network: load_backbone_weights(
        network.get_submodule("backbone"), load_weights_file(path), source=repr(path.name)
    )


def check_file(path: Path, network: nn.Module) -> None:
    """Raises WeightsError where `from_file` would; `network` may be without memory (device `meta`)."""
    load_backbone_weights(network.get_submodule("backbone"), read_weights_shapes(path), source=repr(path.name))


def from_model(folder: Path) -> Initialise:
    """Takes all weights of another model that have the same name and shape; a classifier of another size is made anew.

    Raises (when called):
        WeightsError: nothing of the model fits.
    """

    return lambda network: _copy(load_model_weights(folder), network)


def from_network(trained: nn.Module) -> Initialise:
    """The same of a network that is at hand."""
    return lambda network: _copy(trained.state_dict(), network)


def _copy(weights: Mapping[str, Tensor], network: nn.Module) -> Transfer:
    transfer = copy_matching(network, weights)
    if not transfer.taken:
        raise WeightsError(
            "Nothing of the given model fits this network.", hint="Start from a model of the same backbone."
        )
    return transfer
