"""The table of models and data sets as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from service.evaluations.schemas import EvaluationAnswer, MatrixAnswer, QuotedAnswer


def as_markdown(matrix: MatrixAnswer) -> str:
    """A row for each model, a column for each data set; in each cell mAP and rank-1 with their 95 % intervals.

    Rows of papers come last, in italics, each with its source below the table.
    """
    datasets = [_escape(dataset.name or dataset.id) for dataset in matrix.datasets]
    lines = [_line(["model", *datasets]), _line(["---"] * (1 + len(datasets)))]
    for model in matrix.models:
        cells = (matrix.cells[model.id].get(dataset.id) for dataset in matrix.datasets)
        lines.append(_line([f"{_escape(model.name)} ({model.method})", *map(_cell, cells)]))
    return "\n".join([*lines, *_quoted_lines(matrix)]) + "\n"


def _quoted_lines(matrix: MatrixAnswer) -> Iterator[str]:
    sources = list(dict.fromkeys(f"{quoted.source}, {quoted.place}" for quoted in matrix.quoted))
    for quoted in matrix.quoted:
        number = 1 + sources.index(f"{quoted.source}, {quoted.place}")
        cells = [_quoted_cell(quoted) if dataset.id == quoted.dataset else "" for dataset in matrix.datasets]
        trained_on = " + ".join(quoted.trained_on)
        yield _line([f"*quoted [{number}]: {_escape(quoted.method)}, trained on {trained_on}*", *cells])
    yield from (f"\n[{number}] Quoted, not measured here: {_escape(name)}." for number, name in enumerate(sources, 1))


def _quoted_cell(quoted: QuotedAnswer) -> str:
    values = {"mAP": quoted.mAP, "rank-1": quoted.rank1}
    shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items() if value is not None)
    return f"*{shown}{', k_reciprocal' if 'k-reciprocal' in quoted.protocol else ''}*"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(evaluation: EvaluationAnswer | None) -> str:
    if evaluation is None:
        return ""
    values = {"mAP": evaluation.mAP, "rank1": evaluation.cmc.get("1")}
    shown = [_value(evaluation, name, value) for name, value in values.items() if value is not None]
    return ", ".join([*shown, *([] if evaluation.rerank == "none" else [evaluation.rerank])])


def _value(evaluation: EvaluationAnswer, name: str, value: float) -> str:
    ends = evaluation.interval.get(name)
    interval = f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""
    return f"{'rank-1' if name == 'rank1' else name} {value:.3f}{interval}"


def _escape(name: str) -> str:
    """The name as it stands, whatever signs of Markdown it has."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]<>()#+-!|~" else sign for sign in name)
