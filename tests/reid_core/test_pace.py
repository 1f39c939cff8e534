"""Pace and time left, whatever a step takes."""

from __future__ import annotations

import pytest

from reid_core.pace import Pace


@pytest.mark.parametrize("step_seconds", [0.01, 1.0, 60.0, 3600.0])
def test_pace_and_time_left_are_right_for_steps_of_any_length(
    monkeypatch: pytest.MonkeyPatch, step_seconds: float
) -> None:
    pace, steps = Pace(), 40
    for step in range(1, steps + 1):
        monkeypatch.setattr("time.monotonic", lambda step=step: 1000 + step * step_seconds)
        estimate = pace.mark(32, step / steps)
        if step == 1:
            assert (estimate.images_per_second, estimate.eta_seconds) == (None, None)
        else:
            assert estimate.images_per_second == pytest.approx(32 / step_seconds)
            assert estimate.eta_seconds == pytest.approx((steps - step) * step_seconds, abs=1e-6)


def test_the_last_seconds_count(monkeypatch: pytest.MonkeyPatch) -> None:
    pace, now = Pace(), 0.0
    for step, seconds in enumerate([5.0] * 10 + [1.0] * 20, 1):
        now += seconds
        monkeypatch.setattr("time.monotonic", lambda now=now: now)
        estimate = pace.mark(10, step / 100)
    assert estimate.images_per_second == pytest.approx(10.0)
    assert estimate.eta_seconds == pytest.approx(70.0)


def test_where_nothing_moves_the_time_left_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace()
    for now in (1.0, 2.0, 3.0):
        monkeypatch.setattr("time.monotonic", lambda now=now: now)
        estimate = pace.mark(0, 0.5)
    assert (estimate.images_per_second, estimate.eta_seconds) == (0.0, None)
