"""ONNX networks written by hand with the `onnx` helpers, as another library would leave them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

INPUT, OUTPUT, EMBEDDING_SIZE = "crops", "feature", 24
_CELL = 8
"""Pixels of a side of the squares that the network sees."""


def make_weights(seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """A convolution of squares and a matrix."""
    random = np.random.default_rng(seed)
    kernel = random.normal(0, 1 / _CELL, (EMBEDDING_SIZE, 3, _CELL, _CELL))
    matrix = random.normal(0, 1, (EMBEDDING_SIZE, EMBEDDING_SIZE))
    return {"kernel": kernel.astype(np.float32), "matrix": matrix.astype(np.float32)}


def make_nodes() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Conv", [INPUT, "kernel"], ["map"], strides=[_CELL, _CELL]),
        helper.make_node("Relu", ["map"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], [OUTPUT]),
    ]


def write_network(
    path: Path,
    *,
    size: Sequence[Any] = (64, 32),
    batch: int | str = "batch",
    nodes: Sequence[onnx.NodeProto] = (),
    shape: Sequence[Any] | None = None,
    image_type: int = onnx.TensorProto.FLOAT,
    outputs: Sequence[str] = (OUTPUT,),
    opset: int = 13,
    **weights: NDArray[Any],
) -> Path:
    """A network for images of `size`; `nodes` stand in for the usual ones, `weights` are added to the usual ones."""
    tensors = make_weights() | weights
    images = helper.make_tensor_value_info(INPUT, image_type, [batch, 3, *size] if shape is None else shape)
    given = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
    initializers = [numpy_helper.from_array(tensor, name) for name, tensor in tensors.items()]
    graph = helper.make_graph(list(nodes) or make_nodes(), "network", [images], given, initializers)
    domains = {node.domain for node in graph.node} - {""}
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def embed(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 3, H, W) normalised images to what the network gives of them, of unit length, in plain numpy."""
    weights = make_weights()
    count, _, height, width = images.shape
    cells = images.reshape(count, 3, height // _CELL, _CELL, width // _CELL, _CELL)
    found = np.einsum("ncyaxb,dcab->ndyx", cells, weights["kernel"])
    features = np.maximum(found, 0).mean(axis=(2, 3)) @ weights["matrix"]
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True), dtype=np.float32)
