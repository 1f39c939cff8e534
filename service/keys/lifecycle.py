"""API keys as rows: making, listing, deleting and recognising them, and the first admin key."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service import storage
from service.auth import Caller, Scope, hash_key, is_key, make_key, visible_prefix
from service.clock import utc_now
from service.db.ids import new_id
from service.db.session import Database
from service.db.tables import ApiKey
from service.errors import Problem, not_found
from service.settings import Settings

FIRST_KEY_NAME = "admin"

_CALLER = select(ApiKey.id, ApiKey.scopes, ApiKey.expires_at).where(ApiKey.hash == bindparam("hash"))


def create_key(
    session: Session, *, name: str, scopes: Sequence[Scope], expires_at: datetime | None = None, key: str | None = None
) -> tuple[ApiKey, str]:
    """A new key's row and the key itself, made here unless it is given, and nowhere kept; raises `name-taken`."""
    key = key or make_key()
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
            "name-taken", f"There is a key called {name!r} already.", hint="Choose another name, or delete that key."
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
        raise Problem("in-use", f"{row.name!r} is the only admin key.", hint="Make another admin key first.")
    session.delete(row)
    return row


def authenticate(database: Database, key: str) -> Caller | None:
    """The caller that the key belongs to; None if it is unknown or has expired."""
    with database.look() as connection:
        row = connection.execute(_CALLER, {"hash": hash_key(key)}).one_or_none()
    if row is None or _is_past(row.expires_at):
        return None
    return Caller(key_id=row.id, scopes=frozenset(row.scopes))


class KeyUses:
    """The times at which keys were last used, written beside the requests: none of them waits for the write lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, datetime] = {}

    def note(self, key_id: str) -> None:
        """Remembers that the key is used now."""
        with self._lock:
            self._seen[key_id] = utc_now()

    def write(self, database: Database) -> None:
        """Writes what has been noted since the last time; a key that is gone by now is left out."""
        with self._lock:
            seen, self._seen = self._seen, {}
        if seen:
            with database.write() as session:
                for key_id, used_at in seen.items():
                    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=used_at))


def ensure_admin_key(database: Database, settings: Settings) -> str | None:
    """Make the first key, an admin's, if there is no key at all; returns it then, and None otherwise.

    The key is left in `settings.admin_key_path`, readable by the owner only. A key that lies there already, made for
    another database, becomes this one's first key and is never overwritten. Of several processes that start together,
    one makes it.

    Raises:
        RuntimeError: what lies there is no key.
    """
    try:
        with database.write() as session:
            if session.scalar(select(ApiKey.id).limit(1)) is not None:
                return None
            kept = _kept_key(settings)
            _, key = create_key(session, name=FIRST_KEY_NAME, scopes=["admin"], key=kept)
            if kept is None:
                # Before the commit: a key whose file could not be written must not exist.
                storage.write_file(settings.admin_key_path, f"{key}\n".encode(), mode=0o600)
    except Problem as problem:
        if problem.slug == "name-taken":  # on PostgreSQL two processes may both have seen an empty table
            return None
        raise
    return key if kept is None else None


def _kept_key(settings: Settings) -> str | None:
    """The key in the admin key's file; None where there is no file."""
    if not settings.admin_key_path.exists():
        return None
    key = settings.admin_key_path.read_text().strip()
    if not is_key(key):
        raise RuntimeError(f"{settings.admin_key_path} holds no key of ours; move it away, and a new one is made")
    return key


def _is_admin(row: ApiKey) -> bool:
    return "admin" in row.scopes and not _is_past(row.expires_at)


def _is_past(moment: datetime | None) -> bool:
    return moment is not None and moment <= utc_now()
