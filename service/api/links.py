"""Links in answers point below the prefix that the request came by."""

from __future__ import annotations

from fastapi import Request


def prefix_of(request: Request) -> str:
    """`/v1` where the request came that way, else the empty text."""
    return "/v1" if request.url.path.startswith("/v1/") else ""
