"""Choice of the epoch whose network a training keeps, by the mAP of people who were held out, and early stopping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from reid_core.errors import DatasetError
from reid_core.settings import Validation
from reid_core.training.checkpoint import Run
from reid_core.training.validation import HeldOut


@dataclass(frozen=True, slots=True)
class Kept:
    """The epoch whose network was kept, for the model's lineage.

    Attributes:
        rule: `settings.validation.keep`.
        epoch: from 1; 0 is the network as initialised.
        epochs: epochs that were trained, with those after `epoch`.
        mAP: of the held-out people by this network, 0 to 1; None where it was not measured.
        stopped_early: patience ended the run before `settings.schedule.epochs`.
    """

    rule: Literal["best", "last"]
    epoch: int
    epochs: int
    mAP: float | None  # noqa: N815
    stopped_early: bool


def check_held_out(validation: Validation, held_out: HeldOut | None) -> None:
    """Checks that there is something to choose by.

    Raises:
        DatasetError: the settings choose by held-out people, and the data set has too few to hold any out.
    """
    if held_out is None and validation.needs_people:
        raise DatasetError(
            f"settings.validation.fraction {validation.fraction:g} holds nobody out: too few identities are seen by "
            "two cameras.",
            hint='Use a larger fraction, or keep "last" without patience.',
        )


def choose(run: Run, validation: Validation, values: Mapping[str, float]) -> None:
    """After an epoch that measured `values`: remembers the best network, and ends the run where patience is over."""
    if not validation.needs_people or "mAP" not in values:
        return
    position, best = run.position, run.best
    if values["mAP"] > best.score:  # of equals the first stays
        best.epoch, best.step, best.score = position.epoch, position.step, values["mAP"]
        if validation.keep == "best":
            best.weights = {name: tensor.detach().cpu().clone() for name, tensor in run.network.state_dict().items()}
    worse = sum(step > best.step for step, _ in run.history["mAP"])
    if validation.patience is not None and worse >= validation.patience and position.epoch < position.epochs:
        position.epochs = position.epoch
        position.stopped_early = True


def keep(run: Run, validation: Validation) -> Kept:
    """Puts the weights to keep into the run's network; it stays the last one where none was measured."""
    position, measured = run.position, run.history.get("mAP", [])
    last = measured[-1][1] if measured else None
    if not run.best.weights:
        return Kept(validation.keep, position.epoch, position.epoch, last, position.stopped_early)
    run.network.load_state_dict(run.best.weights)
    return Kept(validation.keep, run.best.epoch, position.epoch, run.best.score, position.stopped_early)
