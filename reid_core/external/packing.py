"""An external network packed with all that stands around it: uint8 RGB images in, embeddings of unit length out.

The file keeps the network's own operators and opset; what is put before and after are operators of that opset, too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reid_core.data.preprocessing import Preprocessing
from reid_core.external.graph import opset_of
from reid_core.external.network import ExternalNetwork

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_FREE_CONSTANTS = 4
"""The first version of the format whose constants need not be listed as inputs, as ours are not."""

_AXES_AS_INPUT = 18
"""The first opset in which sums are told their axes by an input; earlier ones have an attribute."""

_LEAST_LENGTH = 1e-20

_OWN = "network/"
"""The prefix of the network's own names, so that ours are free."""


def write_packed(network: ExternalNetwork, preprocessing: Preprocessing, file: Path, names: tuple[str, str]) -> None:
    """Writes the network, of a free batch size, from images to embeddings as the service makes them.

    `names` are those of the file's input and output.
    """
    import onnx

    model = onnx.compose.add_prefix(onnx.load(network.path), _OWN)
    weights = {tensor.name for tensor in model.graph.initializer}
    (image,) = [value for value in model.graph.input if value.name not in weights]
    before = _Nodes(names[0])
    _normalise(before, preprocessing, image.type.tensor_type.elem_type, image.name)
    after = _Nodes(_OWN + network.output)
    _finish(after, opset_of(model), preprocessing, network.embedding_size, names[1])
    size = preprocessing.height, preprocessing.width
    model.graph.input.remove(image)
    model.graph.input.append(onnx.helper.make_tensor_value_info(names[0], onnx.TensorProto.UINT8, ["batch", 3, *size]))
    found = onnx.helper.make_tensor_value_info(names[1], onnx.TensorProto.FLOAT, ["batch", None])
    nodes = [*before.nodes, *model.graph.node, *after.nodes]
    _replace(model, node=nodes, output=[found], value_info=[])
    model.graph.initializer.extend([*before.constants, *after.constants])
    model.ir_version = max(model.ir_version, _FREE_CONSTANTS)
    onnx.helper.set_model_props(model, {"preprocessing": json.dumps(preprocessing.as_json())})
    onnx.save(model, file)


class _Nodes:
    """A chain of nodes that begins at the value of that name."""

    def __init__(self, start: str) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[Any] = []
        self._start = self.last = start

    def add(self, operator: str, *operands: Any, name: str | None = None, **attributes: Any) -> str:
        """Appends a node of the chain's last value and the operands: arrays, or names of values; gives its name."""
        import onnx

        given = [self.last, *(self._constant(value) for value in operands)]
        made = name or f"{self._start}:{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operator, given, [made], **attributes))
        self.last = made
        return made

    def _constant(self, value: Any) -> str:
        import onnx

        if isinstance(value, str):
            return value
        name = f"{self._start}:constant{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(value, name))
        return name


def _normalise(chain: _Nodes, preprocessing: Preprocessing, kind: int, name: str) -> None:
    """uint8 RGB images to the network's input, followed by their mirror images where these count."""
    import onnx

    if preprocessing.colour == "BGR":
        chain.add("Gather", np.array([2, 1, 0]), axis=1)
    chain.add("Cast", to=onnx.TensorProto.FLOAT)
    chain.add("Div", np.array(255 / preprocessing.range[1], np.float32))
    for operator, values in (("Sub", preprocessing.mean), ("Div", preprocessing.std)):
        chain.add(operator, np.reshape(values, (1, 3, 1, 1)).astype(np.float32))
    if preprocessing.flip_average:
        seen = chain.last
        mirrored = chain.add("Gather", np.arange(preprocessing.width)[::-1].copy(), axis=3)
        chain.last = seen
        chain.add("Concat", mirrored, axis=0)
    chain.add("Cast", to=kind, name=name)


def _finish(chain: _Nodes, opset: int, preprocessing: Preprocessing, embedding_size: int, name: str) -> None:
    """The network's output to embeddings of unit length."""
    import onnx

    chain.add("Cast", to=onnx.TensorProto.FLOAT)
    if preprocessing.flip_average:
        _to_unit_length(chain, opset)
        pairs = chain.add("Reshape", np.array([2, -1, embedding_size]))
        mirrored = chain.add("Gather", np.array(1), axis=0)
        chain.last = pairs
        chain.add("Gather", np.array(0), axis=0)
        chain.add("Add", mirrored)
    _to_unit_length(chain, opset, name)


def _to_unit_length(chain: _Nodes, opset: int, name: str | None = None) -> None:
    """Divides (N, D) vectors by their length, however small: the operator that does so is rounded up in OpenVINO."""
    vectors = chain.last
    if opset < _AXES_AS_INPUT:
        chain.add("ReduceL2", axes=[1])
    else:
        chain.add("ReduceL2", np.array([1]))
    length = chain.add("Add", np.array(_LEAST_LENGTH, np.float32))
    chain.last = vectors
    chain.add("Div", length, name=name)


def _replace(model: ModelProto, **fields: Any) -> None:
    for name, values in fields.items():
        own = getattr(model.graph, name)
        del own[:]
        own.extend(values)
