"""An ONNX file as it is written: what must not be in it, and what its operations cost."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reid_core.errors import WeightsError
from reid_core.external.runtime import missing_package

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

MIN_OPSET = 7
"""The first that ONNX Runtime promises to run."""

_STANDARD = ("", "ai.onnx")
_DOMAINS = (*_STANDARD, "ai.onnx.ml", "com.microsoft")
"""Domains whose operators are part of ONNX Runtime."""


def read_network(path: Path) -> ModelProto:
    """The network in the file, which is safe to be loaded: it names no other file and needs no code of its own.

    Raises:
        WeightsError: it is not so, the file is no ONNX file or damaged, or its opset is too old.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise missing_package(error) from error
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise _no_onnx() from error
    if not model.graph.node:
        raise _no_onnx()
    _refuse_other_files(model)
    _refuse_custom_operators(model)
    if (opset := opset_of(model)) < MIN_OPSET:
        raise WeightsError(f"The file has opset {opset}; {MIN_OPSET} is the least.", hint="Export it with a newer one.")
    return model


def opset_of(model: ModelProto) -> int:
    """The version of the standard operators in use."""
    return max((entry.version for entry in model.opset_import if entry.domain in _STANDARD), default=1)


def count_numbers(model: ModelProto) -> int:
    """The numbers in the weights."""
    return sum(prod(tensor.dims) for tensor in model.graph.initializer)


def count_work(model: ModelProto, height: int, width: int) -> tuple[int, int]:
    """One image's operations, those of convolutions and matrix products, and the numbers in all layers' outputs.

    Of what ONNX cannot foresee the shape, neither is counted. The model is changed: its batch becomes one image.
    """
    import onnx

    image = _image_of(model)
    for dimension, size in zip(image.type.tensor_type.shape.dim, (1, 3, height, width), strict=True):
        dimension.dim_value = size
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        shapes.setdefault(value.name, tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim))
    outputs = sum(prod(shapes.get(name, (0,))) for node in graph.node for name in node.output)
    return sum(_operations(node, shapes) for node in graph.node), outputs


def _image_of(model: ModelProto) -> Any:
    """The input that is not a weight, too: older files list both."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return next(value for value in model.graph.input if value.name not in weights)


def _operations(node: NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    """Two for each product: of every number of the output, those along what is summed over."""
    output = prod(shapes.get(node.output[0], (0,)))
    first, second = ([*(shapes.get(name, ()) for name in node.input), (), ()])[:2]
    if node.op_type == "Conv":
        return 2 * output * prod(second[1:])
    if node.op_type == "Gemm" and first:
        turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return 2 * output * first[0 if turned else -1]
    return 2 * output * first[-1] if node.op_type == "MatMul" and first else 0


def _refuse_other_files(model: ModelProto) -> None:
    from onnx import TensorProto

    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            raise WeightsError(
                f"The weights of {tensor.name!r} lie in another file.",
                hint="Save it as one file, e.g. by onnx.save(onnx.load(path), path, save_as_external_data=False).",
            )


def _refuse_custom_operators(model: ModelProto) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    for node in _nodes(model):
        if node.domain not in _DOMAINS and (node.domain, node.op_type) not in own:
            raise WeightsError(
                f"The operator {node.op_type!r} is of {node.domain!r}, which is not part of ONNX.",
                hint="Export the network with standard operators; none of others are loaded.",
            )


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    """All nodes, those of branches, loops and functions among them."""
    yield from _nodes_in(model.graph.node)
    for function in model.functions:
        yield from _nodes_in(function.node)


def _nodes_in(nodes: Any) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for graph in _graphs_of(node):
            yield from _nodes_in(graph.node)


def _graphs_of(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    graphs = [model.graph, *(graph for node in _nodes(model) for graph in _graphs_of(node))]
    for graph in graphs:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    declared = [function.attribute_proto for function in model.functions]
    for attribute in chain.from_iterable([*(node.attribute for node in _nodes(model)), *declared]):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)


def _no_onnx() -> WeightsError:
    return WeightsError("This is not an ONNX file, or it is cut off.", hint="Send the whole .onnx file.")
