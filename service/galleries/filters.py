"""Conditions on a gallery's images by which they are listed and erased."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_

from service.db.tables import GalleryImage

Filters = Mapping[str, str | datetime]
"""Values by the names in `FILTERS`; an image has to meet all of them."""

FILTERS: dict[str, Callable[[Any], ColumnElement[bool]]] = {
    "external_id": lambda value: GalleryImage.external_id == value,
    "identity": lambda value: GalleryImage.identity == value,
    "camera": lambda value: GalleryImage.camera == value,
    "captured_after": lambda value: GalleryImage.captured_at >= value,
    "captured_before": lambda value: GalleryImage.captured_at < value,
}
"""An image without a time meets no condition on it."""


def condition_of(filters: Filters) -> ColumnElement[bool]:
    """The condition that an image meets all of at least one of the filters."""
    return and_(*(FILTERS[name](value) for name, value in filters.items()))
