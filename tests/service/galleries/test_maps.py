"""The re-ranker's maps go where a gallery's vectors go: in, through rebuilds, into searches, and away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from reid_core.errors import CoreError, IndexCorrupt, Stopped
from reid_core.retrieval import recall
from service.db.session import Database
from service.db.tables import Dataset, GalleryImage
from service.galleries import reencoding, split_import
from service.galleries.erasure import erase_image
from service.galleries.files import generation_folder, generation_of
from service.galleries.images import append
from service.galleries.retention import remove_leftovers
from service.search.snapshots import Snapshots
from service.settings import Settings
from tests.service.galleries.conftest import MATCHER_ID
from tests.service.galleries.jobs import Worker
from tests.service.galleries.stock import (
    MAP_SHAPE,
    MATCHER_SIZE,
    added_ids,
    encoder_for,
    files_containing,
    image_file,
    make_gallery,
    upload,
)

NUM_LOCATIONS = MAP_SHAPE[0] * MAP_SHAPE[1]

pytestmark = pytest.mark.usefixtures("model", "matcher")

BY_ITSELF = {"model": "matcher"}
BY_ANOTHER = {"model": "tiny", "reranker": "matcher"}
EITHER = pytest.mark.parametrize("fields", [BY_ITSELF, BY_ANOTHER], ids=["by-itself", "by-another"])


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_import, "PAGE_SIZE", 5)
    monkeypatch.setattr(reencoding, "PAGE_SIZE", 5)


@pytest.fixture
def split(dataset: Dataset) -> dict[str, str]:
    return {"dataset": dataset.id, "split": "gallery"}


@pytest.fixture
def make(client: httpx.Client, database: Database, settings: Settings) -> Callable[..., Worker]:
    """Makes the gallery `hall` and gives whoever runs its jobs."""
    return lambda **fields: Worker(database, settings, make_gallery(client, **fields)["id"])


def expected_maps(settings: Settings, paths: list[Path]) -> np.ndarray:
    """(N, h * w, c) as the matcher makes them, in half precision."""
    maps = encoder_for(settings, MATCHER_ID).encode_files(paths, with_maps=True).maps
    assert maps is not None
    return maps.flatten(1, 2).half().numpy()


def paths_of(dataset: Dataset, images: list[GalleryImage]) -> list[Path]:
    return [Path(dataset.path) / image.filename for image in images]


def bare(number: int) -> GalleryImage:
    return GalleryImage(id=f"img_{number}", filename="a", sha256="0", width=1, height=1)


def features(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draws embeddings and local features, of unit length, for a gallery that the matcher fills by itself."""
    random = np.random.default_rng(seed)
    shapes = ((MATCHER_SIZE,), (NUM_LOCATIONS, MAP_SHAPE[2]))
    made = [random.standard_normal((count, *shape), dtype=np.float32) for shape in shapes]
    vectors, maps = (array / np.linalg.norm(array, axis=-1, keepdims=True) for array in made)
    return vectors, maps


@EITHER
def test_uploads_leave_their_maps_where_the_next_search_reads_them(
    make: Callable[..., Worker], client: httpx.Client, tmp_path: Path, fields: dict[str, str]
) -> None:
    worker = make(**fields)
    paths = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(paths):
        path.write_bytes(image_file(seed))
    snapshots = Snapshots(worker.database, worker.settings)
    added_ids(upload(client, "hall", [path.read_bytes() for path in paths[:2]]))
    first = snapshots.current(worker.gallery_id)
    added_ids(upload(client, "hall", [paths[2].read_bytes()]))
    loaded = snapshots.current(worker.gallery_id)
    assert first.maps is not None
    assert loaded.maps is first.maps
    np.testing.assert_allclose(loaded.maps.read(range(3)), expected_maps(worker.settings, paths), atol=2e-3)
    vectors = encoder_for(worker.settings, worker.gallery().model_id).embed_files(paths).numpy()
    np.testing.assert_allclose(worker.vectors(), vectors, atol=1e-5)


def test_a_gallery_without_a_re_ranker_has_no_maps(
    make: Callable[..., Worker], client: httpx.Client, settings: Settings
) -> None:
    worker = make()
    added_ids(upload(client, "hall", [image_file(1)]))
    assert Snapshots(worker.database, settings).current(worker.gallery_id).maps is None
    assert [path.name for path in generation_folder(settings, worker.gallery_id, 0).iterdir()] == ["embeddings"]
    worker.run()
    assert worker.phases == ["embed"]


@EITHER
def test_maps_follow_their_images_through_a_split_erasures_and_an_interrupted_rebuild(
    make: Callable[..., Worker],
    split: dict[str, str],
    settings: Settings,
    database: Database,
    dataset: Dataset,
    fields: dict[str, str],
) -> None:
    worker = make(**fields)
    with pytest.raises(Stopped):
        worker.run(split, stop_after=2)
    assert len(worker.maps()) == 10
    worker.run(split)
    expected = expected_maps(settings, paths_of(dataset, worker.images()))
    np.testing.assert_allclose(worker.maps(), expected, atol=2e-3)
    for image in worker.images()[::4]:
        erase_image(database, settings, "hall", image.id, key_id=None)
    held = Snapshots(database, settings).current(worker.gallery_id)
    with pytest.raises(Stopped):
        worker.run(stop_after=2)
    remove_leftovers(database, settings)
    done = worker.images()[1]
    with database.read() as session:
        new = generation_of(session, settings, worker.gallery(), ahead=1)
    needle = new.read([done.rebuilt_position or 0], count=10)[1].tobytes()
    assert files_containing(settings.home, needle)
    erase_image(database, settings, "hall", done.id, key_id=None)
    assert files_containing(settings.home, needle) == []
    assert worker.run()["embedded"] == 8
    images = worker.images()
    assert (worker.gallery().generation, len(images)) == (1, 17)
    maps = worker.maps()[[image.position for image in images]]
    np.testing.assert_allclose(maps, expected_maps(settings, paths_of(dataset, images)), atol=2e-3)
    assert held.maps is not None
    assert held.maps.read([23]).any()  # a search that began before still reads the old ones


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_rebuild_keeps_the_very_bytes_of_maps_whose_images_are_not_there(
    make: Callable[..., Worker], settings: Settings, database: Database, dtype: str
) -> None:
    worker = make(model="matcher", maps=dtype)
    made = features(6)
    append(database, settings, worker.gallery_id, [bare(number) for number in range(6)], made)
    before = worker.maps()
    np.testing.assert_allclose(before, made[1], atol=0.5 / 127 + 1e-6)
    erase_image(database, settings, "hall", "img_1", key_id=None)
    assert worker.run()["kept"] == 5
    np.testing.assert_array_equal(worker.maps(), before[[0, 2, 3, 4, 5]])


