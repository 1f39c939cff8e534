"""API keys without their rows: what a key looks like, how it is sent and stored, and what its scopes allow."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from service.errors import Problem

Scope = Literal["read", "search", "write", "erase", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""`admin` implies the others; beside that, each stands for itself."""

_KEY_START = "reid_"
_KEY_BYTES = 32
_KEY = re.compile(_KEY_START + r"[A-Za-z0-9_-]{43}")
_PREFIX_LENGTH = len(_KEY_START) + 6


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a request. `key_id` is None while authentication is off."""

    key_id: str | None
    scopes: frozenset[str]

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes


EVERYONE = Caller(key_id=None, scopes=frozenset({"admin"}))
"""The caller of every request while `REID_AUTH=off`."""


def make_key() -> str:
    """A fresh secret key: `reid_` and 32 random bytes in URL-safe base 64."""
    return _KEY_START + secrets.token_urlsafe(_KEY_BYTES)


def is_key(text: str) -> bool:
    """True for what `make_key` may have made."""
    return _KEY.fullmatch(text) is not None


def hash_key(key: str) -> str:
    """The stored hash of a key: SHA-256 in hex. A key holds 256 random bits, so a slow hash would add nothing."""
    return hashlib.sha256(key.encode()).hexdigest()


def visible_prefix(key: str) -> str:
    """The first characters, by which people tell keys apart."""
    return key[:_PREFIX_LENGTH]


def sent_key(headers: Mapping[str, str]) -> str | None:
    """The key in `Authorization: Bearer` or, without that, in `X-API-Key`; None if there is neither.

    `headers` is looked up in lower case.
    """
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credential.strip():
        return credential.strip()
    return headers.get("x-api-key", "").strip() or None


def unauthenticated(detail: str) -> Problem:
    """The 401 problem, with the header that tells clients how to authenticate."""
    return Problem(
        "unauthenticated",
        detail,
        hint="Send `Authorization: Bearer <key>`; the first key is in `admin.key` in REID_HOME.",
        headers={"WWW-Authenticate": 'Bearer realm="reid"'},
    )


def demand(caller: Caller | None, scope: Scope) -> Caller:
    """The caller, if it may do what `scope` covers; raises the 401 or 403 problem otherwise."""
    if caller is None:
        raise unauthenticated("This needs an API key, and the request carries none that is valid.")
    if not caller.may(scope):
        held = ", ".join(sorted(caller.scopes)) or "none"
        raise Problem(
            "missing-scope",
            f"This needs the scope {scope!r}; the key's scopes are: {held}.",
            hint=f"Ask an admin for a key with {scope!r}: POST /api-keys.",
        )
    return caller
