"""Pretrained weights for a backbone: from torchvision's own download or from a safetensors file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.request import Request, urlopen

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models

from reid_core.backbones import GLOBAL_BACKBONES, GlobalBackboneName, build_global_backbone
from reid_core.backbones.instance_norm import INSERTED
from reid_core.backbones.names import translate
from reid_core.errors import WeightsError

_SHARED = re.compile(r"\b(trunk|tails\.\d+)\.")
"""The prefixes that `BranchedBackbone` puts before the names of the backbone's own parameters."""

IMAGENET = {"imagenet": "IMAGENET1K_V1", "imagenet-v2": "IMAGENET1K_V2"}
"""Names of ImageNet weights -> torchvision's. All papers here were made from the first version or its like."""

_INSERTED_NAME = re.compile(r"\.(instance|batch)\.")
"""Names of the layers that instance_norm.py inserts."""

_ANSWER_SECONDS = 10.0

COUNTER = "num_batches_tracked"
"""The counter of batch normalisation; old files lack it and nothing depends on it."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """The parameters that given weights filled and did not fill, by name."""

    taken: tuple[str, ...]
    left_out: tuple[str, ...]
    """Given, but the network has no such parameter (a classifier, say)."""
    kept: tuple[str, ...]
    """Parameters of the network that are not given or of another shape: still as initialised."""
    renamed: tuple[str, ...] = ()
    """Those of the given that another project had named, by its names."""
    file: str = ""
    sha256: str = ""


def load_weights_file(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file. Pickled checkpoints are refused: unpickling runs code of whoever wrote them."""
    with _naming_faults(path):
        return load_file(path)


def read_weights_shapes(path: Path) -> dict[str, Tensor]:
    """Tensors without memory (device `meta`) of the names and shapes in a safetensors file; reads its header alone."""
    with _naming_faults(path), safe_open(path, framework="pt") as file:
        return {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in file.keys()}  # noqa: SIM118


@contextmanager
def _naming_faults(path: Path) -> Iterator[None]:
    if not path.is_file():
        raise WeightsError(
            f"There is no weights file {path.name!r}.", hint="Put the .safetensors file into the weights folder."
        )
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path.name!r} is not a safetensors file: {error}.",
            hint="Convert it with safetensors.torch.save_file; .pth and .pt files are never unpickled here.",
        ) from error


def download_imagenet_weights(backbone: GlobalBackboneName, name: str) -> tuple[dict[str, Tensor], Path]:
    """The ImageNet weights called `name` in `IMAGENET` and their file, from torchvision's cache or its own download."""
    weights = _imagenet_weights(backbone, name)
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True)), _cached(weights)
    except (OSError, RuntimeError) as error:
        raise _not_fetched(backbone, error) from error


def check_imagenet_weights(backbone: GlobalBackboneName, name: str) -> None:
    """Raises WeightsError where `download_imagenet_weights` finds them neither in its cache nor at their address."""
    weights = _imagenet_weights(backbone, name)
    if _cached(weights).is_file():
        return
    try:
        with urlopen(Request(weights.url, method="HEAD"), timeout=_ANSWER_SECONDS):  # noqa: S310  torchvision's https
            pass
    except OSError as error:
        raise _not_fetched(backbone, error) from error


def _imagenet_weights(backbone: GlobalBackboneName, name: str) -> models.WeightsEnum:
    known = models.get_model_weights(backbone).__members__
    if IMAGENET[name] not in known:
        raise WeightsError(
            f"torchvision has no {IMAGENET[name]} weights of {backbone!r}.",
            hint=f"It has {', '.join(own for own, theirs in IMAGENET.items() if theirs in known)}.",
        )
    return known[IMAGENET[name]]


def _cached(weights: models.WeightsEnum) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(weights.url).name


