"""Partial values over whole ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The base with just the named values replaced, at any depth; both are left as they are."""
    merged = dict(base)
    for name, value in overrides.items():
        below = base.get(name)
        merged[name] = merge(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return merged
