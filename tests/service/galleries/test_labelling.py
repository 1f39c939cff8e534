"""Labels of images that change after they came in: every process sees it, and nothing else moves."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from reid_core.retrieval.filters import Filters
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import AuditEntry, Gallery, GalleryImage, Model
from service.errors import Problem
from service.galleries import labelling
from service.galleries.erasure import erase_image
from service.galleries.image_schemas import ImageDetails
from service.galleries.images import append
from service.galleries.labelling import edit_image, set_labels
from service.galleries.lifecycle import create_gallery, lock_gallery
from service.galleries.schemas import GalleryBody
from service.search.snapshots import Snapshots
from service.settings import Settings
from tests.service.galleries.conftest import MODEL_ID
from tests.service.galleries.stock import (
    SIZE,
    add_model_row,
    added_ids,
    found_ids,
    image_file,
    make_gallery,
    upload,
)

DETAILS = [
    {"identity": "anna", "camera": "1", "captured_at": "2026-05-01T12:00:00Z", "external_id": "a"},
    {"identity": "bert", "camera": "2"},
    {},
]


@pytest.fixture
def ids(client: httpx.Client, model: Model) -> list[str]:
    make_gallery(client)
    return added_ids(upload(client, "hall", [image_file(seed) for seed in range(3)], DETAILS))


def test_an_edit_changes_what_it_names_and_nothing_else(client: httpx.Client, ids: list[str]) -> None:
    before = client.get(f"/galleries/hall/images/{ids[0]}").json()
    answer = client.patch(f"/galleries/hall/images/{ids[0]}", json={"identity": " Jose\u0301 "})
    assert answer.status_code == 200, answer.text
    assert answer.json() == before | {"identity": "Jos\u00e9"}
    assert client.get(f"/galleries/hall/images/{ids[0]}").json() == answer.json()
    cleared = client.patch(f"/galleries/hall/images/{ids[0]}", json=dict.fromkeys(DETAILS[0]))
    assert cleared.json() == before | dict.fromkeys(DETAILS[0])
    assert client.get("/galleries/hall").json()["revision"] == 3


def test_searches_go_by_the_new_camera_and_time(client: httpx.Client, ids: list[str]) -> None:
    asked = {"gallery": "hall", "image_id": ids[0]}
    assert len(found_ids(client.get("/search", params=asked))) == 3  # the gallery is loaded
    edit = {"camera": "9", "captured_at": "2026-06-01T00:00:00Z"}
    assert client.patch(f"/galleries/hall/images/{ids[2]}", json=edit).status_code == 200
    assert found_ids(client.get("/search", params=asked | {"camera": "9"})) == [ids[2]]
    assert found_ids(client.get("/search", params=asked | {"captured_after": "2026-05-20T00:00:00Z"})) == [ids[2]]
    assert ids[2] not in found_ids(client.get("/search", params=asked | {"camera": ""}))
    client.patch(f"/galleries/hall/images/{ids[2]}", json={"camera": None})
    assert found_ids(client.get("/search", params=asked | {"camera": ""})) == [ids[2]]


def test_a_snapshot_that_follows_is_as_one_that_is_loaded_anew(
    client: httpx.Client, ids: list[str], database: Database, settings: Settings
) -> None:
    gallery = client.get("/galleries/hall").json()["id"]
    snapshots = Snapshots(database, settings)
    first = snapshots.current(gallery)
    (new,) = added_ids(upload(client, "hall", [image_file(7)], [{"camera": "3"}]))
    for image, camera in ((ids[1], "1"), (new, "2"), (ids[0], None)):
        client.patch(f"/galleries/hall/images/{image}", json={"camera": camera, "captured_at": None})
    follows, fresh = snapshots.current(gallery), Snapshots(database, settings).current(gallery)
    assert follows.revision == fresh.revision == first.revision + 4
    assert follows.snapshot.captured_at.tolist() == fresh.snapshot.captured_at.tolist()
    for name in ("1", "2", "3", ""):
        filters = Filters(cameras=(name,))
        assert follows.snapshot.keep(filters).tolist() == fresh.snapshot.keep(filters).tolist()
    assert first.snapshot.keep(Filters(cameras=("1",))).tolist() == [True, False, False]


def test_labels_that_are_there_already_change_nothing(client: httpx.Client, ids: list[str], database: Database) -> None:
    before = client.get("/galleries/hall").json()
    assert client.patch(f"/galleries/hall/images/{ids[0]}", json=DETAILS[0]).status_code == 200
    assert client.get("/galleries/hall").json() == before
    with database.write() as session:
        gallery = lock_gallery(session, before["id"])
        assert set_labels(session, gallery, [*ids, "img_none"], {"identity": "anna"}, key_id="key_1") == 2
    with database.read() as session:
        assert set(session.scalars(select(GalleryImage.identity))) == {"anna"}
        entry = session.scalars(select(AuditEntry).order_by(AuditEntry.id.desc())).first()
        assert entry is not None
        assert (entry.action, entry.key_id, entry.target) == ("gallery.label_images", "key_1", before["id"])
        assert entry.detail == {"images": 2, "labels": ["identity"]}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ({"identity": "  "}, "/identity"),
        ({"camera": "a\u0000b"}, "/camera"),
        ({"captured_at": 5}, "/captured_at"),
        ({"external_id": ""}, "/external_id"),
        ({"position": 3}, "/position"),
    ],
)
def test_what_an_upload_refuses_an_edit_refuses(
    client: httpx.Client, ids: list[str], body: dict[str, object], pointer: str
) -> None:
    answer = client.patch(f"/galleries/hall/images/{ids[0]}", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert client.get("/galleries/hall").json()["revision"] == 1


def test_an_erased_image_is_gone_and_an_unknown_one_is_not_found(client: httpx.Client, ids: list[str]) -> None:
    client.delete(f"/galleries/hall/images/{ids[0]}")
    assert client.patch(f"/galleries/hall/images/{ids[0]}", json={"camera": "1"}).status_code == 410
    assert client.patch("/galleries/hall/images/img_none", json={"camera": "1"}).status_code == 404


@pytest.fixture
def stored(postgresql: Database, settings: Settings) -> GalleryImage:
    """An image of a gallery in PostgreSQL, where a transaction may read before another's and lock after it."""
    add_model_row(postgresql, MODEL_ID)
    image = GalleryImage(id="img_1", filename="a", sha256="0", width=1, height=1)
    with postgresql.write() as session:
        gallery = create_gallery(session, settings, GalleryBody(name="hall", model="tiny"))
    append(postgresql, settings, gallery.id, [image], (np.eye(1, SIZE, dtype=np.float32),))
    return image


def test_an_image_that_is_erased_while_an_edit_waits_is_answered_with_410(
    postgresql: Database, settings: Settings, stored: GalleryImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock_late(session: Session, gallery_id: str) -> Gallery:
        erase_image(postgresql, settings, "hall", stored.id, key_id=None)
        return lock_gallery(session, gallery_id)

    monkeypatch.setattr(labelling, "lock_gallery", lock_late)
    with pytest.raises(Problem) as refused:
        edit_image(postgresql, "hall", stored.id, ImageDetails(identity="anna"), key_id=None)
    assert refused.value.slug == "erased"


def test_a_locked_gallery_is_as_others_have_left_it(postgresql: Database, stored: GalleryImage) -> None:
    with postgresql.write() as session:
        assert find(session, Gallery, "hall").revision == 1
        edit_image(postgresql, "hall", stored.id, ImageDetails(identity="anna"), key_id=None)
        assert lock_gallery(session, stored.gallery_id).revision == 2