def test_a_rebuild_keeps_some_maps_and_makes_others_anew(
    make: Callable[..., Worker], split: dict[str, str], dataset: Dataset
) -> None:
    worker = make(**BY_ANOTHER)
    worker.run(split)
    before = worker.maps()
    paths_of(dataset, worker.images())[2].unlink()
    result = worker.run()
    assert (result["embedded"], result["kept"]) == (23, 1)
    np.testing.assert_array_equal(worker.maps()[2], before[2])
    np.testing.assert_allclose(worker.maps(), before, atol=2e-3)


def test_what_a_crash_left_of_maps_is_overwritten_and_erased(
    make: Callable[..., Worker], settings: Settings, database: Database
) -> None:
    worker = make(model="matcher")
    append(database, settings, worker.gallery_id, [bare(1)], features(1))
    left = features(2, seed=1)
    with pytest.raises(Exception, match="UNIQUE"):
        append(database, settings, worker.gallery_id, [bare(2), bare(1)], left)
    append(database, settings, worker.gallery_id, [bare(3)], features(1, seed=2))
    expected = np.concatenate([features(1)[1], features(1, seed=2)[1]])
    np.testing.assert_array_equal(worker.maps(), expected.astype(np.float16))
    needle = left[1][1].astype(np.float16).tobytes()
    assert files_containing(settings.home, needle)
    erase_image(database, settings, "hall", "img_3", key_id=None)
    assert files_containing(settings.home, needle) == []


def test_an_addition_that_ends_between_vectors_and_maps_leaves_the_gallery_whole(
    make: Callable[..., Worker], settings: Settings, database: Database
) -> None:
    worker = make(model="matcher")
    vectors, maps = features(3)
    for number in range(2):
        with pytest.raises(CoreError, match="shape"):
            append(database, settings, worker.gallery_id, [bare(7), bare(8)], (vectors[:2], maps[:2, 1:]))
        append(database, settings, worker.gallery_id, [bare(number)], (vectors[[number]], maps[[number]]))
    np.testing.assert_array_equal(worker.vectors(), vectors[:2])
    np.testing.assert_array_equal(worker.maps(), maps[:2].astype(np.float16))
    loaded = Snapshots(database, settings).current(worker.gallery_id)
    assert loaded.maps is not None
    assert (len(loaded.snapshot), len(loaded.maps)) == (2, 2)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:-1]), lambda path: path.unlink()])
def test_lost_maps_are_told_and_mended_by_a_rebuild(
    make: Callable[..., Worker], client: httpx.Client, damage: Callable[[Path], object]
) -> None:
    worker = make(model="matcher")
    added_ids(upload(client, "hall", [image_file(seed) for seed in range(3)]))
    before = worker.maps()
    damage(generation_folder(worker.settings, worker.gallery_id, 0) / "maps")
    with pytest.raises(IndexCorrupt, match="maps") as caught:
        Snapshots(worker.database, worker.settings).current(worker.gallery_id)
    assert "index job" in caught.value.hint
    worker.run()
    np.testing.assert_allclose(worker.maps(), before, atol=2e-3)


def shown(client: httpx.Client) -> Any:
    return client.get("/galleries/hall").json()["statistics"]


@EITHER
def test_an_index_job_measures_the_candidate_recall(
    make: Callable[..., Worker],
    client: httpx.Client,
    split: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, str],
) -> None:
    worker = make(**fields)
    worker.run(split)
    assert worker.phases == ["embed", "statistics"]
    revision = worker.gallery().revision
    measured = {"value": 1.0, "candidates": 100, "queries": 24, "pictures": 24, "revision": revision}
    assert shown(client) == {"candidate_recall": measured}
    monkeypatch.setattr(recall, "CANDIDATES", 10)
    worker.run()
    again = shown(client)["candidate_recall"]
    assert (again["candidates"], again["revision"]) == (10, worker.gallery().revision)
    assert 0 < again["value"] < 1


def test_the_recall_counts_the_images_that_are_left(
    make: Callable[..., Worker], client: httpx.Client, database: Database, settings: Settings, split: dict[str, str]
) -> None:
    worker = make(model="matcher")
    worker.run(split)
    images = worker.images()
    for image in images[2:]:
        erase_image(database, settings, "hall", image.id, key_id=None)
    worker.run(split)  # adds the erased ones again, behind the gap that they left
    assert shown(client)["candidate_recall"]["pictures"] == 24
    for image in worker.images()[1:]:
        erase_image(database, settings, "hall", image.id, key_id=None)
    assert shown(client)["candidate_recall"]["pictures"] == 24  # until the next job
    worker.run()
    assert shown(client) is None
    erase_image(database, settings, "hall", images[0].id, key_id=None)
    worker.run()
    assert shown(client) is None
