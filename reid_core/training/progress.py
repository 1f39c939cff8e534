"""Progress and speed of a training."""

from __future__ import annotations

import time
from dataclasses import dataclass

from reid_core.pace import Pace
from reid_core.training.checkpoint import Position


@dataclass(frozen=True, slots=True)
class Span:
    """The place of a run in a chain of runs: it takes the whole from `start` to `stop` (fractions, 0 to 1), and
    `steps_before` optimiser steps were done before it. Progress counts so; checkpoint and history are the run's own."""

    start: float
    stop: float
    steps_before: int


WHOLE = Span(start=0.0, stop=1.0, steps_before=0)


@dataclass(frozen=True, slots=True)
class Progress:
    """One finished piece of work.

    Attributes:
        fraction: 0 to 1 of the whole, that is of the chain where the run is part of one.
        epoch, epochs: of the run; the epoch this step belongs to, from 1.
        step, steps: within the epoch, from 1.
        total_step: optimiser steps since the start of the whole: where `values` lie on the curves.
        images_per_second: at the present pace; None while that is not known.
        eta_seconds: time left of the whole at the present pace; None while that is not known.
        values: what was added to the curves.
    """

    phase: str
    fraction: float
    epoch: int
    epochs: int
    step: int
    steps: int
    total_step: int
    images_per_second: float | None
    eta_seconds: float | None
    values: dict[str, float]


class Stopwatch:
    """Measures a training's pace and says when a checkpoint is due."""

    def __init__(self, checkpoint_seconds: float, span: Span = WHOLE) -> None:
        self._span = span
        self._checkpoint_seconds = checkpoint_seconds
        self._last_checkpoint = time.monotonic()
        self._pace = Pace()

    def progress(self, phase: str, position: Position, images: int, values: dict[str, float]) -> Progress:
        """Makes the progress of the step that just ended, which took `images` images."""
        span = self._span
        fraction = span.start + (span.stop - span.start) * position.fraction
        estimate = self._pace.mark(images, fraction)
        return Progress(
            phase=phase,
            fraction=fraction,
            epoch=min(position.epochs, position.epoch + 1) if phase == "train" else position.epoch,
            epochs=position.epochs,
            step=position.step_in_epoch,
            steps=position.steps,
            total_step=span.steps_before + position.step,
            images_per_second=estimate.images_per_second,
            eta_seconds=estimate.eta_seconds,
            values=values,
        )

    def checkpoint_due(self) -> bool:
        """True once the given seconds went by since it was last true."""
        now = time.monotonic()
        if now - self._last_checkpoint < self._checkpoint_seconds:
            return False
        self._last_checkpoint = now
        return True
