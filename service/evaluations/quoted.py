"""Accuracies that papers print for a data set, to be read beside one's own; quoted, never measured here."""

from __future__ import annotations

from collections.abc import Iterator

from service.db.tables import Dataset
from service.evaluations.schemas import QuotedAnswer
from service.papers.catalogue import EXPERIMENTS
from service.papers.experiment import DATA_SETS, Experiment, Row

_FORMATS = {
    "market1501": ("market1501", None),
    "dukemtmc-reid": ("dukemtmc", None),
    "msmt17": ("msmt17", None),
    "cuhk03-np": ("cuhk03", "detected"),
    "randperson": ("randperson", None),
}
"""Format of a data set -> the papers' name for it, and the variant whose numbers they print."""


def quote(dataset: Dataset) -> Iterator[QuotedAnswer]:
    """The tables' rows about this data set; none where no paper here has numbers of it. Figures print none."""
    name, variant = _FORMATS.get(dataset.detected_format or "", ("", None))
    if not name or (variant is not None and dataset.variant != variant):
        return
    for build in EXPERIMENTS.values():
        experiment = build(False)
        if not experiment.x_title:
            for row in experiment.rows:
                yield from _quote_row(experiment, row, name, dataset.id)


def _quote_row(experiment: Experiment, row: Row, name: str, dataset_id: str) -> Iterator[QuotedAnswer]:
    """The row's numbers on the data set of that name, one for each re-ranking."""
    trained_on = row.training.datasets
    found: dict[str, dict[str, float]] = {}
    for column, value in zip(experiment.columns, row.quoted, strict=False):
        measured_on = column.dataset or trained_on[-1]
        if measured_on == name and column.measure in ("mAP", "rank1") and value is not None:
            found.setdefault(column.rerank, {})[column.measure] = value / 100
    for rerank, values in found.items():
        yield QuotedAnswer(
            method=", ".join(label for label in row.labels if label),
            dataset=dataset_id,
            mAP=values.get("mAP"),
            rank1=values.get("rank1"),
            trained_on=[DATA_SETS[each] for each in trained_on],
            protocol=_protocol(rerank, experiment),
            source=experiment.source,
            place=experiment.place,
        )


def _protocol(rerank: str, experiment: Experiment) -> str:
    ranked = "after k-reciprocal re-ranking" if rerank == "k_reciprocal" else "as the paper ranks"
    kind = "people and cameras of another data set" if experiment.cross else "the data set's own train split"
    return f"single query, standard splits, trained on {kind}, {ranked}"
