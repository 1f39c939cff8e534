"""The reliability diagram of a model's calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from service.db.tables import Model
from service.drawing.charts import Chart, entitle, label_axes
from service.drawing.colours import BLUE, NEUTRAL
from service.drawing.text import shorten
from service.errors import Problem
from service.models.calibrations import describe_calibrations
from service.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAME_LENGTH = 34
_COUNTS = {
    "identities": "people",
    "images": "images",
    "same_pairs": "pairs of one person",
    "different_pairs": "of two",
}


def plot_reliability(settings: Settings, model: Model, rerank: str) -> Chart:
    """Probabilities beside the truth, on people held out of the fit, and how pairs are spread over them.

    Raises 404 where the model has no calibration for searches that re-rank so.
    """
    calibration = _find(settings, model, rerank)
    bins = calibration["reliability"]

    def paint(figure: Figure) -> None:
        entitle(figure, *_title(model, calibration))
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        label_axes(upper, "", "observed: pairs of one person (share)")
        upper.plot([0, 1], [0, 1], color=NEUTRAL, linestyle="--", label="as predicted")
        predicted, observed = ([one[name] for one in bins] for name in ("predicted", "observed"))
        upper.plot(predicted, observed, "o-", color=BLUE, label="held-out pairs, by tenths of probability")
        upper.set(xlim=(0, 1), ylim=(0, 1.02))
        upper.legend(loc="upper left")
        label_axes(lower, "predicted probability of one person (0 to 1)", "pairs (share)")
        widths = [one["high"] - one["low"] for one in bins]
        lower.bar([one["low"] for one in bins], [one["share"] for one in bins], widths, align="edge", color=BLUE)

    return Chart(paint, 5.6, 6.2)


def _find(settings: Settings, model: Model, rerank: str) -> dict[str, Any]:
    known = {one["rerank"]: one for one in describe_calibrations(settings, model.id)}
    if rerank not in known:
        raise Problem(
            "not-found",
            f"Model {model.name!r} has no calibration for rerank {rerank!r}; it has {', '.join(known) or 'none'}.",
            hint="Start a job of kind calibrate for it, with `rerank` none, qaconv or k_reciprocal.",
        )
    return known[rerank]


def _title(model: Model, calibration: Mapping[str, Any]) -> tuple[str, ...]:
    fitted = calibration["fitted_on"]
    counts = ", ".join(f"{fitted[name]} {words}" for name, words in _COUNTS.items() if name in fitted)
    dataset = shorten(str(fitted.get("name", "not named")), _NAME_LENGTH)
    return (
        f"Reliability: model {shorten(model.name, _NAME_LENGTH)}, re-ranking {calibration['rerank']}",
        f"data set {dataset}",
        counts,
        f"{calibration['kind']} curve; expected calibration error {calibration['expected_calibration_error']:.3f}; "
        "both kinds of pairs weigh alike",
    )
