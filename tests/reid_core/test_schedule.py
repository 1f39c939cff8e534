"""Learning rate over a run."""

from __future__ import annotations

import pytest

from reid_core.settings import Adaptive, Schedule
from reid_core.training.checkpoint import Position
from reid_core.training.schedule import adapt, rate_factor

STEPS = Schedule(epochs=10, base_lr=1, warmup=0.2, warmup_start=0.1, decay_at=(0.5, 0.8), decay_factor=0.1)
ADAPTIVE = STEPS.model_copy(update={"warmup": 0, "adaptive": Adaptive(loss_ratio=0.7, extension=0.5), "epochs": 60})


@pytest.mark.parametrize(
    ("epoch", "factor"), [(0, 0.1), (1, 0.55), (2, 1), (4, 1), (5, 0.1), (7, 0.1), (8, 0.01), (9, 0.01)]
)
def test_the_rate_warms_up_and_decays_at_the_given_fractions(epoch: int, factor: float) -> None:
    assert rate_factor(STEPS, Position(epochs=10, epoch=epoch)) == pytest.approx(factor)


def test_an_adaptive_schedule_decays_once_the_loss_has_fallen_and_ends_half_as_many_epochs_later() -> None:
    position, losses = Position(epochs=60), [9.0, 5.0, 4.0, 3.6, 3.4, 0.1]
    for epoch in range(1, 6):
        position.epoch = epoch
        adapt(ADAPTIVE, position, losses[:epoch])
        assert position.decayed == (epoch == 5)  # 3.4 is the first below 0.7 of 5.0
    assert position.epochs == 7
    assert rate_factor(ADAPTIVE, position) == pytest.approx(0.1)
    position.epoch = 6
    adapt(ADAPTIVE, position, losses)
    assert position.epochs == 7


def test_an_adaptive_schedule_never_lengthens_a_run() -> None:
    position = Position(epochs=6, epoch=5)
    adapt(ADAPTIVE, position, [9.0, 5.0, 4.0, 3.6, 0.1])
    assert position.epochs == 6


def test_a_plain_schedule_is_left_alone() -> None:
    position = Position(epochs=10, epoch=3)
    adapt(STEPS, position, [9.0, 5.0, 0.1])
    assert not position.decayed


@pytest.mark.parametrize(("epoch", "factor"), [(0, 0.1), (1, 0.55), (2, 1), (6, 0.5), (10, 0)])
def test_the_rate_falls_along_half_a_cosine_after_the_warm_up(epoch: int, factor: float) -> None:
    cosine = STEPS.model_copy(update={"shape": "cosine"})
    assert rate_factor(cosine, Position(epochs=10, epoch=epoch)) == pytest.approx(factor)
