"""A budget is never exceeded, given out in order, and refused after the time that somebody would wait."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.budget import Budget
from tests.waiting import HANG_SECONDS, wait_until


def test_no_more_than_the_whole_is_taken_at_any_time() -> None:
    budget, lock, taken, most = Budget(100), threading.Lock(), 0, 0

    def work(seed: int) -> None:
        nonlocal taken, most
        for _ in range(50):
            amount = random.Random(seed).randint(1, 100)
            assert budget.take(amount, seconds=HANG_SECONDS)
            with lock:
                taken += amount
                most = max(most, taken)
            with lock:
                taken -= amount
            budget.give_back(amount)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert most <= 100
    assert budget.take(100, seconds=0)


def test_what_is_not_free_in_time_is_refused_and_holds_nobody_up() -> None:
    budget = Budget(10)
    assert budget.take(8, seconds=0)
    assert not budget.take(3, seconds=0.01)
    assert budget.take(2, seconds=0)


def test_a_large_part_is_not_overtaken_by_small_ones() -> None:
    budget, order = Budget(10), []
    assert budget.take(8, seconds=0)

    def take(amount: int) -> None:
        assert budget.take(amount, seconds=HANG_SECONDS)
        order.append(amount)
        budget.give_back(amount)

    with ThreadPoolExecutor(2) as pool:
        large = pool.submit(take, 10)
        wait_until(lambda: len(budget._waiting) == 1)
        small = pool.submit(take, 1)
        wait_until(lambda: len(budget._waiting) == 2)
        budget.give_back(8)
        large.result(HANG_SECONDS)
        small.result(HANG_SECONDS)
    assert order == [10, 1]


def test_more_than_the_whole_is_an_error() -> None:
    with pytest.raises(ValueError, match="11 is more than the whole budget of 10"):
        Budget(10).take(11, seconds=0)
