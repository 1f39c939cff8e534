"""Which software answers."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter

router = APIRouter(tags=["service"])


@router.get("/version")
def read_version() -> dict[str, Any]:
    """The versions of this service, its API and what it computes with."""
    return {
        "version": version("reid-search"),
        "api": "v1",
        "python": platform.python_version(),
        "torch": version("torch"),
    }
