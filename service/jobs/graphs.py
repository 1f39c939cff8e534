"""The nearest classes that graph sampling found in each epoch: kept in the job's folder, read and drawn from there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reid_core.data.records import ImageRecord
from service.decoding import Decoder
from service.drawing.sheets import Tile, draw_sheet, open_tile
from service.errors import Problem
from service.jobs.schemas import GraphAnswer, GraphClass
from service.storage import write_file

if TYPE_CHECKING:
    from reid_core.sampling import Graph

_FOLDER = "graphs"


def write_graph(job_folder: Path, epoch: int, graph: Graph, images: Sequence[ImageRecord]) -> None:
    """Keeps the graph of the epoch of that number (from 0); `images` are those that stood for the classes."""
    classes = [
        {
            "identity": image.identity,
            "file": str(image.path),
            "nearest": [
                {"identity": images[code].identity, "distance": round(float(distance), 6)}
                for code, distance in zip(codes, distances, strict=True)
            ],
        }
        for image, codes, distances in zip(images, graph.neighbours.tolist(), graph.distances, strict=True)
    ]
    folder = job_folder / _FOLDER
    folder.mkdir(exist_ok=True)
    write_file(folder / f"{epoch + 1:05d}.json", json.dumps({"epoch": epoch + 1, "classes": classes}).encode())


def read_graph(job_folder: Path, epoch: int | None) -> GraphAnswer:
    """The graph of that epoch (from 1; None: the last one), with the epochs that have one. 404 where there is none."""
    graph = _read(job_folder, epoch)
    classes = [GraphClass(identity=each["identity"], nearest=each["nearest"]) for each in graph["classes"]]
    return GraphAnswer(epoch=graph["epoch"], epochs=_epochs(job_folder), classes=classes)


def draw_graph_image(job_folder: Path, epoch: int | None, decoder: Decoder, *, rows: int) -> bytes:
    """A PNG like the paper's figure 5: classes spread over the data set, each with its nearest ones beside it."""
    graph = _read(job_folder, epoch)
    classes = graph["classes"]
    files = {each["identity"]: Path(each["file"]) for each in classes}
    selected = classes[:: max(1, len(classes) // rows)][:rows]
    distances = [near["distance"] for each in classes for near in each["nearest"]]
    title = (
        f"Graph of job {job_folder.name}, epoch {graph['epoch']}: {len(selected)} of {len(classes)} classes",
        "left: a class, by the image that stood for it; right: its nearest classes, the closest first",
        f"distance: smaller is closer; in this graph from {min(distances):.3f} to {max(distances):.3f}",
    )
    strips = [
        [
            Tile(open_tile(decoder, files[each["identity"]]), [each["identity"], "the class"]),
            *(_near(near, files[near["identity"]], decoder) for near in each["nearest"]),
        ]
        for each in selected
    ]
    return draw_sheet(title, strips)


def _near(near: Mapping[str, Any], file: Path, decoder: Decoder) -> Tile:
    return Tile(open_tile(decoder, file), [near["identity"], f"distance {near['distance']:.3f}"])


def _read(job_folder: Path, epoch: int | None) -> Any:
    epochs = _epochs(job_folder)
    if not epochs:
        raise Problem(
            "not-found", "This job has no graph.", hint="Method qaconv-gs makes one an epoch, after its first epochs."
        )
    chosen = epochs[-1] if epoch is None else epoch
    if chosen not in epochs:
        raise Problem("not-found", f"There is no graph of epoch {chosen}.", hint=f"Epochs with a graph: {epochs}.")
    return json.loads((job_folder / _FOLDER / f"{chosen:05d}.json").read_bytes())


def _epochs(job_folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in (job_folder / _FOLDER).glob("[0-9]*.json"))
