"""API keys: secret, stored hashed, limited by scopes; the first one is made once and left in a private file."""

from __future__ import annotations

import stat
import threading
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from service.auth import SCOPES, Caller, Scope, demand, hash_key, make_key, sent_key
from service.clock import utc_now
from service.db.session import Database
from service.db.tables import ApiKey
from service.errors import Problem
from service.keys.lifecycle import KeyUses, authenticate, create_key, delete_key, ensure_admin_key, find_key
from service.settings import Settings


def test_keys_are_long_and_never_the_same() -> None:
    keys = {make_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("reid_") and len(key) >= 5 + 43 for key in keys)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"authorization": "Bearer abc"}, "abc"),
        ({"authorization": "bearer  abc "}, "abc"),
        ({"x-api-key": "abc"}, "abc"),
        ({"authorization": "Bearer abc", "x-api-key": "other"}, "abc"),
        ({"authorization": "Basic dTpw", "x-api-key": "abc"}, "abc"),
        ({"authorization": "Basic dTpw"}, None),
        ({"authorization": "Bearer "}, None),
        ({"x-api-key": " "}, None),
        ({}, None),
    ],
)
def test_a_key_is_found_in_either_header(headers: dict[str, str], expected: str | None) -> None:
    assert sent_key(headers) == expected


@pytest.mark.parametrize("held", SCOPES)
@pytest.mark.parametrize("needed", SCOPES)
def test_a_scope_allows_itself_and_admin_allows_all(held: Scope, needed: Scope) -> None:
    assert Caller("key_1", frozenset({held})).may(needed) is (held in (needed, "admin"))


def test_refusals_say_what_is_needed() -> None:
    with pytest.raises(Problem) as nobody:
        demand(None, "read")
    assert (nobody.value.status, nobody.value.headers["WWW-Authenticate"]) == (401, 'Bearer realm="reid"')
    with pytest.raises(Problem, match="needs the scope 'erase'; the key's scopes are: read, search") as weak:
        demand(Caller("key_1", frozenset({"search", "read"})), "erase")
    assert weak.value.status == 403


def test_a_key_is_recognised_and_only_its_hash_is_stored(each_database: Database) -> None:
    with each_database.write() as session:
        row, key = create_key(session, name="camera", scopes=["write", "read", "read"])
    assert authenticate(each_database, key) == Caller(row.id, frozenset({"read", "write"}))
    assert authenticate(each_database, key + "x") is None
    with each_database.read() as session:
        stored = find_key(session, "camera")
    assert stored.hash == hash_key(key)
    assert key not in repr(vars(stored))


def test_uses_are_written_beside_the_requests(each_database: Database) -> None:
    with each_database.write() as session:
        row, key = create_key(session, name="camera", scopes=["read"])
        create_key(session, name="other", scopes=["read"])
    uses = KeyUses()
    with each_database.write():  # the write lock is another's
        caller = authenticate(each_database, key)
        assert caller is not None
        uses.note(caller.key_id or "")
        uses.note("key_gone")
    uses.write(each_database)
    with each_database.read() as session:
        assert find_key(session, row.id).last_used_at is not None
        assert find_key(session, "other").last_used_at is None


def test_an_expired_key_is_not_recognised(database: Database) -> None:
    with database.write() as session:
        _, key = create_key(session, name="guest", scopes=["read"], expires_at=utc_now() - timedelta(seconds=1))
    assert authenticate(database, key) is None


def test_a_deleted_key_stops_working_at_once(database: Database) -> None:
    with database.write() as session:
        _, key = create_key(session, name="guest", scopes=["read"])
    with database.write() as session:
        delete_key(session, "guest")
    assert authenticate(database, key) is None


def test_a_key_file_that_is_there_becomes_a_new_database_s_first_key(database: Database, settings: Settings) -> None:
    key = make_key()
    settings.home.mkdir(exist_ok=True)
    settings.admin_key_path.write_text(f"{key}\n")
    assert ensure_admin_key(database, settings) is None
    assert settings.admin_key_path.read_text() == f"{key}\n"
    caller = authenticate(database, key)
    assert caller is not None
    assert caller.may("admin")


def test_a_key_file_with_something_else_in_it_is_not_overwritten(database: Database, settings: Settings) -> None:
    settings.home.mkdir(exist_ok=True)
    settings.admin_key_path.write_text("my notes")
    with pytest.raises(RuntimeError, match="move it away"):
        ensure_admin_key(database, settings)
    assert settings.admin_key_path.read_text() == "my notes"


def test_the_last_admin_key_stays(database: Database) -> None:
    with database.write() as session:
        create_key(session, name="old", scopes=["admin"])
        create_key(session, name="expired", scopes=["admin"], expires_at=utc_now())
    with pytest.raises(Problem, match="'old' is the only admin key"), database.write() as session:
        delete_key(session, "old")
    with database.write() as session:
        create_key(session, name="new", scopes=["admin"])
        delete_key(session, "old")


def test_two_keys_cannot_share_a_name(each_database: Database) -> None:
    with each_database.write() as session:
        create_key(session, name="twin", scopes=["read"])
    with pytest.raises(Problem, match="called 'twin' already"), each_database.write() as session:
        create_key(session, name="twin", scopes=["read"])
    assert _count(each_database) == 1


def test_the_first_start_makes_an_admin_key_in_a_private_file(database: Database, settings: Settings) -> None:
    key = ensure_admin_key(database, settings)
    assert key is not None
    assert settings.admin_key_path.read_text() == key + "\n"
    assert stat.S_IMODE(settings.admin_key_path.stat().st_mode) == 0o600
    caller = authenticate(database, key)
    assert caller is not None
    assert caller.may("erase")
    assert ensure_admin_key(database, settings) is None
    assert settings.admin_key_path.read_text() == key + "\n"


def test_of_processes_that_start_together_one_makes_the_key(each_database: Database, settings: Settings) -> None:
    made: list[str | None] = []
    threads = [
        threading.Thread(target=lambda: made.append(ensure_admin_key(each_database, settings))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (key,) = [key for key in made if key]
    assert len(made) == 4
    assert _count(each_database) == 1
    assert settings.admin_key_path.read_text() == key + "\n"


def test_without_its_file_the_first_key_is_not_made(database: Database, settings: Settings) -> None:
    settings.admin_key_path.mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        ensure_admin_key(database, settings)
    assert _count(database) == 0


def _count(database: Database) -> int | None:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(ApiKey))
