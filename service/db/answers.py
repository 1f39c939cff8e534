"""Answers to requests with an Idempotency-Key, remembered so that a repeated request is not done twice."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import delete, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import RememberedAnswer

STALE_AFTER = timedelta(minutes=10)
"""A request still unanswered after this is taken for lost with its process, and may be sent again."""

_NONCE_BYTES = 16


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The identity of a request: the client's key holds for one API key and one address."""

    key: str
    api_key_id: str
    method: str
    path: str


@dataclass(frozen=True, slots=True)
class SentAnswer:
    """An answer as it was sent."""

    status: int
    headers: dict[str, str]
    body: bytes


Turn = Literal["go", "running", "other"]
"""The right of a request: to be answered, to wait for an equal one that runs, or none: the key is another's."""


def take_turn(
    database: Database, key: RequestKey, body_hash: str, *, secret: str, keep: timedelta
) -> Turn | SentAnswer:
    """Claim the key for this request; or the answer, if an equal request has been answered within `keep`."""
    try:
        with database.write() as session:
            session.execute(delete(RememberedAnswer).where(RememberedAnswer.created_at < utc_now() - keep))
            return _take_turn(session, key, body_hash, secret)
    except IntegrityError:  # on PostgreSQL an equal request may claim the key at the same moment
        return "running"


def remember(database: Database, key: RequestKey, answer: SentAnswer, *, secret: str) -> None:
    """Keep the answer, sealed with `secret`, the caller's API key, which nobody else has and we do not store.

    So an answer that shows a new API key, or names a person who is erased later, cannot be read from the database.
    """
    with database.write() as session:
        if row := session.get(RememberedAnswer, _primary(key)):
            row.status = answer.status
            row.headers = answer.headers
            row.body = _seal(answer.body, secret)


def last_end(session: Session, prefixes: Sequence[str], *, keep: timedelta) -> datetime | None:
    """The time at which the last kept answer of a POST to a path that begins with one of `prefixes` will be deleted;
    None without any."""
    under = or_(*(RememberedAnswer.path.startswith(prefix, autoescape=True) for prefix in prefixes))
    kept = select(func.max(RememberedAnswer.created_at)).where(under, RememberedAnswer.body.is_not(None))
    last = session.scalar(kept)
    return None if last is None else last + keep


def forget_old(database: Database, *, keep: timedelta) -> None:
    """Deletes the answers that have been kept for as long as `keep`."""
    old = RememberedAnswer.created_at < utc_now() - keep
    with database.read() as session:
        if session.scalar(select(RememberedAnswer.key).where(old).limit(1)) is None:
            return
    with database.write() as session:
        session.execute(delete(RememberedAnswer).where(old))


def forget(database: Database, key: RequestKey) -> None:
    """Give the key back: the request failed and changed nothing, so it may be sent again."""
    with database.write() as session:
        if row := session.get(RememberedAnswer, _primary(key)):
            session.delete(row)


def _take_turn(session: Session, key: RequestKey, body_hash: str, secret: str) -> Turn | SentAnswer:
    row = session.get(RememberedAnswer, _primary(key))
    if row is None:
        session.add(
            RememberedAnswer(
                key=key.key, api_key_id=key.api_key_id, method=key.method, path=key.path, body_hash=body_hash
            )
        )
        return "go"
    if row.body_hash != body_hash:
        return "other"
    if row.status is not None:
        return SentAnswer(row.status, row.headers or {}, _unseal(row.body or b"", secret))
    if utc_now() - row.created_at < STALE_AFTER:
        return "running"
    row.created_at = utc_now()
    return "go"


def _primary(key: RequestKey) -> tuple[str, str, str, str]:
    return key.key, key.api_key_id, key.method, key.path


def _seal(content: bytes, secret: str) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + _xor(content, secret, nonce)


def _unseal(sealed: bytes, secret: str) -> bytes:
    return _xor(sealed[_NONCE_BYTES:], secret, sealed[:_NONCE_BYTES])


def _xor(content: bytes, secret: str, nonce: bytes) -> bytes:
    """XOR with SHAKE-256 of nonce and secret: noise to whoever lacks the 256-bit secret, as no nonce comes twice."""
    stream = hashlib.shake_256(nonce + secret.encode()).digest(len(content))
    return (int.from_bytes(content, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(content), "big")
