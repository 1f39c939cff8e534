"""Debris: the files that operating systems leave among others, and nobody means to keep."""

from __future__ import annotations

DEBRIS = frozenset({"__macosx", "thumbs.db", "desktop.ini"})


def is_debris(name: str) -> bool:
    """True where an operating system left this file or folder: hidden names, `__MACOSX`, `Thumbs.db`, `desktop.ini`."""
    return name.startswith(".") or name.lower() in DEBRIS
