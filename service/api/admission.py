"""A queue with an end: so many requests at a time, so many that wait; who comes after them is told so at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.errors import Problem


class Admission:
    """Lets `at_once` requests do something at a time, in the order in which they came, while `waiting` more wait, none
    for more than `seconds`.

    For the event loop's thread. `what` names them in messages ("searches").
    """

    def __init__(self, what: str, at_once: int, *, waiting: int, seconds: float) -> None:
        self._what = what
        self._places = at_once + waiting
        self._seconds = seconds
        self._turns = asyncio.Semaphore(at_once)
        self._inside = 0

    def refuse_if_full(self) -> None:
        """Raises the 503 problem where no place is free now: before the body is read, since it would be for nothing."""
        if self._inside >= self._places:
            raise self._refusal(f"{self._places} {self._what} are being answered or wait")

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for its turn and holds it; raises the 503 problem where the queue is full or the wait too long."""
        self.refuse_if_full()
        self._inside += 1
        try:
            try:
                async with asyncio.timeout(self._seconds):
                    await self._turns.acquire()
            except TimeoutError:
                raise self._refusal(f"{self._what} have to wait longer than {self._seconds:g} s") from None
            try:
                yield
            finally:
                self._turns.release()
        finally:
            self._inside -= 1

    def _refusal(self, reason: str) -> Problem:
        return Problem("unavailable", f"Too busy: {reason}.", hint="Try again.", headers={"Retry-After": "2"})
