"""Engines: the runtimes that a published model's network is run by. PyTorch runs each; the others are faster on CPUs.

A model's folder holds its serving file, for one of them, beside the weights (`publishing`); `serving` opens it.
"""

from __future__ import annotations

from typing import Literal

EngineName = Literal["torch", "onnxruntime", "openvino"]
EngineChoice = Literal["auto", "torch", "onnxruntime", "openvino"]

DEFAULT_ENGINE: EngineName = "openvino"
"""The engine that models are published with under "auto": the fastest one measured (`benchmarks/engines.py`)."""

Precision = Literal["fp32", "bf16"]
"""The arithmetic of an engine."""
