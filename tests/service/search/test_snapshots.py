"""Snapshots follow their gallery without being loaded anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import event

from reid_core.retrieval.snapshot import NO_TIME
from service.db.session import Database
from service.db.tables import GalleryImage
from service.galleries.erasure import erase_image
from service.galleries.images import append
from service.galleries.lifecycle import create_gallery
from service.galleries.schemas import GalleryBody
from service.search.snapshots import Snapshots
from service.settings import Settings
from tests.service.galleries.stock import add_model_row, added_ids, upload
from tests.service.search.conftest import COUNT
from tests.service.search.stock import scene


def test_snapshots_are_extended_and_not_loaded_anew(
    client: httpx.Client, ids: list[str], database: Database, settings: Settings
) -> None:
    gallery = client.get("/galleries/hall").json()["id"]
    snapshots = Snapshots(database, settings)
    first = snapshots.current(gallery)
    assert snapshots.current(gallery) is first
    (new,) = added_ids(upload(client, "hall", [scene(50)], [{"camera": "9"}]))
    client.delete(f"/galleries/hall/images/{ids[2]}")
    second = snapshots.current(gallery)
    assert second.snapshot.store is first.snapshot.store
    assert (len(first.snapshot), len(second.snapshot)) == (COUNT, COUNT + 1)
    assert second.snapshot.alive.tolist() == [number != 2 for number in range(COUNT + 1)]
    assert "9" in second.snapshot.camera_names
    assert second.revision == first.revision + 2
    client.delete(f"/galleries/hall/images/{new}")
    fresh, extended = Snapshots(database, settings).current(gallery), snapshots.current(gallery)
    assert fresh.snapshot.alive.tolist() == extended.snapshot.alive.tolist()


def test_after_a_deletion_only_what_was_erased_since_is_read(
    client: httpx.Client, ids: list[str], database: Database, settings: Settings
) -> None:
    gallery = client.get("/galleries/hall").json()["id"]
    snapshots = Snapshots(database, settings)
    snapshots.current(gallery)
    for image in ids[:3]:
        client.delete(f"/galleries/hall/images/{image}")
    with _statements(database) as statements:
        after = snapshots.current(gallery)
    assert np.flatnonzero(~after.snapshot.alive).tolist() == [0, 1, 2]
    assert not any("gallery_images" in statement for statement in statements)
    (erased,) = (statement for statement in statements if "erased_images" in statement)
    assert "revision >" in erased


def test_a_whole_load_reads_cameras_times_and_gaps_alike_on_every_database(
    each_database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.galleries.opening._ROWS_AT_ONCE", 2)
    add_model_row(each_database, "mdl_1", size=4)
    with each_database.write() as session:
        hall = create_gallery(session, settings, GalleryBody(name="hall", model="mdl_1")).id
    moment = datetime(2026, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)
    places = [
        ("door", moment),
        (None, None),
        ("door", moment + timedelta(hours=2)),
        ("7", moment.replace(microsecond=0)),
    ]
    images = [_image(number, camera, time) for number, (camera, time) in enumerate(places)]
    append(each_database, settings, hall, images, (np.eye(4, dtype=np.float32),))
    erase_image(each_database, settings, hall, "img_2", key_id=None)

    snapshot = Snapshots(each_database, settings).current(hall).snapshot

    assert [snapshot.camera_names[number] for number in snapshot.cameras] == ["door", "", "", "7"]
    noon = 1_777_636_800_000_000
    assert snapshot.captured_at.tolist() == [noon + 250_000, NO_TIME, NO_TIME, noon]
    assert snapshot.alive.tolist() == [True, True, False, True]


def _image(number: int, camera: str | None, captured_at: datetime | None) -> GalleryImage:
    told: dict[str, Any] = {"camera": camera, "captured_at": captured_at}
    return GalleryImage(id=f"img_{number}", filename="a", sha256="0", width=1, height=1, **told)


@contextmanager
def _statements(database: Database) -> Iterator[list[str]]:
    """The SQL that is executed in the block."""
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield statements
    event.remove(database.engine, "before_cursor_execute", note)
