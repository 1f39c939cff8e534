"""Learning rate over a run: linear warm-up, then a decay at each given point."""

from __future__ import annotations

from collections.abc import Iterable

from torch import optim

from reid_core.settings import Schedule


def rate_factor(schedule: Schedule, fraction: float) -> float:
    """What base_lr is multiplied by at `fraction` (0 to 1) of the run.

    # The strong baseline warms up epoch by epoch; here the rate rises with every step, so that short runs have one.
    """
    decays = sum(fraction >= point for point in schedule.decay_at)
    factor = schedule.decay_factor**decays
    if fraction < schedule.warmup:
        factor *= schedule.warmup_start + (1 - schedule.warmup_start) * fraction / schedule.warmup
    return factor


def set_rates(optimizers: Iterable[optim.Optimizer], factor: float) -> None:
    """Sets every scheduled parameter group's learning rate to its initial one times `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            if group.get("scheduled", True):
                group["lr"] = group["initial_lr"] * factor
