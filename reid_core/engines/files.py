"""Files of a network for one engine: written from PyTorch, opened as an engine of `Encoder`."""

from __future__ import annotations

import json
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_core.data.preprocessing import Preprocessing
from reid_core.engines import EngineName, Precision
from reid_core.engines.image_network import INPUT, ImageNetwork
from reid_core.errors import ExportFailed
from reid_core.external.runtime import import_onnxruntime, open_session
from reid_core.retrieval.encoder import Encoding

Run = Callable[[NDArray[np.uint8]], Sequence[NDArray[np.float32]]]
"""(N, 3, H, W) images to the file's outputs."""

_OPSET = 18
_OPENVINO_PRECISION = {"fp32": "f32", "bf16": "bf16"}


class FileEngine:
    """An engine of `Encoder` that runs a file. Threads may share it where they may share `run`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, images: Tensor, with_maps: bool) -> Encoding:
        embeddings, *maps = map(torch.from_numpy, self._run(np.ascontiguousarray(images.numpy())))
        return Encoding(embeddings, maps[0] if with_maps else None)


@dataclass(frozen=True, slots=True)
class FileFormat:
    """The files of one engine.

    Attributes:
        names: the names of a model's serving files; the first is opened.
        write: puts an `ImageNetwork`, and its preprocessing for whoever reads the file, into the file of that path.
        open: loads the file, to run in that precision by that many threads.
    """

    names: tuple[str, ...]
    write: Callable[[ImageNetwork, Preprocessing, Path], None]
    open: Callable[[Path, Precision, int], Run]


def write_openvino(network: ImageNetwork, preprocessing: Preprocessing, path: Path) -> None:
    """Writes `path`, whose name ends in .xml, and the .bin beside it."""
    openvino = import_openvino()
    with _tracing():
        converted = openvino.convert_model(network, example_input=network.example())
    converted.reshape([-1, *network.example().shape[1:]])
    converted.inputs[0].set_names({INPUT})
    for output, name in zip(converted.outputs, network.output_names, strict=True):
        output.set_names({name})
    converted.set_rt_info(json.dumps(preprocessing.as_json()), "preprocessing")
    openvino.save_model(converted, path, compress_to_fp16=False)


def write_onnx(network: ImageNetwork, preprocessing: Preprocessing, path: Path) -> None:
    """Writes an ONNX file by PyTorch's tracing exporter, a tenth of the time that the newer one of exports takes."""
    names = [INPUT, *network.output_names]
    with _tracing():
        torch.onnx.export(
            network,
            (network.example(),),
            path,
            input_names=names[:1],
            output_names=names[1:],
            dynamic_axes={name: {0: "batch"} for name in names},
            opset_version=_OPSET,
            dynamo=False,
        )


def open_openvino(path: Path, precision: Precision, threads: int) -> Run:
    """Loads an OpenVINO or ONNX file; calls of several threads take turns."""
    options = {
        "INFERENCE_PRECISION_HINT": _OPENVINO_PRECISION[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # two processes would be pinned to the same cores
    }
    compiled = import_openvino().Core().compile_model(path, "CPU", options)
    turn = threading.Lock()

    def run(images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        with turn:
            return list(compiled([images]).values())

    return run


def open_onnx(path: Path, precision: Precision, threads: int) -> Run:
    """Loads an ONNX file with ONNX Runtime, which computes in float32 whatever `precision` is."""
    import_onnxruntime()
    session = open_session(path, threads)
    return lambda images: session.run(None, {INPUT: images})


FORMATS: dict[EngineName, FileFormat] = {
    "openvino": FileFormat(("serving.xml", "serving.bin"), write_openvino, open_openvino),
    "onnxruntime": FileFormat(("serving.onnx",), write_onnx, open_onnx),
}


def import_openvino() -> Any:
    """OpenVINO without its telemetry, which else tells its maker of every import."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@contextmanager
def failures_of(name: EngineName) -> Iterator[None]:
    """Turns whatever an engine's package raises into `ExportFailed`."""
    try:
        yield
    except ExportFailed:
        raise
    except ImportError as error:
        raise ExportFailed(f"{name} is not installed: {error}.", hint=f"Install the package {name}.") from error
    except Exception as error:  # their own errors have no other base
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise ExportFailed(f"{name} cannot run the network: {reason}", hint="Use it in PyTorch.") from error


@contextmanager
def _tracing() -> Iterator[None]:
    """Keeps PyTorch from its fused attention, which no other runtime has, and from warning of how it is traced."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
