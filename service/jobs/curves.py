"""The curves of a job as a chart: one pair of axes for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from statistics import fmean
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.tables import Dataset, Job, JobDataset
from service.drawing.charts import Chart, entitle, label_axes
from service.drawing.colours import BLUE
from service.drawing.text import shorten
from service.errors import Problem
from service.jobs.recording import read_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = Sequence[tuple[int, float | None]]

_COLUMNS = 3
_WIDTH, _HEIGHT, _TITLE = 3.2, 2.3, 0.7
_NAME_LENGTH = 34
_POINTS = 400
_MARKED = 30


def plot_curves(session: Session, job: Job) -> Chart:
    """Losses first, then what else the job measured; raises 404 where it has measured nothing.

    Of a curve of more than 400 points means of as many neighbouring ones are drawn, which its axis says.
    """
    curves = dict(sorted(read_curves(session, job.id).items(), key=lambda item: _order(item[0])))
    if not curves:
        raise Problem("not-found", f"Job {job.id!r} has no curves.", hint="Trainings have them from their first step.")
    title, columns = _title(session, job), min(_COLUMNS, len(curves))
    rows = math.ceil(len(curves) / columns)

    def paint(figure: Figure) -> None:
        entitle(figure, *title)
        places = figure.subplots(rows, columns, squeeze=False).flat
        for axes, curve in zip_longest(places, curves.items()):
            if curve is None:
                axes.set_axis_off()
            else:
                _paint(axes, *curve)

    return Chart(paint, _WIDTH * max(columns, 2), _HEIGHT * rows + _TITLE)


def _order(name: str) -> tuple[bool, bool, str]:
    return name != "loss", not name.endswith("loss"), name


def _title(session: Session, job: Job) -> tuple[str, str]:
    of_job = select(Dataset.name).join(JobDataset).where(JobDataset.job_id == job.id).order_by(Dataset.name)
    datasets = shorten(", ".join(session.scalars(of_job)) or "gone since", _NAME_LENGTH)
    what = " ".join(str(part) for part in (job.spec.get("method"), job.kind) if part)
    model = shorten(str(job.spec.get("model_name") or job.spec.get("model") or "not named"), _NAME_LENGTH)
    return f"Curves: model {model}, data set {datasets}", f"{what} job {job.id}, {job.state}"


def _paint(axes: Axes, name: str, curve: Curve) -> None:
    size = math.ceil(len(curve) / _POINTS)
    points = [_mean(curve[start : start + size]) for start in range(0, len(curve), size)]
    of = f", mean of {size} points" if size > 1 else ""
    label_axes(axes, f"step (batches){of}", _unit(name))
    marker = "o" if len(points) <= _MARKED else ""
    axes.plot([step for step, _ in points], [value for _, value in points], color=BLUE, marker=marker, markersize=3)
    axes.set_title(shorten(name, _NAME_LENGTH))
    if _is_share(name):
        axes.set_ylim(-0.03, 1.03)


def _mean(points: Curve) -> tuple[int, float]:
    """The last step and the mean value; NaN, a gap in the line, where one of them is no number."""
    return points[-1][0], fmean(math.nan if value is None else value for _, value in points)


def _unit(name: str) -> str:
    if _is_share(name):
        return "share (0 to 1)"
    return f"{'loss' if name.endswith('loss') else 'value'} (no unit)"


def _is_share(name: str) -> bool:
    return any(part in name for part in ("rank1", "mAP", "accuracy", "both_losses"))
