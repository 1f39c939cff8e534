"""Engines: the runtimes that a published model's network is run by. PyTorch runs each; the others are faster on CPUs.

A model's folder holds its serving file, for one of them, beside the weights (`publishing`); `serving` opens it.
"""

from __future__ import annotations

from typing import Literal

EngineName = Literal["torch", "onnxruntime", "openvino"]
EngineChoice = Literal["auto", "torch", "onnxruntime", "openvino"]

DEFAULT_ENGINE: EngineName = "openvino"
"""The engine that models are published with under "auto": the fastest one measured (`benchmarks/engines.py`)."""

FROM_BEFORE = "it was published before models had engines; training or importing it again gives it one"
IMPORTED = "an imported ONNX network is run as it is"

Precision = Literal["fp32", "bf16"]
"""The arithmetic of an engine."""
