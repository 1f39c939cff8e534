"""The failures of an evaluation as pictures: strips of images, bars and a heat map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from service.drawing.charts import Chart, entitle, label_axes
from service.drawing.colours import BLUE, INK
from service.drawing.heat_maps import paint_heat_map
from service.drawing.sheets import LEGEND, Tile, draw_sheet
from service.drawing.text import shorten
from service.evaluations.charts import Subject
from service.evaluations.failures_schemas import ConfusedCameras, FailedQuery, HardIdentity, LabelSuspect, RankedResult
from service.evaluations.schemas import ShownImage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OpenImage = Callable[[ShownImage], Image.Image | None]
"""The image in a tile's size, None where it is gone."""

_NAME_LENGTH = 20
_MOST_CAMERAS = 20


def draw_worst_queries(subject: Subject, queries: Sequence[FailedQuery], open_image: OpenImage) -> bytes:
    """A row for each query: it, then its first results by rank."""
    title = (
        *subject.title("Worst queries"),
        "left: query with its average precision (AP) and the rank of its best match",
    )
    rows = [
        [
            _query(query.image, open_image, f"AP {query.average_precision:.3f}", f"match at {query.first_rank}"),
            *_results(query.results, open_image),
        ]
        for query in queries
    ]
    return draw_sheet([*title, f"right: first results by rank; {LEGEND}"], rows)


def draw_label_suspects(subject: Subject, suspects: Sequence[LabelSuspect], open_image: OpenImage) -> bytes:
    """A row for each query whose first five results all bear another name: it, then these."""
    title = (*subject.title("Label suspects"), "left: query with its label, and the name that most of its results bear")
    rows = [
        [
            _query(one.image, open_image, f"{one.agreeing} of 5 say", one.nearest_identity or "nobody"),
            *_results(one.results, open_image),
        ]
        for one in suspects
    ]
    found = [] if suspects else ["No query has five first results that all bear another name."]
    return draw_sheet([*title, f"right: first results by rank; {LEGEND}", *found], rows)


def plot_hardest_identities(subject: Subject, people: Sequence[HardIdentity]) -> Chart:
    """A bar for each person: the mean average precision of their queries."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        entitle(
            figure, *subject.title("Hardest people"), "in brackets: queries of each; those with the lowest mAP first"
        )
        label_axes(axes, "mAP of the person's queries (share, 0 to 1)", "identity")
        names = [f"{shorten(person.identity, _NAME_LENGTH)} ({person.queries})" for person in people]
        bars = axes.barh(range(len(people)), [person.mAP for person in people], color=BLUE)
        axes.bar_label(bars, [f"{person.mAP:.3f}" for person in people], padding=3, color=INK)
        axes.set_yticks(range(len(people)), names)
        axes.set_xlim(0, 1.1)
        axes.invert_yaxis()

    return Chart(paint, 6.5, 1.7 + 0.26 * len(people))


def plot_confused_cameras(subject: Subject, pairs: Sequence[ConfusedCameras]) -> Chart:
    """A heat map: of the queries of each camera (rows) the share whose first result, of another person, is by which.

    Of more than 20 cameras on either side those of the pairs with most such queries.
    """
    rows, columns = _cameras([pair.query for pair in pairs]), _cameras([pair.gallery for pair in pairs])
    known = {(pair.query, pair.gallery): pair for pair in pairs}
    cells = [[known.get((row, column)) for column in columns] for row in rows]

    def paint(figure: Figure) -> None:
        entitle(
            figure,
            *subject.title("Confused cameras"),
            f"in cells: queries with a wrong first result, of all of that camera{_left_out(pairs, cells)}",
        )
        if not pairs:
            figure.text(0.5, 0.4, "No first result is wrong.", ha="center")
            return
        paint_heat_map(
            figure,
            np.array([[pair.wrong_first / pair.queries if pair else 0.0 for pair in row] for row in cells]),
            [[f"{pair.wrong_first} of\n{pair.queries}" if pair else "0" for pair in row] for row in cells],
            rows=[_camera(row) for row in rows],
            columns=[_camera(column) for column in columns],
            row_title="camera of the query",
            column_title="camera of the wrong first result",
            scale_title="wrong first results (share of queries, 0 to 1)",
            ends=(0, 1),
        )

    width, height = max(7.0, 2.6 + 0.75 * len(columns)), max(3.4, 1.9 + 0.5 * len(rows))
    return Chart(paint, width, height)


def _cameras(named: Sequence[str]) -> list[str]:
    """The first twenty, in order of their names."""
    return sorted(list(dict.fromkeys(named))[:_MOST_CAMERAS])


def _camera(name: str) -> str:
    return shorten(name, _NAME_LENGTH) or "none"


def _left_out(pairs: Sequence[ConfusedCameras], cells: Sequence[Sequence[ConfusedCameras | None]]) -> str:
    missing = len(pairs) - sum(pair is not None for row in cells for pair in row)
    return f"\n{missing} pairs of cameras with fewer are not shown: the JSON has all" if missing else ""


def _query(image: ShownImage, open_image: OpenImage, *more: str) -> Tile:
    return Tile(open_image(image), [image.identity, f"camera {image.camera or 'none'}", *more])


def _results(results: Sequence[RankedResult], open_image: OpenImage) -> list[Tile]:
    return [
        Tile(
            open_image(result.image),
            [
                result.image.identity,
                f"camera {result.image.camera or 'none'}",
                "no score" if result.score is None else f"score {result.score:.3f}",
                f"rank {rank}",
            ],
            result.match,
        )
        for rank, result in enumerate(results, 1)
    ]
