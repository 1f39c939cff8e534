"""Snapshots follow their gallery without being loaded anew."""

from __future__ import annotations

import httpx

from service.db.session import Database
from service.search.snapshots import Snapshots
from service.settings import Settings
from tests.service.galleries.stock import added_ids, upload
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
