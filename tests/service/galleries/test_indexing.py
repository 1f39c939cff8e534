"""Index jobs add splits and rebuild galleries, wherever they are interrupted and whatever happens meanwhile."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from reid_core.errors import IndexCorrupt, Stopped
from reid_core.retrieval.kinds import IVFPQ_LEAST, resolve_kind
from service.db.session import Database
from service.db.tables import Dataset, Gallery, GalleryImage, Model
from service.errors import Problem
from service.galleries import index, reencoding, split_import
from service.galleries.erasure import erase_identity, erase_image
from service.galleries.files import gallery_folder, generation_folder
from service.galleries.growth import outgrown
from service.galleries.images import append
from service.galleries.lifecycle import create_gallery
from service.galleries.schemas import GalleryBody
from service.galleries.staging import indexing_folder
from service.search.snapshots import Snapshots
from service.settings import Settings
from service.storage import claim
from tests.service.galleries.conftest import MODEL_ID
from tests.service.galleries.jobs import Worker
from tests.service.galleries.stock import SIZE, add_model_row, files_containing, load


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_import, "PAGE_SIZE", 5)
    monkeypatch.setattr(reencoding, "PAGE_SIZE", 5)


@pytest.fixture
def hall(database: Database, settings: Settings, model: Model) -> str:
    """An empty gallery that is searched through a graph."""
    with database.write() as session:
        return create_gallery(session, settings, GalleryBody(name="hall", model=model.id, index="hnsw")).id


@pytest.fixture
def worker(database: Database, settings: Settings, hall: str) -> Worker:
    return Worker(database, settings, hall)


@pytest.fixture
def split(dataset: Dataset) -> dict[str, str]:
    return {"dataset": dataset.id, "split": "gallery"}


def uploaded(number: int, identity: str = "late") -> GalleryImage:
    return GalleryImage(id=f"img_{number}", filename="a", sha256="0", width=1, height=1, identity=identity)


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).standard_normal((1, SIZE)).astype(np.float32)
    return vector / np.linalg.norm(vector)


def test_a_split_is_added_with_all_that_is_known_of_it(worker: Worker, split: dict[str, str], dataset: Dataset) -> None:
    result = worker.run(split)
    images = worker.images()
    assert result == {"images": 24, "revision": 6, "index": "hnsw", "added": 24, "unreadable": 0}
    assert worker.progress == [(5, 24), (10, 24), (15, 24), (20, 24), (24, 24)]
    assert [image.position for image in images] == list(range(24))
    assert (images[0].identity, images[0].camera, images[0].file) == ("0001", "1", None)
    assert (images[0].width, images[0].height) == (16, 32)
    paths = [Path(dataset.path) / image.filename for image in images]
    expected = load(worker.settings, worker.gallery().model_id).encoder().embed_files(paths).numpy()
    np.testing.assert_allclose(worker.vectors(), expected, atol=1e-5)
    assert worker.found(images[7])[0] == images[7].id


def test_a_disk_too_full_is_told_before_the_first_image_and_loses_nothing(
    worker: Worker, split: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    least, free = 24 * 4 * SIZE, 10**6
    usage = SimpleNamespace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    worker.settings = worker.settings.model_copy(update={"min_free_bytes": free - least + 1})
    with pytest.raises(Problem, match=f"{least:,} bytes are to be written") as refused:
        worker.run(split)
    assert (refused.value.slug, worker.progress, worker.images()) == ("disk-full", [], [])

    usage.free += 1
    assert worker.run(split)["added"] == 24
    usage.free -= 1
    with pytest.raises(Problem, match="bytes are to be written"):
        worker.run()
    assert len(worker.images()) == 24
    usage.free += 1
    assert worker.run()["embedded"] == 24


def test_adding_goes_on_where_it_was_stopped_and_adds_nothing_twice(worker: Worker, split: dict[str, str]) -> None:
    with pytest.raises(Stopped):
        worker.run(split, stop_after=2)
    assert worker.gallery().images == 10
    assert worker.run(split)["added"] == 14
    assert worker.progress[-1] == (14, 14)
    assert worker.run(split)["added"] == 0
    assert len({image.dataset_image_id for image in worker.images()}) == 24


def test_images_that_cannot_be_read_are_left_out_and_counted(
    worker: Worker, split: dict[str, str], dataset: Dataset
) -> None:
    first, second, third = sorted(Path(dataset.path).iterdir())[:3]
    first.write_bytes(b"no image")
    second.unlink()
    third.unlink()
    third.symlink_to("/etc/hostname")
    result = worker.run(split)
    assert (result["added"], result["unreadable"], result["images"]) == (21, 3, 21)


def test_a_rebuild_numbers_images_without_gaps_in_their_order(
    worker: Worker, split: dict[str, str], settings: Settings, database: Database
) -> None:
    worker.run(split)
    for image in worker.images()[::4]:
        erase_image(database, settings, "hall", image.id, key_id=None)
    before, vectors = worker.images(), worker.vectors()
    result = worker.run()
    after = worker.images()
    assert (result["embedded"], result["kept"], result["index"]) == (18, 0, "hnsw")
    assert [image.id for image in after] == [image.id for image in before]
    assert [image.position for image in after] == list(range(18))
    assert {image.rebuilt_position for image in after} == {None}
    np.testing.assert_allclose(worker.vectors(), vectors[[image.position for image in before]], atol=1e-5)
    assert (worker.gallery().generation, worker.gallery().next_position) == (1, 18)
    names = [path.name for path in gallery_folder(settings, worker.gallery_id).iterdir() if path.is_dir()]
    assert names == ["1"]
    assert worker.found(after[3])[0] == after[3].id


def test_a_rebuild_works_alike_on_every_database(each_database: Database, settings: Settings) -> None:
    add_model_row(each_database, MODEL_ID)
    with each_database.write() as session:
        hall = create_gallery(session, settings, GalleryBody(name="hall", model="tiny", index="hnsw")).id
    vectors = np.concatenate([unit(seed) for seed in range(6)])
    append(each_database, settings, hall, [uploaded(seed) for seed in range(6)], (vectors,))
    erase_image(each_database, settings, hall, "img_1", key_id=None)
    worker = Worker(each_database, settings, hall)
    assert worker.run() == {"images": 5, "revision": 3, "index": "hnsw", "embedded": 0, "kept": 5}
    assert [(image.id, image.position) for image in worker.images()] == [
        (f"img_{seed}", position) for position, seed in enumerate((0, 2, 3, 4, 5))
    ]
    np.testing.assert_array_equal(worker.vectors(), vectors[[0, 2, 3, 4, 5]])
    assert worker.found(worker.images()[3])[0] == "img_4"


def test_a_rebuild_keeps_the_vectors_of_images_that_are_not_there(
    worker: Worker, split: dict[str, str], settings: Settings, database: Database, dataset: Dataset
) -> None:
    worker.run(split)
    append(database, settings, worker.gallery_id, [uploaded(1)], (unit(1),))
    (Path(dataset.path) / worker.images()[2].filename).unlink()
    before = worker.vectors()
    result = worker.run()
    assert (result["embedded"], result["kept"]) == (23, 2)
    np.testing.assert_array_equal(worker.vectors()[[2, 24]], before[[2, 24]])


def test_a_rebuild_takes_in_what_changes_meanwhile(
    worker: Worker, split: dict[str, str], settings: Settings, database: Database
) -> None:
    worker.run(split)
    images, vectors = worker.images(), worker.vectors()

    def add(number: int) -> None:
        append(database, settings, worker.gallery_id, [uploaded(number)], (unit(number),))

    def erase(number: int) -> None:
        erase_image(database, settings, "hall", images[number].id, key_id=None)
        assert files_containing(settings.home, vectors[number].tobytes()) == []

    at: dict[int, Callable[[], object]] = {5: lambda: add(1), 10: lambda: erase(2), 14: lambda: erase(20)}
    worker.run(at=at)
    assert [image.id for image in worker.images()] == [
        image.id for number, image in enumerate(images) if number not in (2, 20)
    ] + ["img_1"]
    late = worker.images()[-1]
    np.testing.assert_array_equal(worker.vectors()[late.position], unit(1)[0])
    assert worker.found(late)[0] == "img_1"
    assert set(worker.found(images[0])) == {image.id for image in worker.images()}


def test_a_person_erased_while_the_index_is_built_is_not_in_it(
    worker: Worker, split: dict[str, str], settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.run(split)
    vectors, images = worker.vectors(), worker.images()
    build, calls = index.build_index, []

    def build_then_erase(*arguments: Any, **options: Any) -> Any:
        index = build(*arguments, **options)
        erase_identity(database, settings, "hall", "0002", key_id=None)
        append(database, settings, worker.gallery_id, [uploaded(1)], (unit(1),))
        calls.append(index)
        return index

    monkeypatch.setattr(index, "build_index", build_then_erase)
    worker.run()
    assert len(calls) == 1
    gone = [image for image in images if image.identity == "0002"]
    assert [files_containing(settings.home, vectors[image.position].tobytes()) for image in gone] == [[]] * 6
    assert worker.gallery().index is not None
    assert len(worker.found(worker.images()[0])) == 19
    assert worker.images()[-1].id == "img_1"


def test_a_rebuild_goes_on_where_it_was_stopped(worker: Worker, split: dict[str, str]) -> None:
    worker.run(split)
    vectors = worker.vectors()
    with pytest.raises(Stopped):
        worker.run(stop_after=3)
    assert worker.gallery().generation == 0
    assert worker.found(worker.images()[3])[0] == worker.images()[3].id
    assert worker.run()["embedded"] == 9
    np.testing.assert_allclose(worker.vectors(), vectors, atol=1e-5)
    assert worker.gallery().generation == 1


def test_a_rebuild_mends_a_gallery_whose_vectors_are_lost(worker: Worker, split: dict[str, str]) -> None:
    worker.run(split)
    vectors = worker.vectors()
    (generation_folder(worker.settings, worker.gallery_id, 0) / "embeddings").write_bytes(b"lost")
    with pytest.raises(IndexCorrupt):
        worker.found(worker.images()[0])
    worker.run()
    np.testing.assert_allclose(worker.vectors(), vectors, atol=1e-5)


def test_a_damaged_index_is_told_and_mended_by_a_rebuild(worker: Worker, split: dict[str, str]) -> None:
    worker.run(split)
    (index,) = generation_folder(worker.settings, worker.gallery_id, 0).glob("index-*")
    content = bytearray(index.read_bytes())
    content[len(content) // 2] ^= 1
    index.write_bytes(content)
    with pytest.raises(IndexCorrupt, match="SHA-256"):
        worker.found(worker.images()[0])
    worker.run()
    assert worker.found(worker.images()[0])[0] == worker.images()[0].id


def test_an_empty_gallery_can_be_rebuilt(worker: Worker) -> None:
    result = worker.run()
    assert result == {"images": 0, "revision": 1, "index": "flat", "embedded": 0, "kept": 0}


def test_jobs_of_one_gallery_wait_for_each_other(worker: Worker, split: dict[str, str]) -> None:
    started = threading.Event()
    thread = threading.Thread(target=lambda: (started.set(), worker.run(split)))
    with claim(indexing_folder(worker.settings, worker.gallery_id)) as free:
        assert free
        thread.start()
        started.wait()
        with pytest.raises(Stopped):
            Worker(worker.database, worker.settings, worker.gallery_id).run(stop_after=0)
        assert worker.gallery().images == 0
    thread.join()
    assert worker.gallery().images == 24


def test_a_gallery_or_data_set_that_is_gone_ends_the_job(worker: Worker, split: dict[str, str]) -> None:
    with pytest.raises(Problem, match="no data set"):
        worker.run({"dataset": "ds_gone", "split": "gallery"})
    worker.gallery_id = "gal_gone"
    with pytest.raises(Problem, match="no gallery"):
        worker.run(split)


def test_searches_go_on_while_a_gallery_is_rebuilt(client: httpx.Client, worker: Worker, split: dict[str, str]) -> None:
    worker.run(split)
    images = worker.images()
    over = threading.Event()
    answers: list[httpx.Response] = []

    def search() -> None:
        while not over.is_set():
            query = images[len(answers) % len(images)].id
            answers.append(client.get("/search", params={"gallery": "hall", "image_id": query, "top_k": 1}))
            assert answers[-1].status_code == 200, answers[-1].text
            assert answers[-1].json()["results"][0]["image_id"] == query

    thread = threading.Thread(target=search)
    thread.start()
    worker.run()
    over.set()
    thread.join()
    assert all(answer.status_code == 200 for answer in answers)
    revisions = [answer.json()["revision"] for answer in answers]
    assert revisions == sorted(revisions)
    last = client.get("/search", params={"gallery": "hall", "image_id": images[0].id})
    assert last.json()["revision"] == worker.gallery().revision


def test_only_the_index_is_built_over_the_vectors_that_are_there(
    worker: Worker, settings: Settings, database: Database
) -> None:
    vectors = np.concatenate([unit(seed) for seed in range(30)])
    append(database, settings, worker.gallery_id, [uploaded(seed) for seed in range(30)], (vectors,))
    before, snapshots = worker.gallery(), Snapshots(database, settings)
    loaded = snapshots.current(worker.gallery_id)

    result = worker.run(embed=False)

    after = worker.gallery()
    assert result == {"images": 30, "revision": before.revision + 1, "index": "hnsw"}
    assert (after.generation, worker.phases) == (0, [])
    assert after.index is not None
    assert after.index["recall"] == {"at_10": 1.0, "at_100": 1.0, "queries": 30}
    np.testing.assert_array_equal(worker.vectors(), vectors)
    switched = snapshots.current(worker.gallery_id).snapshot
    assert switched.num_indexed == 30
    assert switched.captured_at is loaded.snapshot.captured_at
    assert worker.found(worker.images()[3])[0] == "img_3"
    assert worker.run(embed=False)["revision"] == result["revision"]


def test_an_index_that_takes_the_place_of_another_leaves_no_file_of_it(
    worker: Worker, settings: Settings, database: Database
) -> None:
    for start in (0, 30):
        seeds = range(start, start + 30)
        vectors = np.concatenate([unit(seed) for seed in seeds])
        append(database, settings, worker.gallery_id, [uploaded(seed) for seed in seeds], (vectors,))
        worker.run(embed=False)
        index = worker.gallery().index
        assert index is not None
        assert index["images"] == start + 30
        assert [path.name for path in settings.galleries_dir.rglob("index-*")] == [index["file"]]


def test_what_is_known_of_an_index_is_kept_when_an_image_is_erased_from_it(
    worker: Worker, split: dict[str, str], settings: Settings, database: Database
) -> None:
    worker.run(split)
    before = worker.gallery().index
    erase_image(database, settings, "hall", worker.images()[0].id, key_id=None)
    after = worker.gallery().index
    assert before is not None
    assert after is not None
    assert before["file"] != after["file"]
    told = ("kind", "images", "parameters", "recall")
    assert [before[name] for name in told] == [after[name] for name in told]
    assert before["parameters"] == {"links": 32, "build_breadth": 100, "search_breadth": 128}


def test_a_gallery_shows_its_index(client: httpx.Client, worker: Worker, split: dict[str, str]) -> None:
    worker.run(split)
    assert client.get("/galleries/hall").json()["index"] == {
        "requested": "hnsw",
        "kind": "hnsw",
        "built_images": 24,
        "parameters": {"links": 32, "build_breadth": 100, "search_breadth": 128},
        "recall": {"at_10": 1.0, "at_100": 1.0, "queries": 24},
    }


@pytest.mark.parametrize(
    ("requested", "built", "count", "due"),
    [
        ("hnsw", None, 999, False),
        ("hnsw", None, 1000, True),
        ("hnsw", 1000, 1999, False),
        ("hnsw", 1000, 2000, True),
        ("hnsw", 20_000, 21_999, False),
        ("hnsw", 20_000, 22_223, True),
        ("flat", None, 10**6, False),
        ("auto", None, 195_312, False),
        ("auto", None, 195_313, True),
        ("ivfpq", None, IVFPQ_LEAST - 1, False),
        ("ivfpq", None, IVFPQ_LEAST, True),
    ],
)
def test_a_gallery_needs_another_index_once_many_images_are_beside_it(
    database: Database, worker: Worker, requested: str, built: int | None, count: int, due: bool
) -> None:
    with database.write() as session:
        gallery = session.get_one(Gallery, worker.gallery_id)
        gallery.index_kind, gallery.next_position = requested, count
        gallery.index = None if built is None else {"kind": "hnsw", "images": built}
    with database.read() as session:
        assert (outgrown(session) == [worker.gallery_id]) == due


def test_the_kind_of_index_follows_the_gallery() -> None:
    assert resolve_kind("auto", 1000, 512) == "flat"
    assert resolve_kind("auto", 500_000, 512) == "rabitq"
    assert resolve_kind("rabitq", 10, 512) == "rabitq"
    assert resolve_kind("rabitq", 10, 16) == "flat"
    assert resolve_kind("hnsw", 10, 512) == "hnsw"
    assert resolve_kind("hnsw", 0, 512) == "flat"
    assert resolve_kind("ivfpq", IVFPQ_LEAST - 1, 512) == "flat"
    assert resolve_kind("ivfpq", IVFPQ_LEAST, 512) == "ivfpq"


def test_a_job_that_only_builds_the_index_can_be_asked_for(client: httpx.Client, hall: str) -> None:
    body = {"kind": "index", "gallery": "hall", "embed": False}
    planned = client.post("/jobs?dry_run=true", json=body)
    assert planned.status_code == 200, planned.text
    job = client.post("/jobs", json=body)
    assert job.status_code == 202, job.text
    assert job.json()["spec"] == {"gallery": hall, "embed": False}
    shown = client.get("/galleries/hall").json()
    assert (shown["job"], shown["state"]) == (None, "empty")
