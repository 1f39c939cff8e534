"""An erased image is nowhere any more: not in searches, not over the API, not in any byte of any file."""

from __future__ import annotations

import hashlib
import shutil
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from service.clock import utc_now
from service.db.session import Database
from service.db.tables import AuditEntry, Dataset, Gallery, GalleryImage, Model
from service.errors import Problem
from service.galleries.erasure import erase_identity, erase_image
from service.galleries.files import generation_folder, open_store
from service.galleries.images import append
from service.galleries.lifecycle import create_gallery
from service.galleries.retention import expire
from service.galleries.schemas import GalleryBody
from service.settings import Settings
from tests.service.galleries.conftest import MODEL_ID
from tests.service.galleries.jobs import Worker
from tests.service.galleries.stock import (
    SIZE,
    add_model_row,
    added_ids,
    files_containing,
    found_ids,
    image_file,
    make_gallery,
    upload,
)

SECRET = "identity-of-somebody-42"


def stored_vectors(settings: Settings, gallery_id: str, count: int, generation: int = 0) -> np.ndarray:
    return np.array(open_store(generation_folder(settings, gallery_id, generation), SIZE, count=count).rows(0, count))


def stored_maps(database: Database, settings: Settings, gallery_id: str) -> np.ndarray:
    return Worker(database, settings, gallery_id).maps()


def rebuild(database: Database, settings: Settings, gallery_id: str) -> None:
    Worker(database, settings, gallery_id).run()


def fill(client: httpx.Client, **fields: object) -> tuple[str, list[str], list[bytes]]:
    """A gallery with six images, the second and fifth of somebody: its id, theirs, and the two images."""
    gallery = make_gallery(client, **fields)["id"]
    contents = [image_file(seed) for seed in range(6)]
    somebody = {"identity": SECRET, "external_id": f"{SECRET}/1"}
    details = [somebody if seed in (1, 4) else {"identity": f"other-{seed}"} for seed in range(6)]
    ids = added_ids(upload(client, gallery, contents, details))
    return gallery, ids, [contents[1], contents[4]]


@pytest.mark.usefixtures("model", "matcher")
@pytest.mark.parametrize("kind", ["flat", "hnsw"])
@pytest.mark.parametrize("reranker", [None, "matcher"])
def test_after_erasing_a_person_no_file_holds_a_byte_of_it(
    client: httpx.Client, database: Database, settings: Settings, kind: str, reranker: str | None
) -> None:
    gallery, ids, images = fill(client, index=kind, reranker=reranker)
    rebuild(database, settings, gallery)
    generation = client.get(f"/galleries/{gallery}").json()
    assert generation["index"]["kind"] == kind
    found_ids(client.get("/search", params={"gallery": gallery, "image_id": ids[1]}))
    vectors = stored_vectors(settings, gallery, 6, generation=1)
    features = [vectors, stored_maps(database, settings, gallery)] if reranker else [vectors]
    needles = [SECRET.encode(), *images, *(array[place].tobytes() for array in features for place in (1, 4))]
    assert all(files_containing(settings.home, needle) for needle in needles)

    answer = client.delete(f"/galleries/{gallery}/identities/{SECRET}")

    assert answer.status_code == 200, answer.text
    assert answer.json()["removed"]["local_features"] == (2 if reranker else 0)
    assert [files_containing(settings.home, needle) for needle in needles] == [[]] * len(needles)
    left = [array[place].tobytes() for array in features for place in (0, 2, 3, 5)]
    assert all(files_containing(settings.home, needle) for needle in left)


@pytest.mark.usefixtures("model")
def test_the_receipt_counts_what_was_removed_without_naming_the_person(
    client: httpx.Client, database: Database
) -> None:
    gallery, ids, _ = fill(client)
    receipt = client.delete(f"/galleries/{gallery}/identities/{SECRET}").json()
    assert receipt["identity_sha256"] == hashlib.sha256(SECRET.encode()).hexdigest()
    assert receipt["removed"] == {
        "images": 2,
        "vectors": 2,
        "pictures": 2,
        "local_features": 0,
        "rows": 2,
        "indexes": 0,
        "cluster_entries": 0,
        "feedback": 0,
    }
    assert (receipt["gallery"], receipt["revision"], receipt["left_in_place"]) == (gallery, 2, [])
    with database.read() as session:
        entry = session.query(AuditEntry).filter_by(action="gallery.erase_identity").one()
    assert (entry.target, entry.detail["removed"], entry.key_id is not None) == (gallery, receipt["removed"], True)
    assert SECRET not in str(entry.detail)
    again = client.delete(f"/galleries/{gallery}/identities/{SECRET}")
    assert (again.status_code, again.json()["type"]) == (404, "/problems/not-found")
    assert client.get(f"/galleries/{gallery}/images/{ids[0]}").status_code == 200


