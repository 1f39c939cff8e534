"""The table of models and data sets as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from service.drawing.charts import ChartFormat, entitle, render
from service.drawing.heat_maps import paint_heat_map
from service.drawing.text import shorten
from service.errors import Problem
from service.evaluations.schemas import EvaluationAnswer, MatrixAnswer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_MODELS, _MOST_DATASETS = 40, 12
_NAME_LENGTH = 24
_CELL_WIDTH, _CELL_HEIGHT, _LABELS, _TITLE = 1.7, 0.62, 2.6, 1.9


def draw_matrix(matrix: MatrixAnswer, format: ChartFormat) -> bytes:
    """A row for each model, a column for each data set: mAP as colour, mAP and rank-1 with their intervals as text.

    The newest 40 models and 12 data sets; the title says how many are left out. Raises 404 where nothing was evaluated.
    """
    if not matrix.models:
        raise Problem("not-found", "Nothing has been evaluated yet.", hint="Start a job of kind evaluate.")
    models, datasets = matrix.models[-_MOST_MODELS:], matrix.datasets[-_MOST_DATASETS:]
    cells = [[matrix.cells[model.id].get(dataset.id) for dataset in datasets] for model in models]
    left_out = (len(matrix.models) - len(models), len(matrix.datasets) - len(datasets))

    def paint(figure: Figure) -> None:
        entitle(
            figure,
            "mAP of models (rows) on data sets (columns), the newest evaluation of each pair",
            "in cells: mAP and rank-1 with 95 % intervals over people, valid queries, re-ranking" + _missing(left_out),
        )
        paint_heat_map(
            figure,
            np.array([[cell.mAP if cell else np.nan for cell in row] for row in cells]),
            [[_text(cell) for cell in row] for row in cells],
            rows=[f"{shorten(model.name, _NAME_LENGTH)}\n{model.method}" for model in models],
            columns=[shorten(dataset.name or dataset.id, _NAME_LENGTH) for dataset in datasets],
            row_title="model",
            column_title="data set",
            scale_title="mAP (share, 0 to 1)",
            ends=(0, 1),
        )

    width, height = _LABELS + _CELL_WIDTH * max(len(datasets), 3), _TITLE + _CELL_HEIGHT * len(models)
    return render(paint, width=width, height=height, format=format)


def _missing(left_out: tuple[int, int]) -> str:
    if not any(left_out):
        return ""
    return f"\n{left_out[0]} models and {left_out[1]} data sets of before are not shown: the JSON has all"


def _text(cell: EvaluationAnswer | None) -> str:
    if cell is None:
        return "not\nevaluated"
    lines = [_value(cell, "mAP", "mAP", cell.mAP)]
    if "1" in cell.cmc:
        lines.append(_value(cell, "rank1", "rank-1", cell.cmc["1"]))
    return "\n".join([*lines, f"{cell.valid_queries:,} queries, {_RERANKS.get(cell.rerank, cell.rerank)}"])


_RERANKS = {"qaconv+k_reciprocal": "qaconv+k"}


def _value(cell: EvaluationAnswer, name: str, title: str, value: float) -> str:
    ends = cell.interval.get(name)
    return f"{title} {value:.3f}" + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")
