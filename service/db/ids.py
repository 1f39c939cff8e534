"""Identifiers: prefixed, sortable by the time they were made, never reused.

`job_` + 26 characters of Crockford's base 32 in lower case: 52 bits of microseconds since 1970, 78 random bits.
"""

from __future__ import annotations

import secrets
import time
from typing import Literal

Prefix = Literal["ds", "img", "job", "mdl", "gal", "key", "eval", "search", "evt", "clu", "fb"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_BITS = 78
_LENGTH = 26


def new_id(prefix: Prefix) -> str:
    """A fresh id such as `ds_00d4k3...`; one made a microsecond later sorts after it."""
    return new_ids(prefix, 1)[0]


def new_ids(prefix: Prefix, count: int) -> list[str]:
    """`count` fresh ids in ascending order, for rows that are made together and have an order."""
    microseconds = time.time_ns() // 1000
    # One bit less than there is room for, so that counting up never carries into the time.
    first = (microseconds << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS - 1)
    return [f"{prefix}_{_encode(first + i)}" for i in range(count)]


def _encode(number: int) -> str:
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(5 * (_LENGTH - 1), -1, -5))
