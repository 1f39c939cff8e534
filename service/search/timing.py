"""The time that each stage of a search takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = ("decode", "embed", "retrieve", "rerank")
"""Told of every search, also those that it did not need."""


class SearchTimer:
    """The time that each stage of a search took, from when this is made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts what happens inside as the time of that stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start

    def timings_ms(self) -> dict[str, float]:
        seconds = {**self._seconds, "total": time.perf_counter() - self._start}
        return {name: round(1000 * value, 3) for name, value in seconds.items()}
