"""Galleries that grow by uploads get their index from a job that the worker's watch starts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from service.clock import utc_now
from service.db.schema import upgrade
from service.db.session import Database, open_database
from service.db.tables import Gallery, Job
from service.galleries import growth
from service.galleries.lifecycle import create_gallery
from service.galleries.schemas import GalleryBody
from service.jobs import enqueue
from service.settings import Settings
from tests.service.galleries.conftest import MATCHER_ID
from tests.service.galleries.stock import MATCHER_SIZE, add_model_row, image_file, save_tiny_matcher
from tests.waiting import wait_until
from tests.worker.service import Service
from worker.growth import index_outgrown


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    upgrade(settings.database_url)
    database = open_database(settings.database_url)
    yield database
    database.close()


@pytest.fixture
def hall(database: Database, settings: Settings) -> str:
    """A gallery that needs an index."""
    add_model_row(database, "mdl_1")
    with database.write() as session:
        gallery = create_gallery(session, settings, GalleryBody(name="hall", model="mdl_1", index="rabitq"))
        gallery.next_position = gallery.images = growth.TAIL_LEAST
        return gallery.id


def _started(database: Database) -> list[str]:
    sent: list[str] = []
    index_outgrown(database, lambda job_id, kind: sent.append(job_id))
    return sent


def _end(database: Database, job_id: str, state: str, *, ago: timedelta = timedelta()) -> None:
    with database.write() as session:
        job = session.get_one(Job, job_id)
        job.state, job.finished_at = state, utc_now() - ago


def test_a_gallery_gets_one_job_however_often_it_is_looked_at(database: Database, hall: str) -> None:
    (job_id,) = _started(database)
    assert _started(database) == []
    with database.read() as session:
        assert session.get_one(Job, job_id).spec == {"gallery": hall, "embed": False}
        assert session.get_one(Gallery, hall).job_id is None
    _end(database, job_id, "succeeded")
    assert len(_started(database)) == 1


def test_no_second_job_starts_while_one_adds_images(database: Database, hall: str) -> None:
    with database.write() as session:
        enqueue(session, "index", {"gallery": hall, "add": {"dataset": "ds_1", "split": "gallery"}})
    assert _started(database) == []


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_after_a_job_that_ended_badly_the_next_waits_an_hour(database: Database, hall: str, state: str) -> None:
    (job_id,) = _started(database)
    _end(database, job_id, state, ago=timedelta(minutes=59))
    assert _started(database) == []
    _end(database, job_id, state, ago=timedelta(minutes=61))
    assert len(_started(database)) == 1


@pytest.mark.slow
def test_a_gallery_that_grows_by_uploads_is_indexed_while_it_is_searched(tmp_path: Path) -> None:
    home = tmp_path / "home"
    settings = Settings(home=home)
    upgrade(settings.database_url)
    save_tiny_matcher(settings.models_dir / MATCHER_ID)
    database = open_database(settings.database_url)
    add_model_row(database, MATCHER_ID, "matcher", method="qaconv-pk", size=MATCHER_SIZE)
    database.close()
    service = Service(home, tmp_path)
    service.start()
    try:
        service.post("/galleries", {"name": "hall", "model": "matcher", "index": "hnsw", "maps": "none"}, expect=201)
        ids = [image for start in range(0, growth.TAIL_LEAST, 500) for image in _uploaded(service, start, 500)]

        def is_indexed() -> bool:
            found = service.get("/search", gallery="hall", image_id=ids[7], top_k=1)["results"]
            assert [result["image_id"] for result in found] == [ids[7]]
            shown = service.get("/galleries/hall")
            assert (shown["state"], shown["job"]) == ("ready", None)
            return bool(shown["index"]["built_images"])

        wait_until(is_indexed)
        index = service.get("/galleries/hall")["index"]
        assert (index["kind"], index["built_images"], index["recall"]["queries"]) == ("hnsw", growth.TAIL_LEAST, 100)
        assert index["recall"]["at_10"] > 0.9
        assert service.http.delete(f"/galleries/hall/images/{ids[7]}").status_code == 204
        found = service.get("/search", gallery="hall", image_id=ids[8], top_k=1000)["results"]
        assert {result["image_id"] for result in found} == set(ids) - {ids[7]}
        service.stop()
    finally:
        if service.processes():
            service.kill_everything()


def _uploaded(service: Service, start: int, count: int) -> list[str]:
    """The ids of `count` images, which are unlike those of other starts."""
    files = [("files", (f"{seed}.png", image_file(seed), "image/png")) for seed in range(start, start + count)]
    answer = service.http.post("/galleries/hall/images", files=files, timeout=300)
    assert answer.status_code == 201, answer.text
    return [added["image"] for added in answer.json()["added"]]
