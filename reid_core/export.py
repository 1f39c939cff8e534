"""Models for other runtimes: ONNX and OpenVINO files that take images and give what this service's search compares.

Scaling, mean and standard deviation are inside the file, so they cannot be forgotten or done twice, and so are the
mirror image of `flip_average` and the division by length. A file that does not agree with PyTorch is not kept.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import torch

from reid_core.data.preprocessing import Preprocessing
from reid_core.engines.agreement import LIMIT, Agreement, compare
from reid_core.engines.files import FileEngine, Run, import_openvino, open_onnx, open_openvino
from reid_core.engines.image_network import INPUT, OUTPUTS, ImageNetwork
from reid_core.errors import ExportFailed
from reid_core.external.network import ExternalNetwork
from reid_core.external.packing import write_packed
from reid_core.model import TrainedModel
from reid_core.retrieval.encoder import Encoder, torch_encoder

Format = Literal["onnx", "openvino"]


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
        run = (open_onnx if format == "onnx" else open_openvino)(files[0], "fp32", torch.get_num_threads())
    agreement = _compare(model, run, images, on_progress)
    if not agreement.farthest <= LIMIT:  # NaN is not
        raise ExportFailed(
            f"What the {format} file gives is up to {agreement.farthest:.2g} away from the model on "
            f"{agreement.pictures} images; {LIMIT:g} is allowed.",
            hint="The file was not kept. Try the other format.",
        )
    return files, agreement


def _compare(
    model: TrainedModel, run: Run, paths: Sequence[Path], on_progress: Callable[[int, int], None]
) -> Agreement:
    preprocessing, with_maps = model.manifest.preprocessing, model.manifest.map_shape is not None
    wanted = torch_encoder(model.network, preprocessing, model.device, torch.float32)
    found = Encoder(FileEngine(run), replace(preprocessing, flip_average=False))  # that is in the file
    (agreement,) = compare(wanted, [found], paths, with_maps=with_maps, on_progress=on_progress)
    return agreement


def _write_onnx(model: TrainedModel, path: Path) -> None:
    preprocessing = model.manifest.preprocessing
    network = ImageNetwork(model.network, preprocessing, with_maps=model.manifest.map_shape is not None)
    try:
        with warnings.catch_warnings(action="ignore"):  # the exporter warns of how it uses PyTorch itself
            exported = torch.onnx.export(
                network,
                (network.example(),),
                input_names=[INPUT],
                output_names=network.output_names,
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
    openvino = import_openvino()
    try:
        network = openvino.Core().read_model(onnx)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ExportFailed(f"OpenVINO cannot read the network: {reason}", hint="Export it as onnx.") from error
    network.set_rt_info(json.dumps(preprocessing.as_json()), "preprocessing")
    openvino.save_model(network, onnx.with_suffix(".xml"), compress_to_fp16=False)
    onnx.unlink()
    return [onnx.with_suffix(".xml"), onnx.with_suffix(".bin")]


@contextmanager
def _packages() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ExportFailed(
            f"A package that exports need is missing on this worker: {error}.",
            hint='Install the extra: pip install "reid-search[export]"; for an image, REID_EXTRAS=cpu,export.',
        ) from error
