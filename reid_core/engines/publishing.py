"""Publishing: a model's serving file is written beside its weights, and kept only if it agrees with PyTorch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from reid_core.engines import DEFAULT_ENGINE, FROM_BEFORE, IMPORTED, EngineChoice, EngineName, Precision
from reid_core.engines.agreement import LIMIT, ImageSource, compare
from reid_core.engines.files import FORMATS, FileEngine, failures_of
from reid_core.engines.image_network import ImageNetwork
from reid_core.errors import ExportFailed, WeightsError
from reid_core.external import EXTERNAL
from reid_core.model import TrainedModel, load_model, read_manifest
from reid_core.retrieval.encoder import Encoder, TorchEngine
from reid_core.retrieval.store import file_sha256

RECORD_NAME = "engine.json"
COMPARED_IMAGES = 16

_BF16_MARGIN = 2
"""An engine in bf16 may be twice as far from float32 as PyTorch is in bf16: both round alike, at other places."""


@dataclass(frozen=True, slots=True)
class Published:
    """The engine that a model was published with.

    Attributes:
        name: what runs the network on CPUs.
        precision: its arithmetic on CPUs that have units for it; elsewhere float32.
        difference: the largest distance of its embeddings (and maps) from PyTorch's in float32, over `images`; None
            where nothing was compared.
        reason: why it is PyTorch, or none of ours.
        refused: true if another engine was to run it but failed or differed; `reason` says how.
        files: {name: SHA-256} of the serving files.
    """

    name: EngineName
    precision: Precision | None = None
    difference: float | None = None
    images: int = 0
    reason: str | None = None
    refused: bool = False
    files: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"files": dict(self.files)}


def publish_engine(folder: Path, images: Sequence[ImageSource], asked: EngineChoice) -> Published:
    """Writes the serving file of the model in `folder`, compared on some of `images`, and the record of that.

    The record says PyTorch, and no serving file is left, where the engine fails or its results are too far away: see
    `LIMIT` for float32. In bf16, which it takes where PyTorch would, see `_BF16_MARGIN`; beyond that it takes float32.
    """
    if read_manifest(folder).method == EXTERNAL:
        published = Published("onnxruntime", reason=IMPORTED)
    elif asked == "torch":
        published = Published("torch", reason="REID_ENGINE was torch when it was published")
    else:
        published = _publish(folder, images, DEFAULT_ENGINE if asked == "auto" else asked)
    (folder / RECORD_NAME).write_text(json.dumps(published.as_json(), indent=2))
    return published


def read_published(folder: Path) -> Published:
    """The record in the model's folder; PyTorch where there is none.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        return Published(**json.loads((folder / RECORD_NAME).read_text()))
    except FileNotFoundError:
        external = read_manifest(folder).method == EXTERNAL
        return Published("onnxruntime", reason=IMPORTED) if external else Published("torch", reason=FROM_BEFORE)
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"The record of the model's engine cannot be read: {error}.", hint="Restore it.") from error


def _publish(folder: Path, images: Sequence[ImageSource], name: EngineName) -> Published:
    model, files = load_model(folder, torch.device("cpu")), [folder / file for file in FORMATS[name].names]
    try:
        with failures_of(name):
            FORMATS[name].write(_one_look(model), model.manifest.preprocessing, files[0])
            published = _compare(model, name, files[0], images[:: max(1, len(images) // COMPARED_IMAGES)])
    except ExportFailed as error:
        for file in files:
            file.unlink(missing_ok=True)
        return Published("torch", reason=error.detail, refused=True)
    return replace(published, files={file.name: file_sha256(file) for file in files})


def _one_look(model: TrainedModel) -> ImageNetwork:
    """The network without mirror images: these are the encoder's, which runs the file twice."""
    preprocessing = replace(model.manifest.preprocessing, flip_average=False)
    return ImageNetwork(model.network, preprocessing, with_maps=model.manifest.map_shape is not None)


def _compare(model: TrainedModel, name: EngineName, file: Path, images: Sequence[ImageSource]) -> Published:
    preprocessing, images = model.manifest.preprocessing, images[:COMPARED_IMAGES]

    def in_torch(dtype: torch.dtype) -> Encoder:
        return Encoder(TorchEngine(model.network, preprocessing, model.device, dtype), preprocessing)

    def in_engine(precision: Precision) -> Encoder:
        return Encoder(FileEngine(FORMATS[name].open(file, precision, torch.get_num_threads())), preprocessing)

    rounds = name == "openvino" and model.dtype == torch.bfloat16
    others = [in_engine("fp32"), *([in_engine("bf16"), in_torch(torch.bfloat16)] if rounds else [])]
    exact, *rounded = (
        agreement.farthest
        for agreement in compare(
            in_torch(torch.float32), others, images, with_maps=model.manifest.map_shape is not None
        )
    )
    if not exact <= LIMIT:  # NaN is not
        raise ExportFailed(
            f"What {name} gives is up to {exact:.2g} away from PyTorch on {len(images)} images; {LIMIT:g} is allowed."
        )
    if rounded and rounded[0] <= _BF16_MARGIN * rounded[1]:
        return Published(name, "bf16", rounded[0], len(images))
    return Published(name, "fp32", exact, len(images))
