"""The pace of long work: images a second and the time that is left, over the last seconds of it."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

_WINDOW_SECONDS = 10.0
_MOST_MARKS = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """`images_per_second`, and `eta_seconds` until the whole is done; both None while there is nothing to go by."""

    images_per_second: float | None
    eta_seconds: float | None


class Pace:
    """Measures from mark to mark, over the last ten seconds or, where a step takes longer, over the last step."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int, float]] = deque(maxlen=_MOST_MARKS)
        self._images = 0

    def mark(self, images: int, fraction: float) -> Estimate:
        """The estimate once `images` more images are done and `fraction` of the whole, 0 to 1."""
        now = time.monotonic()
        self._images += images
        self._marks.append((now, self._images, fraction))
        while len(self._marks) > 2 and now - self._marks[1][0] >= _WINDOW_SECONDS:
            self._marks.popleft()
        since, images_before, fraction_before = self._marks[0]
        seconds, gained = now - since, fraction - fraction_before
        if fraction >= 1:
            eta: float | None = 0.0
        else:
            eta = (1 - fraction) * seconds / gained if gained > 0 else None
        return Estimate((self._images - images_before) / seconds if seconds > 0 else None, eta)
