"""The pictures beside a page: the paper's figure redrawn from what was measured, and the curves of the trainings."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from PIL import Image, ImageDraw

from service.cli.client import Client
from service.cli.reproduction.plot import Panel, draw_panels
from service.drawing.colours import INK, PAPER
from service.drawing.text import font
from service.papers.experiment import Experiment

_CURVES = {"loss": "loss", "training_rank1": "rank-1 among training images"}
_GRAPH_ROWS = 4
_HEADING = 26


def draw_figure(client: Client, experiment: Experiment, told: Mapping[str, Any], path: Path) -> bool:
    """The paper's figure from our numbers; False where the experiment is a table or nothing was measured."""
    if experiment.graph_epochs:
        return _draw_graphs(client, experiment.graph_epochs, told, path)
    lines = _lines(told)
    if not lines:
        return False
    draw_panels([Panel(title, experiment.x_title, each, experiment.log_x) for title, each in lines.items()], path)
    return True


def draw_curves(told: Mapping[str, Any], path: Path) -> bool:
    """The trainings' curves; False where none was trained."""
    panels = []
    for curve, title in _CURVES.items():
        lines = {each["title"]: each["curves"][curve] for each in told["trainings"] if each["curves"].get(curve)}
        panels += [Panel(title, "step", lines)] if lines else []
    if panels:
        draw_panels(panels, path)
    return bool(panels)


def _lines(told: Mapping[str, Any]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Panel -> name of a line -> its points, in % and by rising x."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in told["rows"]:
        for column, cell in zip(told["columns"], row["cells"], strict=True):
            if (point := row["point"]) and cell["values"]:
                panel = f"{column['title']} (%)" if point["series"] else f"{point['panel']} (%)"
                line = panels.setdefault(panel, {}).setdefault(point["series"] or column["title"], [])
                line.append((point["x"], 100 * mean(value["value"] for value in cell["values"])))
    return {panel: {name: sorted(line) for name, line in lines.items()} for panel, lines in panels.items()}


def _draw_graphs(client: Client, epochs: Sequence[int], told: Mapping[str, Any], path: Path) -> bool:
    """The graphs of a training's epochs side by side, those of the next below them."""
    drawn = list(_graphs(client, epochs, told))
    if not drawn:
        return False
    width, height = max(image.width for _, image in drawn), _HEADING + max(image.height for _, image in drawn)
    sheet = Image.new("RGB", (len(epochs) * width, len(drawn) // len(epochs) * height), PAPER)
    for number, (title, image) in enumerate(drawn):
        left, top = number % len(epochs) * width, number // len(epochs) * height
        ImageDraw.Draw(sheet).text((left + 8, top + 8), title, fill=INK, font=font(13))
        sheet.paste(image, (left, top + _HEADING))
    sheet.save(path)
    return True


def _graphs(client: Client, epochs: Sequence[int], told: Mapping[str, Any]) -> Iterator[tuple[str, Image.Image]]:
    """Each graph with its title, training by training."""
    for each in told["trainings"]:
        for epoch in epochs if each["model"] else ():
            content = client.content(f"/jobs/{each['job']}/graph.png", epoch=epoch, rows=_GRAPH_ROWS)
            with Image.open(io.BytesIO(content)) as image:
                yield f"{each['title']}, epoch {epoch}", image.convert("RGB")
