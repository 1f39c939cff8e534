"""Conditions on the images of a gallery that a search may return."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Filters:
    """The images that a search may return; empty means any.

    Attributes:
        cameras: the cameras to search, or () for all; "" is the camera of images that name none.
        exclude_cameras: cameras whose images are left out.
        captured_after, captured_before: captured_after <= time < captured_before, UTC where no zone is given; either
            one leaves out images without a time.
    """

    cameras: tuple[str, ...] = ()
    exclude_cameras: tuple[str, ...] = ()
    captured_after: datetime | None = None
    captured_before: datetime | None = None
