"""Learning rate over a run: linear warm-up, then a decay at each given point or along half a cosine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from torch import optim

from reid_core.settings import Schedule
from reid_core.training.checkpoint import Position

_REFERENCE_EPOCH = 2
"""The epoch, from 1, whose loss later ones are compared with."""

_TINY = 1e-9


def rate_factor(schedule: Schedule, position: Position) -> float:
    """Computes the factor of base_lr at this position of the run."""
    # The strong baseline warms up epoch by epoch; here the rate rises with every step, so that short runs have one.
    fraction, warmup, start = position.fraction, schedule.warmup, schedule.warmup_start
    rise = start + (1 - start) * fraction / warmup if fraction < warmup else 1.0
    return rise * _decay(schedule, position)


def _decay(schedule: Schedule, position: Position) -> float:
    if schedule.shape == "cosine":
        after_warmup = max(position.fraction - schedule.warmup, 0) / max(1 - schedule.warmup, _TINY)
        return (1 + math.cos(math.pi * after_warmup)) / 2
    decays = position.decayed if schedule.adaptive else sum(position.fraction >= point for point in schedule.decay_at)
    return schedule.decay_factor**decays


def set_rates(optimizers: Iterable[optim.Optimizer], factor: float) -> None:
    """Sets every scheduled parameter group's learning rate to its initial one times `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            if group.get("scheduled", True):
                group["lr"] = group["initial_lr"] * factor


def adapt(schedule: Schedule, position: Position, losses: Sequence[float]) -> None:
    """Between epochs of an adaptive schedule: lowers the rate and shortens the run once the loss has fallen.

    Args:
        losses: the mean loss of every epoch so far.
    """
    adaptive, done = schedule.adaptive, position.epoch
    if adaptive is None or position.decayed or done < _REFERENCE_EPOCH:
        return
    if losses[-1] < adaptive.loss_ratio * losses[_REFERENCE_EPOCH - 1]:
        position.decayed = True
        position.epochs = min(position.epochs, done + int(done * adaptive.extension))