@pytest.mark.usefixtures("model")
def test_an_erased_image_is_gone_from_the_next_search_and_answers_410(client: httpx.Client) -> None:
    gallery, ids, _ = fill(client)
    assert sorted(found_ids(client.get("/search", params={"gallery": gallery, "image_id": ids[0]}))) == sorted(ids)
    assert client.delete(f"/galleries/{gallery}/images/{ids[2]}").status_code == 204
    here = f"/galleries/{gallery}/images/{ids[2]}"
    for answer in (client.get(here), client.get(f"{here}/content"), client.delete(here)):
        assert (answer.status_code, answer.json()["type"]) == (410, "/problems/erased")
    assert client.get("/search", params={"gallery": gallery, "image_id": ids[2]}).status_code == 410
    left = found_ids(client.get("/search", params={"gallery": gallery, "image_id": ids[0]}))
    assert sorted(left) == sorted(set(ids) - {ids[2]})
    assert client.get(f"/galleries/{gallery}").json()["images"] == 5
    assert client.delete(f"/galleries/{gallery}/images/img_nobody").status_code == 404
    (new,) = added_ids(upload(client, gallery, [image_file(2)]))
    assert new not in ids


@pytest.mark.usefixtures("model")
def test_a_gallery_whose_images_are_all_erased_has_no_index(client: httpx.Client) -> None:
    make_gallery(client)
    (image,) = added_ids(upload(client, "hall", [image_file(1)]))
    other = added_ids(upload(client, make_gallery(client, name="other")["id"], [image_file(2)]))[0]
    client.delete(f"/galleries/hall/images/{image}")
    answer = client.get("/search", params={"gallery": "hall", "image_id": other})
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/no-index")
    assert client.get("/search", params={"gallery": "hall", "image_id": image}).status_code == 410
    assert client.get("/galleries/hall").json()["state"] == "empty"


@pytest.mark.usefixtures("model")
def test_labels_with_slashes_and_other_scripts_can_be_erased(client: httpx.Client) -> None:
    make_gallery(client)
    for label in ("a/b", "людмила 7", "100%?"):
        upload(client, "hall", [image_file(1)], [{"identity": label}])
        receipt = client.delete(f"/galleries/hall/identities/{quote(label, safe='')}")
        assert (receipt.status_code, receipt.json()["removed"]["images"]) == (200, 1)


@pytest.mark.usefixtures("model")
def test_images_of_a_data_set_are_left_in_place_and_named(
    client: httpx.Client, database: Database, settings: Settings, dataset: Dataset
) -> None:
    gallery = make_gallery(client, dataset={"id": "lobby", "split": "gallery"})["id"]
    Worker(database, settings, gallery).run({"dataset": dataset.id, "split": "gallery"})
    receipt = client.delete(f"/galleries/{gallery}/identities/0002").json()
    assert receipt["left_in_place"] == [{"dataset": dataset.id, "name": "lobby", "pictures": 6}]
    assert receipt["removed"]["pictures"] == 0
    assert len(list(Path(dataset.path).glob("0002_*"))) == 6


def row(number: int, identity: str = "x") -> GalleryImage:
    return GalleryImage(id=f"img_{number}", filename="a", sha256="0", width=1, height=1, identity=identity)


