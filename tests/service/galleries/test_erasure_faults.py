"""Erasing, adding and deleting under faults: all or nothing, and finished by a sweep without being asked again."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError

from service import deletion
from service.api.error_handlers import problem_from
from service.datasets.catalog import delete_dataset
from service.db.session import Database
from service.db.tables import Dataset, Gallery, GalleryImage, Model, PendingErasure, PendingRemoval
from service.galleries.erasure import erase_identity, erase_image
from service.galleries.images import append
from service.galleries.index import index_in_place
from service.galleries.lifecycle import create_gallery
from service.galleries.removal import finish_erasures
from service.galleries.retention import sweep_interrupted_work
from service.galleries.schemas import GalleryBody
from service.main import create_app
from service.models.lifecycle import delete_model
from service.settings import Settings
from tests.service.galleries.conftest import MODEL_ID
from tests.service.galleries.jobs import Worker
from tests.service.galleries.stock import SIZE, add_model_row, files_containing, image_file, make_gallery, upload
from tests.service.serving import serve
from tests.waiting import HANG_SECONDS

SECRET = "identity-of-somebody-42"

KILLED_WHILE_ERASING = """
import os, signal, sys
from service.db.session import open_database
from service.galleries import erasure
from service.settings import Settings

settings = Settings(home=sys.argv[1], min_free_bytes=0)
erasure.remove_erased = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
erasure.erase_identity(open_database(settings.database_url), settings, "hall", sys.argv[2], key_id=None)
"""

KILLED_WHILE_UPLOADING = """
import io, os, signal, sys
from functools import partial
from service.db.session import open_database
from service.galleries import uploads
from service.galleries.image_schemas import ImageDetails
from service.decoding import Decoder
from service.settings import Settings
from tests.service.galleries.stock import encoder_for, image_file

