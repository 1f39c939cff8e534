"""The version of the software that answers."""

from __future__ import annotations

import platform
from importlib.metadata import version

from fastapi import APIRouter

from service.api.schemas import VersionAnswer

router = APIRouter(tags=["service"])


@router.get("/version")
def read_version() -> VersionAnswer:
    """The versions of this service, its API and what it computes with."""
    return VersionAnswer(
        version=version("reid-search"), api="v1", python=platform.python_version(), torch=version("torch")
    )
