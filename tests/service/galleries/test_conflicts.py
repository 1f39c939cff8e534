"""Images sent again under an external id, and images found and erased by what is told of them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import httpx
import pytest

from service.db.answers import RequestKey, SentAnswer, forget, remember, take_turn
from service.db.session import Database
from service.db.tables import AuditEntry
from service.keys.lifecycle import create_key
from service.settings import Settings
from tests.service.galleries.stock import files_containing, found_ids, image_file, make_gallery, upload

pytestmark = pytest.mark.usefixtures("model")

Sent = Sequence[tuple[str | None, bytes]]


@pytest.fixture
def hall(client: httpx.Client) -> httpx.Client:
    """A client of a service with the gallery `hall`."""
    make_gallery(client)
    return client


def send(client: httpx.Client, sent: Sent, on_conflict: str = "add", **options: Any) -> httpx.Response:
    """Uploads (external id, content) to the gallery `hall`."""
    files = [("files", (f"{number}.png", io.BytesIO(content))) for number, (_, content) in enumerate(sent)]
    data = {"metadata": json.dumps([{"external_id": external_id} for external_id, _ in sent])}
    return client.post("/galleries/hall/images", params={"on_conflict": on_conflict}, files=files, data=data, **options)


def added(answer: httpx.Response) -> list[str]:
    assert answer.status_code in (200, 201), answer.text
    return [item["image"] for item in answer.json()["added"]]


def listed(client: httpx.Client, **filters: str) -> list[tuple[str, str | None]]:
    """(id, external id) of each."""
    answer = client.get("/galleries/hall/images", params=filters)
    assert answer.status_code == 200, answer.text
    return [(item["id"], item["external_id"]) for item in answer.json()["items"]]


def test_by_default_a_known_external_id_is_added_beside(hall: httpx.Client) -> None:
    first, second = added(send(hall, [("a", image_file(1)), ("a", image_file(2))]))
    (third,) = added(send(hall, [("a", image_file(3))]))
    assert listed(hall, external_id="a") == [(first, "a"), (second, "a"), (third, "a")]


def test_a_known_external_id_is_skipped(hall: httpx.Client) -> None:
    first, other = added(send(hall, [("a", image_file(1)), (None, image_file(2))]))
    answer = send(
        hall, [("a", image_file(3)), ("b", image_file(4)), (None, image_file(5)), ("b", image_file(6))], "skip"
    )
    new, unnamed = added(answer)
    skipped = [(item["filename"], item["image"]) for item in answer.json()["skipped"]]
    assert skipped == [("0.png", first), ("3.png", new)]
    assert listed(hall) == [(first, "a"), (other, None), (new, "b"), (unnamed, None)]
    revision = hall.get("/galleries/hall").json()["revision"]
    again = send(hall, [("a", b"not even an image"), ("b", image_file(4))], "skip")
    assert (again.status_code, again.json()["added"], len(again.json()["skipped"])) == (200, [], 2)
    assert again.json()["revision"] == revision == hall.get("/galleries/hall").json()["revision"]


def test_a_known_external_id_is_replaced_and_the_known_images_are_erased(
    hall: httpx.Client, settings: Settings, database: Database
) -> None:
    first, second, other = added(send(hall, [("a", image_file(1)), ("a", image_file(2)), ("b", image_file(3))]))
    answer = send(hall, [("a", image_file(4)), ("c", image_file(5)), ("a", image_file(6))], "replace")
    new_c, new_a = added(answer)
    assert [item["replaces"] for item in answer.json()["added"]] == [[], [first, second]]
    assert [(item["filename"], item["image"]) for item in answer.json()["skipped"]] == [("0.png", new_a)]
    assert listed(hall) == [(other, "b"), (new_c, "c"), (new_a, "a")]
    assert hall.get(f"/galleries/hall/images/{first}").status_code == 410
    found = found_ids(hall.get("/search", params={"gallery": "hall", "image_id": new_a}))
    assert (found[0], sorted(found)) == (new_a, sorted([other, new_c, new_a]))
    assert [bool(files_containing(settings.home, image_file(number))) for number in range(1, 7)] == [
        *(False, False, True),
        *(False, True, True),
    ]
    with database.read() as session:
        entry = session.query(AuditEntry).filter_by(action="gallery.replace_images").one()
    assert (entry.detail, entry.key_id is not None) == ({"images": 2}, True)


def test_an_image_that_is_refused_replaces_nothing(hall: httpx.Client) -> None:
    (first,) = added(send(hall, [("a", image_file(1))]))
    assert send(hall, [("a", b"no image")], "replace").status_code == 415
    answer = send(hall, [("a", b"no image"), ("b", image_file(2))], "replace")
    assert [item["filename"] for item in answer.json()["rejected"]] == ["0.png"]
    assert listed(hall, external_id="a") == [(first, "a")]


def test_replacing_needs_the_scope_erase_too(hall: httpx.Client, database: Database) -> None:
    (first,) = added(send(hall, [("a", image_file(1))]))
    with database.write() as session:
        key = create_key(session, name="writer", scopes=["write"])[1]
    headers = {"Authorization": f"Bearer {key}"}
    refused = send(hall, [("a", image_file(2))], "replace", headers=headers)
    assert (refused.status_code, "'erase'" in refused.json()["detail"]) == (403, True)
    assert send(hall, [("a", image_file(2))], "skip", headers=headers).status_code == 200
    assert listed(hall) == [(first, "a")]


def test_a_split_of_a_data_set_knows_no_conflicts(hall: httpx.Client) -> None:
    body = {"dataset": "lobby", "split": "gallery"}
    answer = hall.post("/galleries/hall/images?on_conflict=skip", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/query/on_conflict")
    assert hall.post("/galleries/hall/images?on_conflict=overwrite", json=body).status_code == 422


def test_images_are_filtered_and_erased_by_what_is_told_of_them(
    hall: httpx.Client, settings: Settings, database: Database
) -> None:
    details = [
        {"identity": "anna", "camera": "1", "external_id": "x/1"},
        {"identity": "anna", "camera": "2", "external_id": "x/2"},
        {"identity": "bert", "camera": "2"},
    ]
    one, two, three = added(upload(hall, "hall", [image_file(seed) for seed in range(3)], details))
    assert [image for image, _ in listed(hall, identity="anna", camera="2")] == [two]
    assert listed(hall, external_id="x") == []

    receipt = hall.delete("/galleries/hall/images", params={"identity": "anna", "camera": "2"})

    assert (receipt.status_code, receipt.json()["removed"]["images"]) == (200, 1)
    assert set(receipt.json()) >= {"identity_sha256", "camera_sha256", "left_in_place", "remaining", "look_alikes"}
    assert [image for image, _ in listed(hall)] == [one, three]
    assert files_containing(settings.home, image_file(1)) == []
    with database.read() as session:
        entry = session.query(AuditEntry).filter_by(action="gallery.erase_images").one()
    assert "anna" not in str(entry.detail)
    again = hall.delete("/galleries/hall/images", params={"external_id": "x/2"})
    assert (again.status_code, "'x/2'" in again.json()["detail"]) == (404, True)


def test_erasing_without_a_filter_is_refused(hall: httpx.Client) -> None:
    added(send(hall, [("a", image_file(1))]))
    answer = hall.delete("/galleries/hall/images")
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-request")
    assert "external_id" in answer.json()["hint"]
    assert hall.delete("/galleries/hall/images?identiti=a").status_code == 422
    assert len(listed(hall)) == 1


def test_a_person_is_erased_by_a_body_too_with_the_same_receipt(hall: httpx.Client, database: Database) -> None:
    labels = ["Jos\u00e9 1", "JOS\u00c9  1", "jos\u00e9\u200b 1", "Jose 1", "erase"]
    for seed, label in enumerate(labels):
        added(upload(hall, "hall", [image_file(seed), image_file(seed + 50)], [{"identity": label}] * 2))
    receipt = hall.post("/galleries/hall/identities/erase", json={"identity": " Jose\u0301 1"})
    assert receipt.status_code == 200, receipt.text
    look_alikes = sorted((item["identity"], item["images"]) for item in receipt.json()["look_alikes"])
    assert look_alikes == sorted((label, 2) for label in labels[1:3])
    other = hall.delete("/galleries/hall/identities/erase").json()  # a person called `erase`
    assert (other["removed"], other["look_alikes"]) == (receipt.json()["removed"], [])
    assert set(other) == set(receipt.json())
    missing = hall.post("/galleries/hall/identities/erase", json={"identity": " Jose\u0301 1"})
    assert (missing.status_code, repr(labels[1]) in missing.json()["hint"]) == (404, True)
    with database.read() as session:
        assert session.query(AuditEntry).filter_by(action="gallery.erase_identity").count() == 2


def test_a_receipt_names_remembered_answers_with_their_end(hall: httpx.Client, settings: Settings) -> None:
    files = {"files": ("anna.png", image_file(1))}
    data = {"metadata": json.dumps([{"identity": "anna"}])}
    for gallery, key in (("hall", "one"), (make_gallery(hall, name="other")["id"], "two")):
        answer = hall.post(f"/galleries/{gallery}/images", files=files, data=data, headers={"Idempotency-Key": key})
        assert answer.status_code == 201
    (remaining,) = hall.delete("/galleries/hall/identities/anna").json()["remaining"]
    assert "Idempotency-Key" in remaining["what"]
    assert remaining["until"].endswith("Z")


def test_a_receipt_names_answers_of_all_addresses_that_name_images(hall: httpx.Client, database: Database) -> None:
    naming = [
        "/search",
        "/v1/search/batch",
        "/galleries/hall/clusters/clu_1/accept",
        "/v1/galleries/hall/clusters/clu_1/split",
    ]
    for path in (*naming, "/galleries/hall2/images", "/models/import"):
        upload(hall, "hall", [image_file(1)], [{"identity": "anna"}])
        key = RequestKey("k", "key_1", "POST", path)
        take_turn(database, key, "hash", secret="s", keep=timedelta(days=1))
        remember(database, key, SentAnswer(200, {}, b"{}"), secret="s")
        remaining = hall.delete("/galleries/hall/identities/anna").json()["remaining"]
        assert ["answers remembered" in one["what"] for one in remaining] == [True] * (path in naming), path
        forget(database, key)
