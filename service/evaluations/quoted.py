"""Accuracies that papers print for a data set, to be read beside one's own; quoted, never measured here."""

from __future__ import annotations

from collections.abc import Iterator

from service.db.tables import Dataset
from service.evaluations.schemas import QuotedAnswer
from service.papers.catalogue import EXPERIMENTS
from service.papers.experiment import DATA_SETS, Experiment, Row

_PUBLIC: dict[tuple[str | None, int | None], str] = {
    ("market1501", 3368): "market1501",
    ("dukemtmc-reid", 2228): "dukemtmc",
    ("msmt17", 11_659): "msmt17",
    ("cuhk03-np", 1400): "cuhk03",
}
"""Format and number of queries of a public data set -> the papers' name for it. Many others have its format, and the
labelled variant of CUHK03 another number."""


def quote(dataset: Dataset) -> Iterator[QuotedAnswer]:
    """The tables' rows about this data set; none where no paper here has numbers of it. Figures print none."""
    queries = ((dataset.splits or {}).get("query") or {}).get("images")
    name = _PUBLIC.get((dataset.detected_format, queries))
    if name is None:
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
