"""Persons as a resource: who there is in a gallery, and renaming and merging them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import select

from service.db.session import Database
from service.db.tables import AuditEntry, GalleryImage, Model
from service.galleries.identities import list_identities
from service.galleries.lifecycle import create_gallery
from service.galleries.schemas import GalleryBody
from service.settings import Settings
from tests.service.galleries.stock import add_model_row, added_ids, image_file, make_gallery, upload

DETAILS: list[dict[str, Any]] = [
    {"identity": "anna", "camera": "1", "captured_at": "2026-05-02T12:00:00Z"},
    {"identity": "anna", "camera": "2", "captured_at": "2026-05-01T12:00:00Z"},
    {"identity": "anna"},
    {"identity": "Björk/2", "camera": "1"},
    {"identity": "0000", "camera": "1"},
    {"camera": "2"},
]
SIZES = [(16, 32), (20, 40), (16, 32), (16, 32), (90, 90), (90, 90)]


@pytest.fixture
def ids(client: httpx.Client, model: Model) -> list[str]:
    make_gallery(client)
    contents = [image_file(seed, size=size) for seed, size in enumerate(SIZES)]
    return added_ids(upload(client, "hall", contents, DETAILS))


def listed(client: httpx.Client, **params: Any) -> list[str]:
    answer = client.get("/galleries/hall/identities", params=params)
    assert answer.status_code == 200, answer.text
    return [item["identity"] for item in answer.json()["items"]]


def test_a_person_tells_its_images_cameras_times_and_cover(client: httpx.Client, ids: list[str]) -> None:
    person, other = client.get("/galleries/hall/identities").json()["items"][::-1]
    assert (other["identity"], other["first_seen"], other["cameras"]) == ("Björk/2", None, ["1"])
    assert (person["identity"], person["images"], person["cameras"]) == ("anna", 3, ["1", "2"])
    assert (person["first_seen"], person["last_seen"]) == ("2026-05-01T12:00:00Z", "2026-05-02T12:00:00Z")
    assert person["cover"]["image"] == ids[1]  # the largest
    assert client.get(person["cover"]["links"]["content"]).content == image_file(1, size=SIZES[1])
    for one in (person, other):
        assert client.get(one["links"]["self"]).json() == one
        assert len(client.get(one["links"]["images"]).json()["items"]) == one["images"]


def test_nobody_is_no_person_and_filters_choose(client: httpx.Client, ids: list[str]) -> None:
    assert listed(client) == ["Björk/2", "anna"]
    assert listed(client, camera="2") == ["anna"]
    assert listed(client, camera="") == ["anna"]
    assert listed(client, camera="3") == []
    assert listed(client, prefix="Bj") == ["Björk/2"]
    assert listed(client, prefix="bj") == []
    assert listed(client, prefix="%") == []
    assert listed(client, prefix="an", camera="1") == ["anna"]
    assert client.get("/galleries/hall/identities/0000").status_code == 404


def test_pages_hold_everybody_once_whatever_the_labels(client: httpx.Client, model: Model) -> None:
    make_gallery(client)
    labels = ["a", "A", "ä", "人", "a:b", "a b", "a/b", "z%41"]
    upload(client, "hall", [image_file(seed) for seed in range(8)], [{"identity": label} for label in labels])
    found, cursor = [], None
    while True:
        params = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        answer = client.get("/galleries/hall/identities", params=params).json()
        found += [item["identity"] for item in answer["items"]]
        cursor = answer["next_cursor"]
        if cursor is None:
            break
    assert sorted(found) == sorted(labels)
    assert found == listed(client)
    image_cursor = client.get("/galleries/hall/images", params={"limit": 1}).json()["next_cursor"]
    assert client.get("/galleries/hall/identities", params={"cursor": image_cursor}).status_code == 400


def test_a_new_name_takes_all_images_along(client: httpx.Client, ids: list[str], database: Database) -> None:
    answer = client.patch("/galleries/hall/identities/anna", json={"identity": " Jose\u0301 "})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["identity"], told["renamed_images"], told["images"], told["merged"]) == ("José", 3, 3, False)
    assert told["revision"] == 2
    assert listed(client) == ["Björk/2", "José"]
    assert client.get("/galleries/hall/identities/José").json()["images"] == 3
    with database.read() as session:
        entry = session.scalars(select(AuditEntry).where(AuditEntry.action == "gallery.rename_identity")).one()
    assert entry.detail["images"] == 3
    assert "anna" not in str(entry.detail)


def test_renaming_to_somebody_merges_the_two(client: httpx.Client, ids: list[str]) -> None:
    body = {"identity": "Björk/2", "new_identity": "anna"}
    told = client.post("/galleries/hall/identities/rename", json=body).json()
    assert (told["renamed_images"], told["images"], told["merged"]) == (1, 4, True)
    assert listed(client) == ["anna"]
    found = client.get("/search", params={"gallery": "hall", "image_id": ids[3], "top_k": 1}).json()["results"]
    assert found[0]["identity"] == "anna"


def test_a_label_with_a_slash_may_stand_in_the_address(client: httpx.Client, ids: list[str]) -> None:
    address = f"/galleries/hall/identities/{quote('Björk/2', safe='')}"
    assert client.patch(address, json={"identity": "a/b"}).json()["renamed_images"] == 1
    assert listed(client) == ["a/b", "anna"]


def test_the_same_name_again_changes_nothing(client: httpx.Client, ids: list[str]) -> None:
    told = client.patch("/galleries/hall/identities/anna", json={"identity": "anna"}).json()
    assert (told["renamed_images"], told["images"], told["merged"], told["revision"]) == (3, 3, False, 1)


def test_unknown_persons_and_impossible_names_are_refused(client: httpx.Client, ids: list[str]) -> None:
    missing = client.patch("/galleries/hall/identities/Anna", json={"identity": "b"})
    assert missing.status_code == 404
    assert "'anna'" in missing.json()["hint"]
    refused = client.patch("/galleries/hall/identities/anna", json={"identity": "../x"})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/identity")
    assert client.post("/galleries/hall/identities/rename", json={"identity": "anna"}).status_code == 422
    assert listed(client) == ["Björk/2", "anna"]


def test_every_database_lists_alike(each_database: Database, settings: Settings) -> None:
    add_model_row(each_database, "mdl_1", size=4)
    with each_database.write() as session:
        hall = create_gallery(session, settings, GalleryBody(name="hall", model="mdl_1")).id
        for number, (label, camera) in enumerate([("anna", "1"), ("Bert", None), ("anna", None), (None, "1")]):
            row = {"filename": "a", "sha256": "0", "width": 1, "height": 1, "added_revision": 1, "position": number}
            session.add(GalleryImage(id=f"img_{number}", gallery_id=hall, identity=label, camera=camera, **row))
    with each_database.read() as session:
        found = list_identities(session, hall, after=None, limit=10)
        assert {(one.label, one.images, one.cameras) for one in found} == {("anna", 2, ("1",)), ("Bert", 1, ())}
        behind = list_identities(session, hall, after=found[0].label, limit=10)
        assert [one.label for one in behind] == [found[1].label]
        assert [one.label for one in list_identities(session, hall, after=None, limit=9, camera="1")] == ["anna"]
        assert [one.label for one in list_identities(session, hall, after=None, limit=9, prefix="Be")] == ["Bert"]
