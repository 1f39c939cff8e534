"""Models for other runtimes: ONNX and OpenVINO files that take images and give what this service's search compares.

Scaling, mean and standard deviation are inside the file, so they cannot be forgotten or done twice, and so are the
mirror image of `flip_average` and the division by length. A file that does not agree with PyTorch is not kept.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from reid_core.data.preprocessing import Preprocessing, open_image
from reid_core.data.tensors import normalise, resize
from reid_core.errors import ExportFailed
from reid_core.external.network import ExternalNetwork
from reid_core.external.packing import write_packed
from reid_core.external.runtime import import_onnxruntime
from reid_core.model import TrainedModel
from reid_core.retrieval.encoder import Encoder, Encoding, average_flipped

Format = Literal["onnx", "openvino"]
INPUT, OUTPUTS = "pictures", ("embeddings", "maps")

_LIMIT = 1e-3
"""The largest distance between both embeddings of an image, or both vectors of a location: cosines agree to 0.002."""

_BATCHES = (1, 5)
"""Sizes that images are compared in: a file that was traced for one size fails in another."""

_Run = Callable[[NDArray[np.uint8]], Sequence[NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Agreement:
    """The largest distance (smaller is closer) of an exported file from the model in float32, over so many images."""

    pictures: int
    embeddings: float
    maps: float | None


class ImageNetwork(nn.Module):
    """(N, 3, H, W) uint8 RGB images of the model's size to (N, D) embeddings and, where asked for, (N, h, w, c) maps.

    Vectors of both have unit length and are those of `Encoder`.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, *, with_maps: bool) -> None:
        super().__init__()
        self._network = network
        self._preprocessing = preprocessing
        self._with_maps = with_maps

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        encoding = self._encode(images)
        if self._preprocessing.flip_average:
            encoding = average_flipped(encoding, self._encode(images.flip(3)))
        return (encoding.embeddings,) if encoding.maps is None else (encoding.embeddings, encoding.maps)

    def _encode(self, images: Tensor) -> Encoding:
        output = self._network(normalise(images, self._preprocessing))
        maps = output.feature_map.permute(0, 2, 3, 1) if self._with_maps else None
        return Encoding(functional.normalize(output.embedding, dim=1), maps)


def export_model(
    model: TrainedModel,
    format: Format,
    folder: Path,
    images: Sequence[Path],
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Path], Agreement]:
    """Writes the model, which is on the CPU, into an existing folder and compares it on at least one image.

    Args:
        on_progress: gets (images compared, images in all).

    Returns:
        `model.onnx`, or `model.xml` and `model.bin`; and how well they agree.

    Raises:
        ExportFailed: a package is missing, the network has something that the format has not, or results differ.
    """
    onnx = folder / "model.onnx"
    with _packages():
        (_write_external if isinstance(model.network, ExternalNetwork) else _write_onnx)(model, onnx)
        files = [onnx] if format == "onnx" else _write_openvino(onnx, model.manifest.preprocessing)
        run = _onnx_runtime(onnx) if format == "onnx" else _openvino(files[0])
    agreement = _compare(model, run, images, on_progress)
    farthest = float(np.max([agreement.embeddings, agreement.maps or 0.0]))  # NaN where either is
    if not farthest <= _LIMIT:
        raise ExportFailed(
            f"What the {format} file gives is up to {farthest:.2g} away from the model on {agreement.pictures} images; "
            f"{_LIMIT:g} is allowed.",
            hint="The file was not kept. Try the other format.",
        )
    return files, agreement


def _compare(
    model: TrainedModel, run: _Run, paths: Sequence[Path], on_progress: Callable[[int, int], None]
) -> Agreement:
    preprocessing, with_maps = model.manifest.preprocessing, model.manifest.map_shape is not None
    encoder = Encoder(model.network, preprocessing, model.device, torch.float32)
    embeddings, maps = list[float](), list[float]()
    done = 0
    for size in cycle(_BATCHES):
        part = [resize(open_image(path), preprocessing) for path in paths[done : done + size]]
        if not part:
            break
        images = torch.stack(part)
        wanted = encoder.encode_prepared(images, with_maps=with_maps)
        found = [torch.from_numpy(np.asarray(output)) for output in run(images.numpy())]
        embeddings += (found[0] - wanted.embeddings).norm(dim=1).tolist()
        if wanted.maps is not None:
            maps += (found[1] - wanted.maps).norm(dim=3).flatten().tolist()
        done += len(part)
        on_progress(done, len(paths))
    return Agreement(done, float(np.max(embeddings)), float(np.max(maps)) if maps else None)


def _write_onnx(model: TrainedModel, path: Path) -> None:
    preprocessing = model.manifest.preprocessing
    network = ImageNetwork(model.network, preprocessing, with_maps=model.manifest.map_shape is not None).eval()
    example = torch.zeros(2, 3, preprocessing.height, preprocessing.width, dtype=torch.uint8)
    names = OUTPUTS[: 2 if model.manifest.map_shape else 1]
    try:
        with warnings.catch_warnings(action="ignore"):  # the exporter warns of how it uses PyTorch itself
            exported = torch.onnx.export(
                network,
                (example,),
                input_names=[INPUT],
                output_names=names,
                dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = error.__cause__ or error
        raise ExportFailed(f"The network cannot be written as ONNX: {reason}", hint="Use it in PyTorch.") from error
    program = cast(torch.onnx.ONNXProgram, exported)
    program.model.metadata_props["preprocessing"] = json.dumps(preprocessing.as_json())
    program.save(path)


def _write_external(model: TrainedModel, path: Path) -> None:
    network = cast(ExternalNetwork, model.network)
    if network.batch is not None:
        raise ExportFailed(
            f"The network takes images by {network.batch} alone, and exported files take any number.",
            hint="Use the file as it was imported: it is among the model's files.",
        )
    write_packed(network, model.manifest.preprocessing, path, (INPUT, OUTPUTS[0]))


def _write_openvino(onnx: Path, preprocessing: Preprocessing) -> list[Path]:
    """Turns the ONNX file into `model.xml` and `model.bin`."""
    openvino = _import_openvino()
    try:
        network = openvino.Core().read_model(onnx)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ExportFailed(f"OpenVINO cannot read the network: {reason}", hint="Export it as onnx.") from error
    network.set_rt_info(json.dumps(preprocessing.as_json()), "preprocessing")
    openvino.save_model(network, onnx.with_suffix(".xml"), compress_to_fp16=False)
    onnx.unlink()
    return [onnx.with_suffix(".xml"), onnx.with_suffix(".bin")]


def _onnx_runtime(path: Path) -> _Run:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {INPUT: images})


def _openvino(path: Path) -> _Run:
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = _import_openvino().Core().compile_model(path, "CPU", options)
    return lambda images: list(compiled([images]).values())


def _import_openvino() -> Any:
    """OpenVINO without its telemetry, which else tells its maker of every import."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@contextmanager
def _packages() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ExportFailed(
            f"A package that exports need is missing on this worker: {error}.",
            hint='Install the extra: pip install "reid-search[export]"; for an image, REID_EXTRAS=cpu,export.',
        ) from error
