"""A table or figure of a paper as data: what is trained, what is measured, and what the paper prints.

Data sets are called by the papers' names; which folder stands for a name is said when it is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Measure = Literal["mAP", "rank1", "rank5", "rank10", "hours", "parameters"]
"""Accuracies in shares from 0 to 1; `hours` of the training, `parameters` of the network, classifier included."""

DATA_SETS = {
    "market1501": "Market-1501",
    "dukemtmc": "DukeMTMC-reID",
    "msmt17": "MSMT17",
    "cuhk03": "CUHK03-NP (detected)",
    "randperson": "RandPerson",
}
"""The papers' data sets: name on the command line -> title."""


@dataclass(frozen=True, slots=True)
class Training:
    """A model to be made: the body of a job, with other trainings in the place of models.

    `start` is the training whose network it goes on from; without one it starts from the run's weights.
    """

    method: str
    datasets: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    split: Literal["train", "all"] = "train"
    start: Training | None = None
    teacher: Training | None = None

    @property
    def needed(self) -> tuple[Training, ...]:
        """The trainings whose models this one needs."""
        return tuple(each for each in (self.start, self.teacher) if each is not None)

    @property
    def all_datasets(self) -> frozenset[str]:
        """The data sets of this training and of all that it needs."""
        return frozenset(self.datasets).union(*(each.all_datasets for each in self.needed))


@dataclass(frozen=True, slots=True)
class Column:
    """A measure on the test splits of a data set; None: of the data set that the row was trained on."""

    title: str
    measure: Measure
    dataset: str | None = None
    rerank: Literal["none", "k_reciprocal"] = "none"  # QAConv's models are always ranked by their matcher


@dataclass(frozen=True, slots=True)
class Point:
    """A row's place in a figure of lines: `series` draws a line for it in every column's panel, `panel` one for every
    column in that panel."""

    x: float
    panel: str = ""
    series: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A training with the paper's numbers for each column, None where it has none. `small`: a part of the small run."""

    labels: tuple[str, ...]
    training: Training
    quoted: tuple[float | None, ...] = ()
    small: bool = True
    point: Point | None = None


@dataclass(frozen=True, slots=True)
class Experiment:
    """A table or figure.

    Attributes:
        source: the paper, in words; `place` names the table or figure in it.
        quoted_place: where the quoted numbers stand, if that is another place.
        needs: data sets by the papers' names; `small_needs` those of the small run, the one given first being first.
        notes: readings and departures that a reader of the numbers has to know.
        cross: a row is not measured on a data set that it was trained on.
        graph_epochs: epochs whose graph of classes is shown.
    """

    name: str
    title: str
    source: str
    place: str
    label_titles: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    small_needs: tuple[str, ...]
    notes: tuple[str, ...] = ()
    cross: bool = False
    x_title: str = ""
    log_x: bool = False
    graph_epochs: tuple[int, ...] = ()
    quoted_place: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        trained = frozenset[str]().union(*(row.training.all_datasets for row in self.rows))
        return tuple(name for name in DATA_SETS if name in trained | {column.dataset for column in self.columns})

    def is_measured(self, row: Row, column: Column) -> bool:
        """False where the experiment has no such cell."""
        return not (self.cross and column.dataset in row.training.datasets)
