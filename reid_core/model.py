"""A trained model on disk: a folder with safetensors weights and a manifest that says how to use them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from reid_core.data.preprocessing import Preprocessing, preprocessing_from_json
from reid_core.devices import resolve_dtype
from reid_core.errors import WeightsError
from reid_core.external import EXTERNAL, NETWORK_NAME
from reid_core.external.checking import Facts
from reid_core.external.network import ExternalNetwork
from reid_core.matching import FoldedHead
from reid_core.methods import METHODS, find_method
from reid_core.network import ReidNetwork
from reid_core.retrieval.encoder import Encoder, torch_encoder
from reid_core.retrieval.store import file_sha256
from reid_core.settings import Precision, TrainingSettings

WEIGHTS_NAME = "weights.safetensors"
MANIFEST_NAME = "manifest.json"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """The description of a model: the method and settings that built it, its input and its output.

    `map_shape` is the (h, w, c) of the local features by which it matches pairs; None for a method that does not. Of
    an external network the method is `external`, and `settings` are the facts that its check found.
    """

    method: str
    settings: Mapping[str, Any]
    num_classes: int
    embedding_size: int
    map_shape: tuple[int, int, int] | None
    preprocessing: Preprocessing
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A loaded model, its network in evaluation mode on its device; `settings` are None of an external one."""

    manifest: Manifest
    settings: TrainingSettings | None
    network: ReidNetwork
    device: torch.device

    def matching_head(self) -> FoldedHead | None:
        """Returns the scorer of pairs of local features; None for a method that does not match by them."""
        method = METHODS.get(self.manifest.method)
        fold = method.matching_head if method else None
        return fold(self.network) if fold else None

    def encoder(self, *, flip_average: bool | None = None) -> Encoder:
        """Images to this model's embeddings, in the precision that its settings and the device call for.

        `flip_average` stands in for what the manifest says of it; None leaves that.
        """
        preprocessing = self.manifest.preprocessing
        if flip_average is not None:
            preprocessing = replace(preprocessing, flip_average=flip_average)
        return torch_encoder(self.network, preprocessing, self.device, self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The arithmetic that PyTorch runs the network in on its device."""
        if self.settings is None:
            return torch.float32
        # fp16 and bf16 are not for every device; a model trained in them is served anywhere.
        precision: Precision = "fp32" if self.settings.precision == "fp32" else "auto"
        return resolve_dtype(precision, self.device, self.settings.backbone, self.settings.image.width)


def save_model(
    folder: Path,
    network: ReidNetwork,
    *,
    method: str,
    settings: TrainingSettings,
    num_classes: int,
    preprocessing: Preprocessing,
) -> Manifest:
    """Writes weights and manifest into an existing folder."""
    weights = folder / WEIGHTS_NAME
    save_file({name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}, weights)
    manifest = Manifest(
        method=method,
        settings=settings.model_dump(mode="json"),
        num_classes=num_classes,
        embedding_size=network.embedding_size,
        map_shape=network.map_shape,
        preprocessing=preprocessing,
        weights_sha256=file_sha256(weights),
    )
    _write_manifest(folder, manifest)
    return manifest


def save_external_model(folder: Path, facts: Facts, preprocessing: Preprocessing) -> Manifest:
    """Writes the manifest of the network that lies as `NETWORK_NAME` in the folder; `facts` are its check's."""
    manifest = Manifest(
        method=EXTERNAL,
        settings=asdict(facts),
        num_classes=0,
        embedding_size=facts.embedding_size,
        map_shape=None,
        preprocessing=preprocessing,
        weights_sha256=file_sha256(folder / NETWORK_NAME),
    )
    _write_manifest(folder, manifest)
    return manifest


def load_model(folder: Path, device: torch.device) -> TrainedModel:
    """The model in `folder`, ready to embed.

    Raises:
        WeightsError: a file is missing, damaged, or does not fit the manifest.
    """
    manifest = read_manifest(folder)
    if manifest.method == EXTERNAL:
        return TrainedModel(manifest, None, _load_external(folder, manifest), device)
    method = find_method(manifest.method)
    settings = type(method.recipe).model_validate(manifest.settings)
    network = method.build_network(settings, manifest.num_classes)
    try:
        network.load_state_dict(load_model_weights(folder))
    except RuntimeError as error:
        raise WeightsError(f"The weights do not fit the manifest: {error}.", hint="Train the model again.") from error
    network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return TrainedModel(manifest, settings, network, device)


def load_model_weights(folder: Path) -> dict[str, Tensor]:
    """The model's tensors by name, after their checksum was compared with the manifest's."""
    manifest = read_manifest(folder)
    with _checked_file(folder, manifest) as path:
        return load_file(path)


def weights_name(method: str) -> str:
    """The name of the file that holds the weights of a model of that method."""
    return NETWORK_NAME if method == EXTERNAL else WEIGHTS_NAME


def _load_external(folder: Path, manifest: Manifest) -> ReidNetwork:
    with _checked_file(folder, manifest) as path:
        return ExternalNetwork(path, manifest.settings["output"], manifest.embedding_size).eval()


@contextmanager
def _checked_file(folder: Path, manifest: Manifest) -> Iterator[Path]:
    """The file of the weights, after its checksum was compared; `WeightsError` where it cannot be read."""
    path = folder / weights_name(manifest.method)
    try:
        if file_sha256(path) != manifest.weights_sha256:
            raise WeightsError("The model's weights do not match their checksum.", hint="Restore the file or retrain.")
        yield path
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"The model's weights cannot be read: {error}.", hint="Restore the file or retrain."
        ) from error


def read_manifest(folder: Path) -> Manifest:
    """The manifest in `folder`."""
    try:
        value = json.loads((folder / MANIFEST_NAME).read_text())
        return Manifest(
            method=value["method"],
            settings=value["settings"],
            num_classes=value["num_classes"],
            embedding_size=value["embedding_size"],
            map_shape=tuple(value["map_shape"]) if value.get("map_shape") else None,
            preprocessing=preprocessing_from_json(value["preprocessing"]),
            weights_sha256=value["weights_sha256"],
        )
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"The model's manifest cannot be read: {error}.", hint="Restore it or retrain.") from error


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST_NAME).write_text(json.dumps(_as_json(manifest), indent=2))


def _as_json(manifest: Manifest) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "method": manifest.method,
        "settings": manifest.settings,
        "num_classes": manifest.num_classes,
        "embedding_size": manifest.embedding_size,
        "map_shape": manifest.map_shape,
        "preprocessing": manifest.preprocessing.as_json(),
        "weights_sha256": manifest.weights_sha256,
    }
