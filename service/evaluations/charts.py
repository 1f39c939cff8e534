"""Charts of one evaluation: the cumulative matching curve and the ROC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from reid_core.evaluation.interval import SEED, bootstrap_interval
from service.db.tables import Dataset, Evaluation, Model
from service.drawing.charts import Chart, entitle, label_axes
from service.drawing.colours import BLUE, INK, NEUTRAL
from service.drawing.text import shorten
from service.errors import Problem
from service.evaluations.queries import QueryResults, read_results
from service.settings import Settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RANKS = 50
_NAME_LENGTH = 34
_WIDTH, _HEIGHT = 6.5, 4.6
_LEAST_RATE = 1e-6


@dataclass(frozen=True, slots=True)
class Subject:
    """An evaluation with the names of its model and data set; a data set that is gone has its id."""

    evaluation: Evaluation
    model: str
    dataset: str

    @classmethod
    def of(cls, session: Session, evaluation: Evaluation) -> Subject:
        dataset = session.get(Dataset, evaluation.dataset_id)
        names = session.get_one(Model, evaluation.model_id).name, dataset.name if dataset else evaluation.dataset_id
        return cls(evaluation, *(shorten(name, _NAME_LENGTH) for name in names))

    def title(self, chart: str) -> tuple[str, str]:
        """Two lines: what is drawn of which model and data set, and how queries asked."""
        metrics, protocol = self.evaluation.metrics, self.evaluation.protocol
        asked = "".join(f", {name.replace('_', ' ')}" for name in ("multi_query", "open_set") if protocol.get(name))
        counts = f"{metrics['valid_queries']:,} of {metrics['queries']:,} queries with a match"
        return (
            f"{chart}: model {self.model}, data set {self.dataset}",
            f"re-ranking {self.evaluation.rerank}{asked}; {counts}, {metrics['gallery']:,} images",
        )


def plot_cmc(session: Session, settings: Settings, evaluation: Evaluation) -> Chart:
    """The cumulative matching curve up to rank 50 with its 95 % interval, shaded.

    Of an evaluation that has not kept what it found for each query, only the ranks that it measured, with the interval
    of the first.
    """
    subject, results = Subject.of(session, evaluation), _kept_results(settings, evaluation)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        shaded = "95 % interval over people shaded" if results else "95 % interval of rank 1 alone"
        entitle(figure, *subject.title("CMC"), f"{'; '.join(_figures(evaluation))}; {shaded}")
        label_axes(axes, "rank (images looked at)", "queries with a match up to that rank (share)")
        if results:
            _shade(axes, results, evaluation.metrics["gallery"])
        _mark_ranks(axes, evaluation, joined=results is None)
        axes.set(xlim=(0, None), ylim=(0, 1.05))

    return Chart(paint, _WIDTH, _HEIGHT)


def plot_roc(session: Session, evaluation: Evaluation) -> Chart:
    """The ROC over pairs, false-accept rates in equal ratios; raises 404 where the evaluation has none."""
    verification = evaluation.metrics.get("verification")
    if not verification:
        raise Problem(
            "not-found",
            f"Evaluation {evaluation.id!r} has no ROC.",
            hint="Re-ranked candidates alone give none, nor do evaluations of earlier versions; evaluate once more.",
        )
    subject = Subject.of(session, evaluation)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        pairs = f"{verification['matching_pairs']:,} pairs of one person, {verification['impostor_pairs']:,} of two"
        entitle(figure, *subject.title("ROC"), f"over {pairs}; no interval: pairs are not kept")
        label_axes(axes, "false-accept rate (share of pairs of two people)", "true-accept rate (share of one's pairs)")
        points = np.array([point for point in verification["curve"] if point[0] >= _LEAST_RATE])
        axes.plot(*points.T, color=BLUE)
        for rate, accepted in verification["tpr"].items():
            _mark(axes, float(rate), accepted, f"{accepted:.3f} at {rate}")
        chance = np.geomspace(_LEAST_RATE, 1)
        axes.plot(chance, chance, color=NEUTRAL, linestyle="--", label="no information")
        axes.set(xscale="log", xlim=(_LEAST_RATE, 1), ylim=(0, 1.05))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.legend(loc="upper left")

    return Chart(paint, _WIDTH, _HEIGHT)


def _kept_results(settings: Settings, evaluation: Evaluation) -> QueryResults | None:
    try:
        return read_results(settings, evaluation)
    except Problem:
        return None


def _figures(evaluation: Evaluation) -> Iterator[str]:
    """mAP and rank-1, each with its interval."""
    metrics = evaluation.metrics
    for name, title, value in (("mAP", "mAP", metrics["mAP"]), ("rank1", "rank-1", metrics["cmc"].get("1"))):
        if value is not None:
            ends = metrics["interval"].get(name)
            yield f"{title} {value:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def _shade(axes: Axes, results: QueryResults, gallery: int) -> None:
    """The curve at every rank, and its interval."""
    first = np.array(results.first_rank)
    valid = first > 0
    ranks = np.arange(1, min(_RANKS, gallery) + 1)
    found = (first[valid] <= ranks[:, None]).astype(np.float64)  # (ranks, queries)
    low, high = _intervals(found, np.array(results.people)[valid])
    axes.fill_between(ranks, low, high, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(ranks, found.mean(axis=1), color=BLUE)


def _intervals(found: NDArray[np.float64], people: NDArray[np.int64]) -> NDArray[np.float64]:
    return bootstrap_interval(found, people, np.random.default_rng(SEED)).T


def _mark_ranks(axes: Axes, evaluation: Evaluation, *, joined: bool) -> None:
    """The ranks that were measured with their shares; `joined` by a line, rank 1 with its interval."""
    cmc = sorted((int(rank), share) for rank, share in evaluation.metrics["cmc"].items())
    if joined:
        axes.plot(*zip(*cmc, strict=True), color=BLUE, linestyle=":")
        if ends := evaluation.metrics["interval"].get("rank1"):
            axes.vlines(1, *ends, color=BLUE)
    for rank, share in cmc:
        _mark(axes, rank, share, f"{share:.3f}")


def _mark(axes: Axes, x: float, y: float, text: str) -> None:
    """A dot with its value beside it, below the curve."""
    axes.plot(x, y, "o", color=BLUE, markersize=5)
    axes.annotate(text, (x, y), (4, -12), textcoords="offset points", color=INK)