def _not_fetched(backbone: GlobalBackboneName, error: Exception) -> WeightsError:
    return WeightsError(
        f"ImageNet weights for {backbone!r} could not be fetched: {error}.",
        hint='Put them as .safetensors into the weights folder and use init_from {"weights": "<file name>"}; or start '
        "from a model; or from random weights, init_from null.",
    )


def find_backbone(weights: Mapping[str, Tensor], *, source: str) -> GlobalBackboneName:
    """The largest backbone whose parameters all are among torchvision-named `weights`; small ones are parts of others.

    Raises:
        WeightsError: they are of none.
    """
    names = translate(weights)
    shapes = {names[name]: tensor.shape for name, tensor in weights.items()}
    fitting: dict[GlobalBackboneName, int] = {}
    for name in GLOBAL_BACKBONES:
        with torch.device("meta"):
            own = build_global_backbone(name, last_stride=2).state_dict()
        if all(shapes.get(key) == tensor.shape for key, tensor in own.items() if not key.endswith(COUNTER)):
            fitting[name] = len(own)
    if fitting:
        return max(fitting, key=lambda name: fitting[name])
    raise WeightsError(
        f"{source} fits none of our backbones.",
        hint=f"Use torchvision's weights and parameter names of one of {', '.join(GLOBAL_BACKBONES)}.",
    )


def load_backbone_weights(
    backbone: nn.Module, weights: Mapping[str, Tensor], *, source: str, allow_missing: Sequence[str] = ()
) -> Transfer:
    """Loads `weights`, in the names of any project that `translate` knows, into the backbone.

    Every parameter of the backbone must be among them, but for those that begin with one of `allow_missing`, and for
    inserted instance normalisation where the weights have none at all: these stay as initialised. Weights with such
    layers are refused by a backbone without them.

    Raises:
        WeightsError: a parameter is missing, of another shape, or of a layer that the backbone has not.
    """
    names = translate(weights)
    transfer = copy_matching(backbone, {names[name]: tensor for name, tensor in weights.items()})
    _refuse_foreign_layers(transfer, source)
    inserted = tuple(name for name, module in backbone.named_modules() if isinstance(module, INSERTED))
    fresh = () if any(map(_INSERTED_NAME.search, names.values())) else inserted
    fine = (*fresh, *allow_missing)
    missing = [name for name in transfer.kept if not name.endswith(COUNTER) and not name.startswith(fine)]
    if missing:
        raise WeightsError(
            f"{source} does not fit this backbone: {len(missing)} of its {len(backbone.state_dict())} tensors are "
            f"missing or of another shape, first {missing[0]!r}; the file has {sorted(weights)[:3]}.",
            hint="Choose the backbone the weights were made for, or name in allow_missing what may start at random.",
        )
    taken = set(transfer.taken)
    return replace(transfer, renamed=tuple(name for name, ours in names.items() if ours != name and ours in taken))


def _refuse_foreign_layers(transfer: Transfer, source: str) -> None:
    foreign = [name for name in transfer.left_out if _INSERTED_NAME.search(name)]
    if foreign:
        raise WeightsError(
            f"{source} has instance normalisation that this backbone lacks: {len(foreign)} tensors, "
            f"first {foreign[0]!r}.",
            hint="Choose the instance_norm that the weights were made with: ibn-a or ibn-b.",
        )


def copy_matching(module: nn.Module, weights: Mapping[str, Tensor]) -> Transfer:
    """Copies every tensor of `weights` that the module has under the same name and shape, and says which.

    The branches of a `BranchedBackbone` each take the unbranched backbone's, where not given themselves.
    """
    own = module.state_dict()
    sources = {name: name if name in weights else _SHARED.sub("", name) for name in own}
    taken = [name for name, source in sources.items() if source in weights and weights[source].shape == own[name].shape]
    with torch.no_grad():
        for name in taken:
            own[name].copy_(weights[sources[name]])
    return Transfer(
        taken=tuple(taken),
        left_out=tuple(sorted(set(weights) - set(sources.values()))),
        kept=tuple(name for name in own if name not in set(taken)),
    )
