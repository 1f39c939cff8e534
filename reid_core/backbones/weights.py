"""Pretrained weights for a backbone: from torchvision's own download or from a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

from reid_core.backbones import BackboneName
from reid_core.errors import WeightsError


@dataclass(frozen=True, slots=True)
class Transfer:
    """What was taken from given weights and what was not, by parameter name."""

    taken: tuple[str, ...]
    left_out: tuple[str, ...]
    """Given, but the network has no such parameter (a classifier, say)."""
    kept: tuple[str, ...]
    """In the network, but not given or of another shape: still as initialised."""


def load_weights_file(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file. Pickled checkpoints are refused: unpickling runs code of whoever wrote them."""
    if not path.is_file():
        raise WeightsError(
            f"There is no weights file {path.name!r}.", hint="Put the .safetensors file into the weights folder."
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path.name!r} is not a safetensors file: {error}.",
            hint="Convert it with safetensors.torch.save_file; .pth and .pt files are never unpickled here.",
        ) from error


def download_imagenet_weights(backbone: BackboneName) -> dict[str, Tensor]:
    """torchvision's default ImageNet weights, from its cache or its own download."""
    weights = models.get_model_weights(backbone).DEFAULT
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"ImageNet weights for {backbone!r} could not be fetched: {error}.",
            hint='Put them as .safetensors into the weights folder and use init_from {"weights": "<file name>"}.',
        ) from error


def load_backbone_weights(backbone: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> Transfer:
    """Loads torchvision-named `weights` into the backbone; every parameter of the backbone must be among them.

    Raises:
        WeightsError: a parameter is missing or of another shape.
    """
    transfer = copy_matching(backbone, weights)
    missing = [name for name in transfer.kept if not name.endswith("num_batches_tracked")]
    if missing:
        raise WeightsError(
            f"{source} does not fit this backbone: {len(missing)} of its {len(backbone.state_dict())} tensors are "
            f"missing or of another shape, first {missing[0]!r}; the file has {sorted(weights)[:3]}.",
            hint="Choose the backbone the weights were made for, with torchvision's parameter names.",
        )
    return transfer


def copy_matching(module: nn.Module, weights: Mapping[str, Tensor]) -> Transfer:
    """Copies every tensor of `weights` that the module has under the same name and shape, and says which."""
    own = module.state_dict()
    taken = [name for name, tensor in own.items() if name in weights and weights[name].shape == tensor.shape]
    with torch.no_grad():
        for name in taken:
            own[name].copy_(weights[name])
    return Transfer(
        taken=tuple(taken),
        left_out=tuple(sorted(set(weights) - set(own))),
        kept=tuple(name for name in own if name not in set(taken)),
    )
