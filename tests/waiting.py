"""Waiting for what comes late, not never, where others need the processor too."""

from __future__ import annotations

import time
from collections.abc import Callable

HANG_SECONDS = 600.0
"""Only what hangs takes as long; less than the time limit of a test."""


def wait_until(done: Callable[[], bool], *, why: Callable[[], str] = lambda: "") -> None:
    """Returns once `done()`; after `HANG_SECONDS` an AssertionError that tells `why()`."""
    deadline = time.monotonic() + HANG_SECONDS
    while not done():
        assert time.monotonic() < deadline, f"not within {HANG_SECONDS} s {why()}"
        time.sleep(0.05)
