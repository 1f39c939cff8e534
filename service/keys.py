"""API keys as rows: making, listing, deleting and recognising them, and the first admin key."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service import storage
from service.auth import Caller, Scope, hash_key, make_key, visible_prefix
from service.clock import utc_now
from service.db.ids import new_id
from service.db.session import Database
from service.db.tables import ApiKey
from service.errors import Problem, not_found
from service.settings import Settings

FIRST_KEY_NAME = "admin"
_USE_NOTED_EVERY = timedelta(minutes=1)


def create_key(
    session: Session, *, name: str, scopes: Sequence[Scope], expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """A new key's row and the key itself, which is nowhere kept; raises `name-taken`."""
    key = make_key()
    row = ApiKey(
        id=new_id("key"),
        name=name,
        prefix=visible_prefix(key),
        hash=hash_key(key),
        scopes=sorted(set(scopes)),
        expires_at=expires_at,
    )
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:
        raise Problem(
            "name-taken", f"there is a key called {name!r} already", hint="choose another name, or delete that key"
        ) from error
    return row, key


def find_key(session: Session, key_id: str) -> ApiKey:
    """The key's row by its id or name; raises 404."""
    row = session.get(ApiKey, key_id) or session.scalar(select(ApiKey).where(ApiKey.name == key_id))
    if row is None:
        raise not_found("API key", key_id, names=session.scalars(select(ApiKey.name)).all())
    return row


def delete_key(session: Session, key_id: str) -> ApiKey:
    """Remove the key, which stops working at once, and return its row; raises 404, and 409 for the last admin key."""
    row = find_key(session, key_id)
    if _is_admin(row) and not any(_is_admin(other) for other in session.scalars(select(ApiKey)) if other is not row):
        raise Problem("in-use", f"{row.name!r} is the only admin key", hint="make another admin key first")
    session.delete(row)
    return row


def recognise(database: Database, key: str) -> Caller | None:
    """The caller that the key belongs to; None if it is unknown or has expired. Notes the use once a minute."""
    with database.read() as session:
        row = session.scalar(select(ApiKey).where(ApiKey.hash == hash_key(key)))
    if row is None or _has_expired(row):
        return None
    now = utc_now()
    if row.last_used_at is None or now - row.last_used_at > _USE_NOTED_EVERY:
        with database.write() as session:
            if current := session.get(ApiKey, row.id):
                current.last_used_at = now
    return Caller(key_id=row.id, scopes=frozenset(row.scopes))


def ensure_admin_key(database: Database, settings: Settings) -> str | None:
    """Make the first key, an admin's, if there is no key at all; returns it then, and None otherwise.

    The key is left in `settings.admin_key_path`, readable by the owner only. Of several processes that start
    together, one makes it.
    """
    try:
        with database.write() as session:
            if session.scalar(select(ApiKey.id).limit(1)) is not None:
                return None
            _, key = create_key(session, name=FIRST_KEY_NAME, scopes=["admin"])
            # Before the commit: a key whose file could not be written must not exist.
            storage.write_file(settings.admin_key_path, f"{key}\n".encode(), mode=0o600)
    except Problem as problem:
        if problem.slug == "name-taken":  # on PostgreSQL two processes may both have seen an empty table
            return None
        raise
    return key


def _is_admin(row: ApiKey) -> bool:
    return "admin" in row.scopes and not _has_expired(row)


def _has_expired(row: ApiKey) -> bool:
    return row.expires_at is not None and row.expires_at <= utc_now()