def append_and_die(*arguments):
    append_to(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

settings = Settings(home=sys.argv[1], min_free_bytes=0)
append_to, uploads.append_to = uploads.append_to, append_and_die
files = [uploads.Upload("7.png", io.BytesIO(image_file(7)), ImageDetails())]
database, decoder = open_database(settings.database_url), Decoder(settings)
uploads.add_uploads(database, settings, "hall", files, partial(encoder_for, settings), decoder)
"""


def run_until_killed(program: str, *arguments: object) -> None:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    assert subprocess.run(command, timeout=HANG_SECONDS, check=False).returncode == -signal.SIGKILL


def vectors(count: int, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal((count, SIZE)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def rows(start: int, stop: int, identity: str) -> list[GalleryImage]:
    return [
        GalleryImage(id=f"img_{number}", filename="a", sha256="0", width=1, height=1, identity=identity)
        for number in range(start, stop)
    ]


@pytest.fixture
def hall(database: Database, settings: Settings) -> str:
    """A gallery that is to have an hnsw index, with 300 images; the first 100 are somebody's."""
    add_model_row(database, MODEL_ID)
    with database.write() as session:
        hall = create_gallery(session, settings, GalleryBody(name="hall", model="tiny", index="hnsw")).id
    append(database, settings, hall, [*rows(0, 100, SECRET), *rows(100, 300, "other")], (vectors(300),))
    return hall


@contextmanager
def full(database: Database) -> Iterator[None]:
    """The database finds its disk full: it may not become larger."""

    def forbid(connection: object) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")  # type: ignore[attr-defined]

    event.listen(database.engine, "begin", forbid, insert=True)
    try:
        yield
    finally:
        event.remove(database.engine, "begin", forbid)
        database.engine.dispose()


def state(database: Database, hall: str) -> tuple[int, int, int, int]:
    with database.read() as session:
        gallery = session.get_one(Gallery, hall)
        listed = session.query(GalleryImage).filter_by(gallery_id=hall).count()
        return gallery.images, gallery.revision, gallery.deletions, listed


def test_an_erasure_on_a_full_disk_changes_nothing_and_says_so(
    database: Database, settings: Settings, hall: str
) -> None:
    before, stored = state(database, hall), vectors(300)
    with full(database), pytest.raises(OperationalError) as caught:
        erase_identity(database, settings, hall, SECRET, key_id=None)
    problem = problem_from(caught.value)
    assert (problem.slug, problem.status) == ("disk-full", 507)
    assert state(database, hall) == before
    np.testing.assert_array_equal(Worker(database, settings, hall).vectors(), stored)
    assert erase_identity(database, settings, hall, SECRET, key_id=None).removed.images == 100


def test_an_erasure_that_is_killed_is_done_for_all_who_look_and_finished_by_the_sweep(
    database: Database, settings: Settings, hall: str
) -> None:
    worker = Worker(database, settings, hall)
    worker.run()
    made = worker.vectors()
    assert files_containing(settings.home, made[3].tobytes())

    run_until_killed(KILLED_WHILE_ERASING, settings.home, SECRET)

    assert state(database, hall)[0::3] == (200, 200)
    assert worker.found(worker.images()[0])[0] == "img_100"
    assert files_containing(settings.home, made[3].tobytes())  # so the kill came in between
    finish_erasures(database, settings)
    left = [bool(files_containing(settings.home, vector.tobytes())) for vector in made[[0, 3, 99, 100, 299]]]
    assert left == [False, False, False, True, True]
    assert files_containing(settings.home, SECRET.encode()) == []
    with database.read() as session:
        assert session.query(PendingErasure).count() == 0


def test_an_api_that_starts_finishes_what_was_interrupted(database: Database, settings: Settings, hall: str) -> None:
    run_until_killed(KILLED_WHILE_ERASING, settings.home, SECRET)
    assert files_containing(settings.home, vectors(300)[5].tobytes())
    with serve(create_app(settings)):
        assert files_containing(settings.home, vectors(300)[5].tobytes()) == []


def test_a_receipt_says_what_could_not_be_removed_and_the_sweep_removes_it(
    database: Database, settings: Settings, hall: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("service.galleries.files.Generation.erase", _fail)
        receipt = erase_identity(database, settings, hall, SECRET, key_id=None)
    (remaining,) = receipt.remaining
    assert (remaining.what[:8], remaining.until) == ("bytes of", None)
    assert state(database, hall)[0] == 200
    finish_erasures(database, settings)
    assert files_containing(settings.home, vectors(300)[5].tobytes()) == []


def _fail(*_: object, **__: object) -> None:
    raise OSError("the disk does not answer")


def test_where_there_is_no_room_for_another_index_the_index_goes(
    database: Database, settings: Settings, hall: str
) -> None:
    worker = Worker(database, settings, hall)
    worker.run()
    (index,) = (settings.galleries_dir / hall / "1").glob("index-*")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (index.stat().st_size - 1, limit[1]))
    try:
        receipt = erase_image(database, settings, hall, "img_7", key_id=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert receipt.remaining == ()
    assert worker.gallery().index is None
    assert not index.exists()
    image = worker.images()[0]
    assert worker.found(image)[0] == image.id
    assert worker.run()["index"] == "hnsw"


def test_an_index_built_while_erased_vectors_still_lie_there_holds_none_of_them(
    database: Database, settings: Settings, hall: str
) -> None:
    run_until_killed(KILLED_WHILE_ERASING, settings.home, SECRET)
    append(database, settings, hall, rows(300, 301, "new"), (vectors(1, seed=9),))
    worker = Worker(database, settings, hall)
    index_in_place(database, settings, hall, should_stop=lambda: False)
    (index,) = (settings.galleries_dir / hall / "0").glob("index-*")
    assert vectors(300)[150].tobytes() in index.read_bytes()
    assert vectors(300)[5].tobytes() not in index.read_bytes()
    assert len(worker.found(worker.images()[0])) == 100


def test_a_position_that_a_rebuild_has_given_again_is_not_zeroed(
    database: Database, settings: Settings, hall: str
) -> None:
    worker = Worker(database, settings, hall)

    def kill_while_erasing() -> None:
        with database.write() as session:
            last = session.scalars(select(GalleryImage).where(GalleryImage.rebuilt_position == 127)).one()
            last.identity = "last"
        run_until_killed(KILLED_WHILE_ERASING, settings.home, "last")

    worker.run(at={128: kill_while_erasing})  # the 128th, at 127, is the last that has been done then
    made = worker.vectors()
    assert len(worker.images()) == 299
    finish_erasures(database, settings)
    np.testing.assert_array_equal(worker.vectors(), made)
    assert all(vector.any() for vector in made[[image.position for image in worker.images()]])


@pytest.mark.usefixtures("model")
def test_an_upload_that_is_killed_leaves_nothing_once_swept(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    gallery = make_gallery(client)["id"]
    assert upload(client, gallery, [image_file(1)]).status_code == 201
    kept = Worker(database, settings, gallery).vectors()[0]
    run_until_killed(KILLED_WHILE_UPLOADING, settings.home)
    assert len(files_containing(settings.home, image_file(7))) == 2
    store = settings.galleries_dir / gallery / "0" / "embeddings"
    leftover = store.read_bytes()[4096 + 4 * SIZE :]
    assert np.frombuffer(leftover, np.float32).any()

    sweep_interrupted_work(database, settings)

    assert files_containing(settings.home, image_file(7)) == []
    assert files_containing(settings.home, leftover) == []
    assert files_containing(settings.home, image_file(1))
    assert files_containing(settings.home, kept.tobytes())
    assert list((settings.galleries_dir / ".arriving").glob("gal_*")) == []


@pytest.mark.usefixtures("model")
def test_a_refused_upload_leaves_nothing(client: httpx.Client, settings: Settings) -> None:
    gallery = make_gallery(client)["id"]
    assert upload(client, gallery, [b"no image"]).status_code == 415
    assert list((settings.galleries_dir / ".arriving").glob("gal_*")) == []


@pytest.mark.parametrize("what", ["model", "data set"])
def test_a_deletion_whose_files_could_not_be_removed_is_finished_by_the_sweep(
    database: Database, settings: Settings, model: Model, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    folder = {
        "model": settings.models_dir / MODEL_ID,
        "data set": settings.uploads_dir / "ds_1",
    }[what]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").write_text("of a person")
    with database.write() as session:
        if what == "data set":
            session.add(Dataset(id="ds_1", name="it", path=str(folder), format="auto", state="ready", uploaded=True))
    delete = {"model": delete_model, "data set": delete_dataset}[what]
    with monkeypatch.context() as patch:
        patch.setattr(deletion, "_remove", _fail)
        delete(database, settings, "tiny" if what == "model" else "it", key_id=None)
    assert (folder / "file").exists()
    deletion.remove_pending(database, settings)
    assert not folder.exists()
    with database.read() as session:
        assert session.query(PendingRemoval).count() == 0
