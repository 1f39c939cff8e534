"""The check of an ONNX network before it becomes a model: it is read, loaded and tried on pictures.

`python -m reid_core.external.checking FILE` does so in a process of its own, which a damaged or hostile file may bring
down alone: it reads `{input, output, threads, seconds}` from its input and writes `{facts}` or `{refused}`.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reid_core.data.preprocessing import Preprocessing, preprocessing_from_json
from reid_core.errors import Fault, WeightsError
from reid_core.external.graph import count_numbers, count_work, opset_of, read_network
from reid_core.external.runtime import TYPES, OnnxNetwork

FILE, INPUT, OUTPUT = "/onnx", "/manifest/input", "/manifest/output"

_PICTURES = 3
_TILES = (8, 4)
_SAME = 1e-5
"""The largest distance of two embeddings of unit length that count as one: float32 rounds to less."""
_BATCH_LIMIT = 1e-2
"""The largest distance between an image's embeddings alone and among others; float16 stays below a tenth of it."""


class NetworkRefused(WeightsError):
    """A network that cannot be served, with the value of the request that is to blame."""

    def __init__(self, pointer: str, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message[0].upper()}{message[1:]}.", hint=hint)
        self.fault = Fault(pointer, code, message)


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts that a check finds out about a network.

    Attributes:
        output: the name of the output that is the embedding.
        batch: the number of images that it takes at a time; None where that is free.
        weights: the numbers in its weights.
        operations: floating-point operations of one image, as far as they can be counted.
        activations: the numbers in the outputs of all layers for one image, likewise.
    """

    output: str
    embedding_size: int
    batch: int | None
    opset: int
    weights: int
    operations: int
    activations: int


def check_network(path: Path, preprocessing: Preprocessing, output: str | None, *, threads: int = 1) -> Facts:
    """Reads, loads and tries the network.

    Raises:
        NetworkRefused: the network is not as the manifest says, or gives no embeddings.
        WeightsError: the file is no ONNX file that can be loaded, names other files or needs code of its own.
    """
    model = read_network(path)
    network = OnnxNetwork(path, output, threads=threads)
    _check_input(network, preprocessing)
    _check_output(network, output)
    embeddings = _try(network, preprocessing)
    operations, activations = count_work(model, preprocessing.height, preprocessing.width)
    return Facts(
        output=output or network.outputs[0],
        embedding_size=embeddings.shape[1],
        batch=network.batch,
        opset=opset_of(model),
        weights=count_numbers(model),
        operations=operations,
        activations=activations,
    )


def _check_input(network: OnnxNetwork, preprocessing: Preprocessing) -> None:
    if len(network.inputs) != 1:
        names = ", ".join(repr(name) for name, _, _ in network.inputs) or "none"
        raise NetworkRefused(FILE, "one-input", f"the network takes one input, images; this one has {names}")
    ((name, kind, shape),) = network.inputs
    if kind not in TYPES:
        known = ", ".join(TYPES)
        raise NetworkRefused(FILE, "input-type", f"input {name!r} is a {kind}; images are one of {known}")
    if len(shape) != 4:
        raise NetworkRefused(
            FILE, "input-shape", f"input {name!r} has {len(shape)} dimensions; images have 4: (N, 3, height, width)"
        )
    _check_shape(name, shape, preprocessing)
    plain = preprocessing.range == (0, 255) and preprocessing.mean == (0, 0, 0) and preprocessing.std == (1, 1, 1)
    if kind == "tensor(uint8)" and not plain:
        message = f"input {name!r} is a {kind}, which normalised values do not fit in"
        hint = "Such a network normalises images itself: say range [0, 255], mean [0, 0, 0] and std [1, 1, 1]."
        raise NetworkRefused(INPUT, "normalised-twice", message, hint=hint)


def _check_shape(name: str, shape: tuple[Any, ...], preprocessing: Preprocessing) -> None:
    _, channels, height, width = shape
    if isinstance(channels, int) and channels != 3:
        layout = " (channels come last in it)" if width == 3 else ""
        message = f"input {name!r} has {channels} channels{layout}; images are (N, 3, height, width)"
        raise NetworkRefused(FILE, "input-shape", message, hint="Export it for RGB or BGR images, channels first.")
    for what, fixed, said in (("height", height, preprocessing.height), ("width", width, preprocessing.width)):
        if isinstance(fixed, int) and fixed != said:
            message = f"the manifest says {what} {said}, the network takes images of {what} {fixed} alone"
            raise NetworkRefused(f"{INPUT}/{what}", "other-size", message, hint=f"Say {what} {fixed} in the manifest.")


def _check_output(network: OnnxNetwork, output: str | None) -> None:
    known = ", ".join(map(repr, network.outputs))
    if output is None and len(network.outputs) > 1:
        message = f"the network has several outputs, {known}, and none is named"
        raise NetworkRefused(OUTPUT, "which-output", message, hint="Name the one that is the embedding.")
    if output is not None and output not in network.outputs:
        raise NetworkRefused(OUTPUT, "no-such-output", f"there is no output {output!r}; there is {known}")


def _try(network: OnnxNetwork, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """The embeddings of some pictures, having seen that they are embeddings."""
    pictures = _make_pictures(preprocessing)
    found = network.run(pictures)
    if found.ndim != 2 or found.shape[1] < 2:
        shape = ", ".join(["N", *map(str, found.shape[1:])])
        message = f"the output is of shape ({shape}); embeddings are (N, D) with D of at least 2"
        raise NetworkRefused(OUTPUT, "output-shape", message, hint="Name another output, or flatten this one.")
    _check_values(found)
    if not (away := _distance(found, network.run(pictures))) <= _SAME:  # NaN is not
        message = f"the same pictures get other embeddings each time, up to {away:.2g} apart"
        raise NetworkRefused(FILE, "not-deterministic", message, hint="Export the network in evaluation mode.")
    alone = np.concatenate([network.run(picture[None]) for picture in pictures])
    if not (away := _distance(found, alone)) <= _BATCH_LIMIT:
        message = f"a picture's embedding alone is up to {away:.2g} away from that among others"
        raise NetworkRefused(FILE, "depends-on-batch", message, hint="Export the network in evaluation mode.")
    return found


def _check_values(embeddings: NDArray[np.float32]) -> None:
    if not np.isfinite(embeddings).all():
        raise NetworkRefused(FILE, "not-finite", "the network gives numbers that are not finite")
    if not np.linalg.norm(embeddings, axis=1).all():
        raise NetworkRefused(FILE, "zero", "the network gives an embedding of nothing but zeros")
    if _distance(embeddings, np.roll(embeddings, 1, axis=0)) <= _SAME:
        hint = "Name the output that is the embedding; a network that was never trained may have none."
        raise NetworkRefused(OUTPUT, "constant", "different pictures all get the same embedding", hint=hint)


def _make_pictures(preprocessing: Preprocessing) -> NDArray[np.float32]:
    """(N, 3, H, W): pictures of coloured tiles, normalised as the manifest says."""
    colours = np.random.default_rng(0).integers(0, 256, (_PICTURES, 3, *_TILES))
    rows = np.arange(preprocessing.height) * _TILES[0] // preprocessing.height
    columns = np.arange(preprocessing.width) * _TILES[1] // preprocessing.width
    pixels = colours[:, :, rows[:, None], columns] / (255 / preprocessing.range[1])
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (preprocessing.mean, preprocessing.std))
    return np.asarray((pixels - mean) / std, dtype=np.float32)


def _distance(some: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """The largest distance between embeddings, brought to unit length, of the same place."""
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (some, others)]
    return float(np.linalg.norm(units[0] - units[1], axis=1).max())


def _main(path: str, asked: dict[str, Any]) -> dict[str, Any]:
    preprocessing = preprocessing_from_json(asked["input"])
    try:
        return {"facts": asdict(check_network(Path(path), preprocessing, asked["output"], threads=asked["threads"]))}
    except WeightsError as error:
        message = f"{error.detail[0].lower()}{error.detail[1:].removesuffix('.')}"
        fault = error.fault if isinstance(error, NetworkRefused) else Fault(FILE, "unusable", message)
        return {"refused": {"detail": error.detail, "hint": error.hint, "fault": asdict(fault)}}


if __name__ == "__main__":
    given = json.load(sys.stdin)
    signal.alarm(ceil(given["seconds"]) + 1)  # ends it where whoever waits for it has died
    sys.stdout.write(json.dumps(_main(sys.argv[1], given)))
