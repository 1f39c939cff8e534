"""The nearest classes that graph sampling found in each epoch: kept in the job's folder, read and drawn from there."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from reid_core.data.records import ImageRecord
from reid_core.errors import ImageError
from service.decoding import Decoder
from service.errors import Problem
from service.jobs.schemas import GraphAnswer, GraphClass
from service.storage import write_file

if TYPE_CHECKING:
    from reid_core.sampling import Graph

_FOLDER = "graphs"
_TILE = (48, 96)
_GAP = 6
_CAPTION = 12
_PAPER, _INK, _MISSING = "#ffffff", "#222222", "#cccccc"


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
    classes = _read(job_folder, epoch)["classes"]
    files = {each["identity"]: Path(each["file"]) for each in classes}
    selected = classes[:: max(1, len(classes) // rows)][:rows]
    columns = 1 + max(len(each["nearest"]) for each in selected)
    sheet = Image.new(
        "RGB", (columns * (_TILE[0] + _GAP) + 2 * _GAP, len(selected) * (_TILE[1] + _CAPTION + _GAP) + _GAP), _PAPER
    )
    for number, each in enumerate(selected):
        top = _GAP + number * (_TILE[1] + _CAPTION + _GAP)
        _paste(sheet, _tile(decoder, files[each["identity"]]), each["identity"], _GAP, top)
        for column, near in enumerate(each["nearest"], 1):
            left = 2 * _GAP + column * (_TILE[0] + _GAP)
            tile = _tile(decoder, files[near["identity"]])
            _paste(sheet, tile, f"{near['identity']} {near['distance']:.2f}", left, top)
    content = io.BytesIO()
    sheet.save(content, "PNG")
    return content.getvalue()


def _tile(decoder: Decoder, file: Path) -> Image.Image:
    try:
        with decoder.opened(file) as image:
            return image.image.resize(_TILE)
    except ImageError:
        return Image.new("RGB", _TILE, _MISSING)


def _paste(sheet: Image.Image, tile: Image.Image, caption: str, left: int, top: int) -> None:
    sheet.paste(tile, (left, top))
    ImageDraw.Draw(sheet).text((left, top + _TILE[1]), caption, fill=_INK, font=ImageFont.load_default(9))


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
