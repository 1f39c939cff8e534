"""The table of models and data sets as Markdown."""

from __future__ import annotations

from service.evaluations.schemas import EvaluationAnswer, MatrixAnswer


def as_markdown(matrix: MatrixAnswer) -> str:
    """A row for each model, a column for each data set; in each cell mAP and rank-1 with their 95 % intervals."""
    datasets = [_escape(dataset.name or dataset.id) for dataset in matrix.datasets]
    lines = [_line(["model", *datasets]), _line(["---"] * (1 + len(datasets)))]
    for model in matrix.models:
        cells = (matrix.cells[model.id].get(dataset.id) for dataset in matrix.datasets)
        lines.append(_line([f"{_escape(model.name)} ({model.method})", *map(_cell, cells)]))
    return "\n".join(lines) + "\n"


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
