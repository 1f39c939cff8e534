"""ONNX Runtime: an ONNX network on this machine's CPU."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_core.errors import WeightsError

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
"""The types of images that a network may take."""

_ERRORS_ONLY = 3
_PREAMBLE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .* failed: *)?")
"""What its errors begin with: a code, and where the file lies."""


class OnnxNetwork:
    """An ONNX file with one input, images, and the output that is their embeddings. Threads may share it.

    Attributes:
        inputs: (name, type, shape) of each input of the file; a dimension is a number, or a name or None where it is
            free.
        outputs: the names of its outputs.
    """

    def __init__(self, path: Path, output: str | None, *, threads: int) -> None:
        """Loads the file, which `read_network` has accepted; `output` may be None where there is only one.

        Raises:
            WeightsError: ONNX Runtime is not installed, or cannot load the file.
        """
        self._session = open_session(path, threads)
        self.inputs = [(value.name, value.type, tuple(value.shape)) for value in self._session.get_inputs()]
        self.outputs = [value.name for value in self._session.get_outputs()]
        self._output = output or self.outputs[0]

    @property
    def batch(self) -> int | None:
        """The number of images that it takes at a time; None where that is free."""
        size = self.inputs[0][2][0]
        return size if isinstance(size, int) else None

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 3, H, W) images, normalised, to whatever the output is of each; any N, in batches of the network's.

        Raises:
            WeightsError: ONNX Runtime fails.
        """
        size = self.batch or len(images)
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        return np.concatenate([self._run(_filled(part, size))[: len(part)] for part in parts])

    def _run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        name, kind, _ = self.inputs[0]
        given = np.ascontiguousarray(images.round() if kind == "tensor(uint8)" else images, dtype=TYPES[kind])
        try:
            (found,) = self._session.run([self._output], {name: given})
        except Exception as error:  # its own errors have no other base
            raise _failed("run", error) from error
        return np.asarray(found, dtype=np.float32)


def import_onnxruntime() -> Any:
    """ONNX Runtime without its telemetry, which else tells its maker of every process and model: we call nobody."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def missing_package(error: ImportError) -> WeightsError:
    """The error of a machine without the packages that ONNX networks need."""
    return WeightsError(
        f"A package that ONNX networks need is missing on this machine: {error}.",
        hint='Install the extra: pip install "reid-search[export]"; for an image, REID_EXTRAS=cpu,export.',
    )


def open_session(path: Path, threads: int) -> Any:
    """A session of ONNX Runtime on the CPU with the file; WeightsError where it is not installed or cannot load it."""
    try:
        onnxruntime = import_onnxruntime()
    except ImportError as error:
        raise missing_package(error) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ONLY
    # Batches differ in size: what it would keep for each of them, and for the largest, is memory that never comes back.
    options.enable_mem_pattern = options.enable_cpu_mem_arena = False
    # Its threads wait for the next image asleep: they share the cores with PyTorch's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own errors have no other base
        raise _failed("load", error) from error


def _filled(images: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """The images, the last one repeated until they are `size`."""
    return np.concatenate([images, np.repeat(images[-1:], size - len(images), axis=0)])


def _failed(what: str, error: Exception) -> WeightsError:
    reason = _PREAMBLE.sub("", str(error).splitlines()[0])
    hint = "Export it again, in evaluation mode and with a free batch size."
    return WeightsError(f"ONNX Runtime cannot {what} the network: {reason}", hint=hint)
