"""The table of models and data sets as a heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING

import numpy as np

from service.drawing.charts import Chart, entitle
from service.drawing.heat_maps import paint_heat_map
from service.drawing.text import shorten
from service.errors import Problem
from service.evaluations.schemas import EvaluatedDataset, EvaluatedModel, EvaluationAnswer, MatrixAnswer, QuotedAnswer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_MODELS, _MOST_DATASETS, _MOST_QUOTED = 40, 12, 20
_NAME_LENGTH, _METHOD_LENGTH, _SOURCE_LENGTH = 24, 32, 90
_CELL_WIDTH, _CELL_HEIGHT, _LABELS, _TITLE, _LINE = 1.7, 0.62, 2.8, 1.9, 0.2


@dataclass(frozen=True, slots=True)
class _Row:
    """A row's name, and of each data set the mAP (NaN where there is none) and what is written."""

    name: str
    values: Sequence[float]
    texts: Sequence[str]


def plot_matrix(matrix: MatrixAnswer) -> Chart:
    """A row for each model, a column for each data set: mAP as colour, mAP and rank-1 with their intervals as text.

    Rows of papers come last, marked as quoted, with their sources in the title. The newest 40 models and 12 data sets,
    and 20 rows of papers; the title says how many are left out. Raises 404 where nothing was evaluated.
    """
    if not matrix.models:
        raise Problem("not-found", "Nothing has been evaluated yet.", hint="Start a job of kind evaluate.")
    models, datasets = matrix.models[-_MOST_MODELS:], matrix.datasets[-_MOST_DATASETS:]
    shown = {dataset.id for dataset in datasets}
    quoted = [one for one in matrix.quoted if one.dataset in shown][:_MOST_QUOTED]
    sources = list(dict.fromkeys(f"{one.source}, {one.place}" for one in quoted))
    rows = [_measured_row(model, matrix, datasets) for model in models]
    rows += [_quoted_row(one, 1 + sources.index(f"{one.source}, {one.place}"), datasets) for one in quoted]
    left_out = {
        "models": len(matrix.models) - len(models),
        "data sets": len(matrix.datasets) - len(datasets),
        "rows of papers": len(matrix.quoted) - len(quoted),
    }

    def paint(figure: Figure) -> None:
        entitle(
            figure,
            "mAP of models (rows) on data sets (columns), the newest evaluation of each pair",
            "in cells: mAP and rank-1 with 95 % intervals over people, valid queries, re-ranking",
            *_missing(left_out),
            *_notes(sources),
        )
        paint_heat_map(
            figure,
            np.array([row.values for row in rows]),
            [row.texts for row in rows],
            rows=[row.name for row in rows],
            columns=[shorten(dataset.name or dataset.id, _NAME_LENGTH) for dataset in datasets],
            row_title="model",
            column_title="data set",
            scale_title="mAP (share, 0 to 1)",
            ends=(0, 1),
        )

    width = _LABELS + _CELL_WIDTH * max(len(datasets), 3)
    return Chart(paint, width, _TITLE + _CELL_HEIGHT * len(rows) + _LINE * len(sources))


def _missing(left_out: Mapping[str, int]) -> list[str]:
    told = ", ".join(f"{count} {name}" for name, count in left_out.items() if count)
    return [f"not shown: {told}; the JSON has all"] if told else []


def _notes(sources: Sequence[str]) -> list[str]:
    return [f"[{number}] quoted: {shorten(source, _SOURCE_LENGTH)}" for number, source in enumerate(sources, 1)]


def _measured_row(model: EvaluatedModel, matrix: MatrixAnswer, datasets: Sequence[EvaluatedDataset]) -> _Row:
    cells = [matrix.cells[model.id].get(dataset.id) for dataset in datasets]
    name = f"{shorten(model.name, _NAME_LENGTH)}\n{model.method}"
    return _Row(name, [cell.mAP if cell else nan for cell in cells], [_text(cell) for cell in cells])


def _quoted_row(quoted: QuotedAnswer, number: int, datasets: Sequence[EvaluatedDataset]) -> _Row:
    trained_on = shorten(" + ".join(quoted.trained_on), _METHOD_LENGTH)
    name = f"quoted [{number}]: {shorten(quoted.method, _NAME_LENGTH)}\ntrained on {trained_on}"
    here = [dataset.id == quoted.dataset for dataset in datasets]
    value = nan if quoted.mAP is None else quoted.mAP
    return _Row(name, [value if one else nan for one in here], [_quoted_text(quoted) if one else "" for one in here])


def _quoted_text(quoted: QuotedAnswer) -> str:
    values = {"mAP": quoted.mAP, "rank-1": quoted.rank1}
    lines = [f"{name} {value:.3f}" for name, value in values.items() if value is not None]
    return "\n".join([*lines, "quoted" + (", k_reciprocal" if "k-reciprocal" in quoted.protocol else "")])


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
