"""Transfer chains: trainings one after the other, each from the network of the one before (Yu et al. 2019, table 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from reid_core.training.checkpoint import History
from reid_core.training.initial import from_network
from reid_core.training.loop import CHECKPOINT_NAME, Observer, Plan, Result, fit
from reid_core.training.progress import Span
from reid_core.training.warnings import TrainingWarning


def fit_chain(
    plans: Sequence[Plan],
    folder: Path,
    observe: Callable[[int], Observer] = lambda number: Observer(),
    *,
    checkpoint_seconds: float = 20.0,
) -> Result:
    """Trains every plan from the network that the one before it trained; the first starts as it says itself.

    A plain training is a chain of one. Each stage keeps its checkpoint in a folder of its own in `folder`, so that a
    chain which was interrupted anywhere ends as an unbroken one would: stages that are done come back from theirs.

    Args:
        plans: of one method and backbone; a classifier for another number of identities is made anew, as `on_transfer`
            is told, one for as many others goes on from the one before.
        observe: the observer of the stage of that number (from 0). Fractions, optimiser steps, curves and the epochs of
            graphs go on through the chain; `epoch` and `epochs` of a `Progress` are the stage's.

    Returns:
        The last stage's network, with the curves and warnings of all.

    Raises:
        As `fit` does.
    """
    folders = [folder / f"stage-{number}" for number, _ in enumerate(plans, 1)]
    reached = max((number for number, own in enumerate(folders) if (own / CHECKPOINT_NAME).exists()), default=0)
    curves: History = {}
    epochs, result, warnings = 0, None, list[TrainingWarning]()
    for number, (plan, own, (start, stop)) in enumerate(zip(plans, folders, _shares(plans), strict=True)):
        own.mkdir(parents=True, exist_ok=True)
        if result is not None:
            plan = replace(plan, initialise=from_network(result.network))
        # Stages before the last checkpoint have nothing to tell: the job goes on after them.
        observer = _counting_on(observe(number), curves, epochs, number + 1) if number >= reached else None
        span = Span(start, stop, last_step(curves))
        result = fit(plan, own, observer, checkpoint_seconds=checkpoint_seconds, span=span)
        warnings += [replace(warning, stage=number + 1) for warning in result.warnings]
        curves, epochs = join_curves(curves, result.history), epochs + plan.settings.schedule.epochs
    if result is None:
        raise ValueError("a chain needs at least one plan")
    return replace(result, history=curves, warnings=tuple(warnings))


def _shares(plans: Sequence[Plan]) -> list[tuple[float, float]]:
    """Computes the start and stop of each stage, 0 to 1, by the images that it will see."""
    work = [max(1, plan.settings.schedule.epochs * len(plan.images)) for plan in plans]
    ends = [done / sum(work) for done in accumulate(work)]
    return list(zip([0.0, *ends], ends, strict=False))


def _counting_on(observer: Observer, curves: History, epochs: int, stage: int) -> Observer:
    """The observer of a stage (from 1) after `epochs` epochs with these curves, told of the whole chain."""
    return replace(
        observer,
        on_resume=lambda step, history: observer.on_resume(last_step(curves) + step, join_curves(curves, history)),
        on_graph=lambda epoch, graph, images: observer.on_graph(epochs + epoch, graph, images),
        on_warning=lambda warning: observer.on_warning(replace(warning, stage=stage)),
    )


def join_curves(before: History, after: History) -> History:
    """Joins both to one, the steps of `after` counted on from the last one of `before`."""
    done = last_step(before)
    joined = {name: list(points) for name, points in before.items()}
    for name, points in after.items():
        joined.setdefault(name, []).extend((done + step, value) for step, value in points)
    return joined


def last_step(curves: History) -> int:
    """The last step that any curve has a point at; 0 without one."""
    return max((points[-1][0] for points in curves.values()), default=0)
