"""The filters in the address of routes that list or erase a gallery's images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

from fastapi import Depends, Query

from service.errors import invalid_request
from service.galleries.filters import Filters
from service.schemas import CaptureTime, LabelFilter


@dataclass(frozen=True, slots=True)
class ImageFilters:
    """Conditions that an image has to meet, all that are given; a FastAPI dependency: `filters: FiltersDep`."""

    external_id: Annotated[LabelFilter | None, Query()] = None
    identity: Annotated[LabelFilter | None, Query()] = None
    camera: Annotated[LabelFilter | None, Query()] = None
    captured_after: Annotated[CaptureTime | None, Query(description="taken then or later")] = None
    captured_before: Annotated[CaptureTime | None, Query(description="taken before then")] = None

    def given(self) -> Filters:
        """The values that are asked for; raises 422 for times that no image can lie between."""
        if self.captured_after and self.captured_before and self.captured_after >= self.captured_before:
            message = "captured_after must be earlier than captured_before"
            raise invalid_request("/query/captured_after", "not-earlier", message)
        return {name: value for name, value in asdict(self).items() if value is not None}


FiltersDep = Annotated[ImageFilters, Depends()]
