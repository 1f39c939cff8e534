"""A deleted gallery is gone for everybody at once; what was kept of it goes page by page, whatever happens between."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from service.api import galleries as routes
from service.clock import utc_now
from service.db.session import Database
from service.db.tables import ErasedImage, Gallery, GalleryImage, Job, PendingErasure
from service.galleries import deletion
from service.galleries.deletion import finish_deletion, mark_deleted
from service.galleries.retention import remove_leftovers
from service.jobs.deletions import resume_deletions
from service.jobs.lifecycle import claim
from service.settings import Settings
from tests.service.galleries.stock import added_ids, image_file, make_gallery, upload
from tests.waiting import HANG_SECONDS

pytestmark = pytest.mark.usefixtures("model")

COUNT = 7


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion, "_PAGE_ROWS", 2)


@pytest.fixture
def ids(client: httpx.Client) -> list[str]:
    make_gallery(client)
    ids = added_ids(upload(client, "hall", [image_file(number) for number in range(COUNT)]))
    client.delete(f"/galleries/hall/images/{ids.pop()}").raise_for_status()
    return ids


def run_job(database: Database, settings: Settings, job_id: str) -> None:
    """As a worker's supervisor does, in a process of its own."""
    attempt = claim(database, job_id, "test", lease_seconds=60)
    command = [sys.executable, "-m", "worker.run", job_id, str(attempt)]
    environment = os.environ | {"REID_HOME": str(settings.home), "REID_MIN_FREE_BYTES": "0"}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True) as child:
        assert child.wait(HANG_SECONDS) == 0


def rows(database: Database) -> list[int]:
    with database.read() as session:
        tables = (Gallery, GalleryImage, ErasedImage, PendingErasure)
        return [session.scalar(select(func.count()).select_from(table)) or 0 for table in tables]


def folders(settings: Settings) -> list[Path]:
    return list(settings.galleries_dir.glob("gal_*"))


def test_a_small_gallery_is_gone_when_the_request_is_answered(
    client: httpx.Client, ids: list[str], database: Database, settings: Settings
) -> None:
    answer = client.delete("/galleries/hall")
    assert (answer.status_code, "Location" in answer.headers) == (204, False)
    assert (rows(database), folders(settings)) == ([0, 0, 0, 0], [])


def test_a_large_gallery_is_hidden_at_once_and_removed_by_a_job(
    client: httpx.Client, ids: list[str], database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "AT_ONCE", 1)
    gallery = client.get("/galleries/hall").json()["id"]
    answer = client.delete("/galleries/hall")
    assert answer.status_code == 204
    job = client.get(answer.headers["Location"]).json()
    assert (job["kind"], job["state"], job["spec"]) == ("delete", "queued", {"gallery": gallery})
    assert rows(database)[:2] == [1, COUNT - 1], "the job has not run yet"
    search = f"/search?gallery={gallery}&image_id={ids[0]}"
    for path in (f"/galleries/{gallery}", "/galleries/hall", f"/galleries/{gallery}/images", search):
        assert client.get(path).status_code == 404, path
    assert client.get("/galleries").json()["items"] == []
    assert client.delete(f"/galleries/{gallery}").status_code == 404
    assert upload(client, gallery, [image_file(1)]).status_code == 404
    make_gallery(client, name="hall")
    assert client.get("/search", params={"gallery": "hall", "image_id": ids[0]}).status_code == 404
    run_job(database, settings, job["id"])
    done = client.get(f"/jobs/{job['id']}").json()
    assert (done["state"], done["result"]) == ("succeeded", {"gallery": gallery, "deleted": COUNT - 1})
    assert (rows(database), folders(settings)) == ([1, 0, 0, 0], [])


def test_a_deletion_goes_on_where_it_was_ended(
    client: httpx.Client, ids: list[str], database: Database, settings: Settings
) -> None:
    with database.write() as session:
        gallery = mark_deleted(session, "hall", key_id=None).id
    told: list[tuple[int, int]] = []

    def stop_after_two(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finish_deletion(database, settings, gallery, on_progress=stop_after_two)
    assert told == [(2, COUNT - 1), (4, COUNT - 1)]
    assert rows(database)[:2] == [1, 2]
    assert finish_deletion(database, settings, gallery) == 2
    assert finish_deletion(database, settings, gallery) == 0
    assert rows(database) == [0, 0, 0, 0]


def test_the_sweep_takes_up_deletions_that_ended_without_an_end(
    client: httpx.Client, ids: list[str], database: Database, settings: Settings
) -> None:
    sent: list[tuple[str, str]] = []

    def resume() -> int:
        resume_deletions(database, lambda job_id, kind: sent.append((job_id, kind)))
        return len(sent)

    with database.write() as session:
        gallery = mark_deleted(session, "hall", key_id=None)
    assert resume() == 0, "the request may be at it"
    long_ago = utc_now() - timedelta(hours=1)
    with database.write() as session:
        session.get_one(Gallery, gallery.id).deleted_at = long_ago
    assert resume() == 1
    assert resume() == 1, "the job waits"
    with database.write() as session:
        job = session.get_one(Job, sent[0][0])
        job.state, job.finished_at = "failed", utc_now()
    assert resume() == 1, "it has just failed"
    with database.write() as session:
        session.get_one(Job, sent[0][0]).finished_at = long_ago
    assert resume() == 2
    remove_leftovers(database, settings)
    run_job(database, settings, sent[1][0])
    assert (rows(database), folders(settings)) == ([0, 0, 0, 0], [])
    assert resume() == 2


def test_a_model_is_kept_until_its_galleries_are_gone(client: httpx.Client, ids: list[str], database: Database) -> None:
    with database.write() as session:
        mark_deleted(session, "hall", key_id=None)
    answer = client.delete("/models/tiny")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/in-use")
    assert "which is being deleted" in answer.json()["detail"]
