"""Links in answers point below the prefix that the request came by."""

from __future__ import annotations

from fastapi import Request
from starlette.types import Scope


def prefix_of(request: Request) -> str:
    """The prefix of links in answers: REID_ROOT_PATH, and `/v1` where the request came that way."""
    root: str = request.scope.get("root_path", "")
    return root + ("/v1" if route_path(request.scope).startswith("/v1/") else "")


def route_path(scope: Scope) -> str:
    """The address that was asked for, without REID_ROOT_PATH."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
