"""Loaded galleries take no more memory than is allowed, deleted ones none, and those in use are loaded ahead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import psutil
import pytest

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.errors import Problem
from service.galleries.files import generation_folder
from service.galleries.images import append
from service.galleries.lifecycle import create_gallery
from service.galleries.schemas import GalleryBody
from service.memory import machine_bytes
from service.search.snapshots import COLUMN_BYTES, Snapshots
from service.search.upkeep import Upkeep
from service.settings import Settings
from tests.service.galleries.stock import add_model_row
from tests.waiting import wait_until

SIZE = 512
COUNT = 100
BYTES = COUNT * (4 * SIZE + COLUMN_BYTES)
"""What each of the galleries takes."""

Galleries = list[str]


@pytest.fixture
def galleries(database: Database, settings: Settings) -> Galleries:
    """Three galleries of as many images each; the last one was searched last, the first one longest ago."""
    add_model_row(database, "mdl_1", size=SIZE)
    return [_gallery(database, settings, number) for number in range(3)]


def _gallery(database: Database, settings: Settings, number: int) -> str:
    with database.write() as session:
        gallery = create_gallery(session, settings, GalleryBody(name=f"hall-{number}", model="mdl_1"))
        gallery.searched_at = utc_now() + timedelta(hours=number)
    images = [
        GalleryImage(id=f"img_{number}_{place}", filename="a", sha256="0", width=1, height=1) for place in range(COUNT)
    ]
    vectors = np.random.default_rng(number).standard_normal((COUNT, SIZE), dtype=np.float32)
    append(database, settings, gallery.id, images, (vectors,))
    return gallery.id


def _delete(database: Database, gallery_id: str) -> None:
    with database.write() as session:
        session.get_one(Gallery, gallery_id).deleted_at = utc_now()


def _mapped(settings: Settings, galleries: Galleries) -> list[bool]:
    """For each gallery, whether this process maps its vectors."""
    mapped = {Path(entry.path) for entry in psutil.Process().memory_maps()}
    return [generation_folder(settings, gallery, 0) / "embeddings" in mapped for gallery in galleries]


def _allowing(settings: Settings, number: float) -> Settings:
    return settings.model_copy(update={"gallery_memory_bytes": int(number * BYTES)})


def test_the_galleries_unused_for_longest_give_their_memory_back(
    database: Database, settings: Settings, galleries: Galleries
) -> None:
    snapshots = Snapshots(database, _allowing(settings, 2.5))
    for place in (0, 1, 0, 2):
        snapshots.current(galleries[place])
    assert _mapped(settings, galleries) == [True, False, True]
    assert snapshots.num_bytes == 2 * BYTES


def test_a_gallery_larger_than_allowed_is_searched_alone(
    database: Database, settings: Settings, galleries: Galleries
) -> None:
    snapshots = Snapshots(database, _allowing(settings, 0.5))
    for gallery in galleries:
        assert len(snapshots.current(gallery).snapshot) == COUNT
    assert _mapped(settings, galleries) == [False, False, True]


def test_a_search_keeps_the_gallery_that_was_let_go_meanwhile(
    database: Database, settings: Settings, galleries: Galleries
) -> None:
    snapshots = Snapshots(database, _allowing(settings, 1))
    held = snapshots.current(galleries[0]).snapshot
    snapshots.current(galleries[1])
    vectors = held.store.rows(0, 5)
    assert held.search(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), 1)[1].ravel().tolist() == [
        0,
        1,
        2,
        3,
        4,
    ]


def test_deleted_galleries_give_their_memory_back(database: Database, settings: Settings, galleries: Galleries) -> None:
    snapshots = Snapshots(database, settings)
    for gallery in galleries:
        snapshots.current(gallery)
    _delete(database, galleries[0])
    snapshots.drop_deleted()
    assert _mapped(settings, galleries) == [False, True, True]
    _delete(database, galleries[1])
    with pytest.raises(Problem, match="no gallery"):
        snapshots.current(galleries[1])
    assert _mapped(settings, galleries) == [False, False, True]


@pytest.mark.parametrize(("allowed", "expected"), [(0.5, []), (2.5, [2, 1]), (3, [2, 1, 0])])
def test_what_was_searched_last_is_loaded_ahead_as_far_as_there_is_room(
    database: Database, settings: Settings, galleries: Galleries, allowed: float, expected: list[int]
) -> None:
    snapshots = Snapshots(database, _allowing(settings, allowed))
    snapshots.preload()
    assert _mapped(settings, galleries) == [place in expected for place in range(3)]
    assert snapshots.num_bytes <= allowed * BYTES


def test_a_damaged_gallery_is_left_out(database: Database, settings: Settings, galleries: Galleries) -> None:
    (generation_folder(settings, galleries[2], 0) / "embeddings").write_bytes(b"lost")
    snapshots = Snapshots(database, settings)
    snapshots.preload()
    assert _mapped(settings, galleries) == [True, True, False]


def test_upkeep_loads_ahead_and_lets_go_by_itself(database: Database, settings: Settings, galleries: Galleries) -> None:
    snapshots = Snapshots(database, settings)
    upkeep = Upkeep(database, snapshots, seconds=0.05)
    wait_until(lambda: all(_mapped(settings, galleries)))
    _delete(database, galleries[2])
    wait_until(lambda: _mapped(settings, galleries) == [True, True, False])
    upkeep.close()


@pytest.mark.parametrize(
    ("limit", "expected"), [("1000\n", lambda total: 1000), ("max\n", lambda total: total), (None, lambda total: total)]
)
def test_a_container_limits_the_memory_of_the_machine(
    tmp_path: Path, limit: str | None, expected: Callable[[int], int]
) -> None:
    file = tmp_path / "memory.max"
    if limit is not None:
        file.write_text(limit)
    assert machine_bytes(file) == expected(psutil.virtual_memory().total)