def vectors(count: int) -> np.ndarray:
    made = np.random.default_rng(0).standard_normal((count, SIZE)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture
def hall(each_database: Database, settings: Settings) -> str:
    """An empty gallery in either kind of database."""
    add_model_row(each_database, MODEL_ID)
    with each_database.write() as session:
        return create_gallery(session, settings, GalleryBody(name="hall", model="tiny", index="hnsw")).id


def test_erasing_works_alike_on_every_database(each_database: Database, settings: Settings, hall: str) -> None:
    made = vectors(4)
    append(each_database, settings, hall, [row(0), row(1, SECRET), row(2), row(3, SECRET)], (made,))
    receipt = erase_identity(each_database, settings, "hall", SECRET, key_id=None)
    assert receipt.removed.vectors == 2
    left = stored_vectors(settings, hall, 4)
    np.testing.assert_array_equal(left[[0, 2]], made[[0, 2]])
    assert not left[[1, 3]].any()
    assert erase_image(each_database, settings, hall, "img_0", key_id=None).images == 1
    with pytest.raises(Problem) as caught:
        erase_image(each_database, settings, hall, "img_0", key_id=None)
    assert caught.value.slug == "erased"
    with each_database.read() as session:
        gallery = session.get_one(Gallery, hall)
    assert (gallery.images, gallery.deletions, gallery.revision, gallery.next_position) == (1, 3, 3, 4)


def test_what_a_crashed_addition_left_in_the_store_is_erased_too(
    database: Database, settings: Settings, model: Model
) -> None:
    with database.write() as session:
        hall = create_gallery(session, settings, GalleryBody(name="hall", model=model.id)).id
    made = vectors(3)
    append(database, settings, hall, [row(0, SECRET)], (made[:1],))
    with pytest.raises(Exception, match="UNIQUE"):
        append(database, settings, hall, [row(1), row(0)], (made[1:],))
    erase_identity(database, settings, hall, SECRET, key_id=None)
    assert not stored_vectors(settings, hall, 3).any()


def test_erasing_goes_on_although_the_index_is_damaged(
    client: httpx.Client, database: Database, settings: Settings, model: Model
) -> None:
    gallery, ids, _ = fill(client, index="hnsw")
    rebuild(database, settings, gallery)
    (index,) = generation_folder(settings, gallery, 1).glob("index-*")
    index.write_bytes(index.read_bytes()[:-1])
    assert client.delete(f"/galleries/{gallery}/images/{ids[0]}").status_code == 204
    assert not index.exists()
    assert client.get(f"/galleries/{gallery}").json()["index"]["kind"] == "flat"
    left = found_ids(client.get("/search", params={"gallery": gallery, "image_id": ids[1]}))
    assert sorted(left) == sorted(ids[1:])


@pytest.mark.usefixtures("model")
def test_images_past_their_retention_are_erased(client: httpx.Client, database: Database, settings: Settings) -> None:
    make_gallery(client, name="for-ever")
    make_gallery(client, retention_days=30)
    kept = added_ids(upload(client, "for-ever", [image_file(1)]))
    old, young = added_ids(upload(client, "hall", [image_file(2), image_file(3)]))
    with database.write() as session:
        session.get_one(GalleryImage, old).created_at = utc_now() - timedelta(days=31)
        session.get_one(GalleryImage, kept[0]).created_at = utc_now() - timedelta(days=3000)
    assert expire(database, settings, utc_now()) == 1
    assert client.get(f"/galleries/hall/images/{old}").status_code == 410
    assert found_ids(client.get("/search", params={"gallery": "hall", "image_id": young})) == [young]
    assert client.get(f"/galleries/for-ever/images/{kept[0]}").status_code == 200
    assert files_containing(settings.home, image_file(2)) == []
    with database.read() as session:
        assert session.query(AuditEntry).filter_by(action="gallery.expire").one().detail["removed"]["images"] == 1
    assert expire(database, settings, utc_now()) == 0


def test_what_a_crashed_rebuild_left_is_erased_too(
    client: httpx.Client, database: Database, settings: Settings, model: Model
) -> None:
    gallery, ids, _ = fill(client)
    vectors = stored_vectors(settings, gallery, 6)
    shutil.copytree(generation_folder(settings, gallery, 0), generation_folder(settings, gallery, 1))
    client.delete(f"/galleries/{gallery}/images/{ids[1]}")
    assert files_containing(settings.home, vectors[1].tobytes()) == []
    rebuild(database, settings, gallery)
    stored = open_store(generation_folder(settings, gallery, 1), SIZE, count=5).rows(0, 5)
    shutil.copytree(generation_folder(settings, gallery, 1), generation_folder(settings, gallery, 0))
    vector = stored[0].tobytes()
    client.delete(f"/galleries/{gallery}/images/{ids[0]}")
    assert files_containing(settings.home, vector) == []
