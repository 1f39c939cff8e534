"""Signatures of webhooks, by the specification of Standard Webhooks (symmetric, v1)."""

from __future__ import annotations

import base64
import hashlib
import hmac

_PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """The key that the secret stands for: base64 behind `whsec_`, else its own bytes; raises ValueError."""
    if not secret.startswith(_PREFIX):
        return secret.encode()
    return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)


def sign(secret: str, event_id: str, timestamp: int, body: str) -> str:
    """The value of `webhook-signature`: HMAC-SHA256 over id, timestamp (seconds since 1970) and body."""
    signed = f"{event_id}.{timestamp}.{body}".encode()
    digest = hmac.new(key_of(secret), signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"
