"""So many at a time, so many that wait, none for long: more are told to come again."""

from __future__ import annotations

import asyncio

import pytest

from service.api.admission import Admission
from service.errors import Problem
from tests.waiting import HANG_SECONDS


def test_turns_come_in_order_and_more_than_there_are_places_for_are_refused_at_once() -> None:
    asyncio.run(_turns_come_in_order())


async def _turns_come_in_order() -> None:
    admission = Admission("searches", 2, waiting=3, seconds=HANG_SECONDS)
    may_end, began = asyncio.Event(), []

    async def ask(number: int) -> None:
        async with admission.turn():
            began.append(number)
            await may_end.wait()

    tasks = [asyncio.create_task(ask(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert began == [0, 1]
    with pytest.raises(Problem, match="5 searches are being answered or wait") as full:
        admission.refuse_if_full()
    assert (full.value.status, full.value.headers["Retry-After"]) == (503, "2")
    with pytest.raises(Problem, match="Too busy"):
        await ask(5)
    may_end.set()
    await asyncio.gather(*tasks)
    assert began == [0, 1, 2, 3, 4]
    admission.refuse_if_full()


def test_who_waits_too_long_is_refused_and_leaves_the_queue() -> None:
    asyncio.run(_who_waits_too_long())


async def _who_waits_too_long() -> None:
    admission = Admission("uploads", 1, waiting=1, seconds=0.01)
    async with admission.turn():
        with pytest.raises(Problem, match="uploads have to wait longer than"):
            async with admission.turn():
                pass
    async with admission.turn():
        admission.refuse_if_full()


def test_what_fails_gives_its_turn_back() -> None:
    asyncio.run(_what_fails())


async def _what_fails() -> None:
    admission = Admission("searches", 1, waiting=0, seconds=HANG_SECONDS)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with admission.turn():
                raise ZeroDivisionError
