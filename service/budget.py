"""A budget that threads share: each takes its part of it in the order in which they came, and gives it back."""

from __future__ import annotations

import threading
from collections import deque


class Budget:
    """Any number of threads may use it. Large parts are not overtaken by small ones, so that none waits for ever."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    def take(self, amount: int, *, seconds: float) -> bool:
        """Waits until `amount` is free and takes it; False where that takes longer than `seconds`.

        Raises:
            ValueError: `amount` is more than the whole budget.
        """
        if amount > self.total:
            raise ValueError(f"{amount} is more than the whole budget of {self.total}")
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            taken = self._changed.wait_for(lambda: self._waiting[0] is ticket and self._free >= amount, seconds)
            self._waiting.remove(ticket)
            if taken:
                self._free -= amount
            self._changed.notify_all()
            return taken

    def give_back(self, amount: int) -> None:
        """Ends a part that was taken."""
        with self._changed:
            self._free += amount
            self._changed.notify_all()
