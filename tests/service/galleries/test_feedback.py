"""Feedback on pairs of images: kept, listed, gone with its images, and made into a data set."""

from __future__ import annotations

import itertools
import random
import zipfile
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from service.api import feedback as api_feedback
from service.datasets.registration import register
from service.datasets.uploads import archive_path, unpack
from service.db.session import Database
from service.db.tables import Dataset, DatasetImage, Feedback, Model
from service.errors import Problem
from service.galleries import feedback_export
from service.galleries.erasure import erase_image
from service.galleries.feedback import group_by_person
from service.settings import Settings
from tests.service.galleries.stock import added_ids, image_file, make_gallery, upload
from tests.service.search.stock import scene

COUNT = 6


@pytest.fixture
def ids(client: httpx.Client, model: Model) -> list[str]:
    make_gallery(client)
    details = [{"identity": "anna", "camera": str(number % 2)} for number in range(COUNT)]
    return added_ids(upload(client, "hall", [image_file(seed) for seed in range(COUNT)], details))


def say(client: httpx.Client, first: str, second: str, same: bool, status: int = 201) -> dict[str, Any]:
    body = {"query_image": first, "image": second, "same": same}
    answer = client.post("/galleries/hall/feedback", json=body)
    assert answer.status_code == status, answer.text
    told: dict[str, Any] = answer.json()
    return told


def listed(client: httpx.Client, **params: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = client.get("/galleries/hall/feedback", params=params).json()["items"]
    return items


def test_a_pair_is_kept_once_and_is_what_was_said_last(client: httpx.Client, ids: list[str]) -> None:
    first = say(client, ids[1], ids[0], True)
    assert (first["images"], first["same"]) == ([ids[0], ids[1]], True)
    second = say(client, ids[2], ids[0], False)
    again = say(client, ids[0], ids[1], False, status=200)
    assert (again["id"], again["same"]) == (first["id"], False)
    assert [one["id"] for one in listed(client)] == [first["id"], second["id"]]
    assert listed(client, same=True) == []
    assert [one["id"] for one in listed(client, image=ids[2])] == [second["id"]]
    assert client.get(first["links"]["images"][0]).json()["id"] == ids[0]
    assert client.delete(first["links"]["self"]).status_code == 204
    assert client.delete(first["links"]["self"]).status_code == 404
    assert listed(client) == [second]


def test_a_result_is_confirmed_by_its_search(client: httpx.Client, matcher: Model) -> None:
    make_gallery(client, model="matcher")
    ids = added_ids(upload(client, "hall", [scene(number) for number in range(3)]))
    asked = {"gallery": "hall", "image_id": ids[0], "explain": True}
    search = client.get("/search", params=asked).json()["search_id"]
    body = {"search_id": search, "image": ids[2], "same": True}
    told = client.post("/galleries/hall/feedback", json=body).json()
    assert told["images"] == [ids[0], ids[2]]
    by_file = client.post("/search", data={"gallery": "hall", "explain": "true"}, files={"image": scene(9)}).json()
    refused = client.post("/galleries/hall/feedback", json=body | {"search_id": by_file["search_id"]})
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "no-stored-image")
    assert client.post("/galleries/hall/feedback", json=body | {"search_id": "search_1"}).status_code == 404


def test_what_names_no_two_images_of_the_gallery_is_refused(client: httpx.Client, ids: list[str]) -> None:
    say(client, ids[0], ids[0], True, status=422)
    say(client, ids[0], "img_none", True, status=404)
    make_gallery(client, name="other")
    (elsewhere,) = added_ids(upload(client, "other", [image_file(9)]))
    say(client, elsewhere, ids[0], True, status=404)
    client.delete(f"/galleries/hall/images/{ids[1]}")
    say(client, ids[0], ids[1], True, status=410)
    for body in (
        {"image": ids[0], "same": True},
        {"query_image": ids[2], "search_id": "s", "image": ids[0], "same": True},
    ):
        assert client.post("/galleries/hall/feedback", json=body).status_code == 422
    assert listed(client) == []


def test_erasing_takes_feedback_along_and_says_so(client: httpx.Client, ids: list[str], database: Database) -> None:
    for first, second in itertools.combinations(ids[:4], 2):
        say(client, first, second, True)
    assert client.delete(f"/galleries/hall/images/{ids[0]}").status_code == 204
    assert len(listed(client)) == 3
    client.patch(f"/galleries/hall/images/{ids[1]}", json={"identity": "bert"})
    receipt = client.delete("/galleries/hall/identities/bert").json()
    assert (receipt["removed"]["images"], receipt["removed"]["feedback"]) == (1, 2)
    assert [one["images"] for one in listed(client)] == [[ids[2], ids[3]]]
    assert client.delete("/galleries/hall").status_code == 204
    with database.read() as session:
        assert session.scalars(select(Feedback)).all() == []


def test_feedback_becomes_a_data_set_to_train_on(
    client: httpx.Client, ids: list[str], database: Database, settings: Settings
) -> None:
    say(client, ids[0], ids[1], True)
    say(client, ids[2], ids[1], True)
    say(client, ids[3], ids[0], False)
    answer = client.post("/galleries/hall/feedback/export", json={"name": "confirmed"})
    assert answer.status_code == 202, answer.text
    dataset = answer.json()["id"]
    assert answer.headers["Location"] == f"/datasets/{dataset}"
    register(database, settings, dataset)
    with database.read() as session:
        assert session.get_one(Dataset, dataset).state == "ready"
        rows = session.scalars(select(DatasetImage).where(DatasetImage.dataset_id == dataset)).all()
    people: dict[str, set[str]] = {}
    for row in rows:
        assert row.split == "train"
        people.setdefault(row.identity, set()).add(row.path.rpartition("/")[2].partition(".")[0])
    assert sorted(people.values(), key=len) == [{ids[3]}, set(ids[:3])]
    assert {row.camera for row in rows} == {"0", "1"}
    assert client.post("/galleries/hall/feedback/export", json={"name": "confirmed"}).status_code == 409

    receipt = client.delete("/galleries/hall/identities/anna").json()
    assert receipt["left_in_place"] == [{"dataset": dataset, "name": "confirmed", "pictures": 4}]
    assert receipt["removed"]["feedback"] == 3


def test_a_receipt_names_an_export_that_no_job_has_read_yet(
    client: httpx.Client, ids: list[str], database: Database, settings: Settings
) -> None:
    say(client, ids[0], ids[1], True)
    say(client, ids[2], ids[3], True)
    dataset = client.post("/galleries/hall/feedback/export", json={"name": "confirmed"}).json()["id"]
    left = [{"dataset": dataset, "name": "confirmed", "pictures": 1}]
    for number, identity in enumerate(["bert", "carl"]):
        client.patch(f"/galleries/hall/images/{ids[number]}", json={"identity": identity})
    assert client.delete("/galleries/hall/identities/bert").json()["left_in_place"] == left
    unpack(settings, dataset)
    assert client.delete("/galleries/hall/identities/carl").json()["left_in_place"] == left
    register(database, settings, dataset)
    left[0]["pictures"] = 2
    assert client.delete("/galleries/hall/identities/anna").json()["left_in_place"] == left


@pytest.mark.parametrize("moment", ["ensure_free_space", "held_file", "add_with_job"])
def test_an_image_that_is_erased_during_an_export_is_not_exported(
    client: httpx.Client,
    ids: list[str],
    database: Database,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    say(client, ids[0], ids[1], True)
    say(client, ids[2], ids[3], True)
    module = feedback_export if moment == "ensure_free_space" else api_feedback
    goes_on, erased = getattr(module, moment), False

    def erase_first(*args: Any, **kwargs: Any) -> Any:
        nonlocal erased
        if not erased:
            erased = True
            erase_image(database, settings, "hall", ids[0], key_id=None)
        return goes_on(*args, **kwargs)

    monkeypatch.setattr(module, moment, erase_first)
    answer = client.post("/galleries/hall/feedback/export", json={"name": "confirmed"})
    if moment == "held_file":  # nothing of it had been read
        assert answer.status_code == 202
        with zipfile.ZipFile(archive_path(settings, answer.json()["id"])) as archive:
            assert {name[7:37] for name in archive.namelist() if name.startswith("images/")} == set(ids[2:4])
        return
    assert (answer.status_code, answer.json()["hint"]) == (409, "Export again.")
    assert list(settings.uploads_dir.glob("*")) == []
    assert client.get("/datasets").json()["items"] == []
    assert client.post("/galleries/hall/feedback/export", json={"name": "confirmed"}).status_code == 202


def test_a_taken_name_is_refused_before_a_file_is_copied(
    client: httpx.Client, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    say(client, ids[0], ids[1], True)
    assert client.post("/galleries/hall/feedback/export", json={"name": "confirmed"}).status_code == 202
    monkeypatch.setattr(api_feedback, "write_archive", lambda *_: pytest.fail("a file is copied"))
    answer = client.post("/galleries/hall/feedback/export", json={"name": "confirmed"})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (409, "taken")


def test_what_cannot_be_made_into_a_data_set_is_refused_and_leaves_nothing(
    client: httpx.Client, ids: list[str], settings: Settings
) -> None:
    export = {"name": "confirmed"}
    nothing = client.post("/galleries/hall/feedback/export", json=export)
    assert (nothing.status_code, "no feedback" in nothing.json()["detail"]) == (422, True)
    say(client, ids[0], ids[1], True)
    say(client, ids[1], ids[2], True)
    wrong = say(client, ids[0], ids[2], False)
    refused = client.post("/galleries/hall/feedback/export", json=export)
    assert (refused.status_code, wrong["id"] in refused.json()["detail"]) == (409, True)

    make_gallery(client, name="bare", keep_images=False)
    first, second = added_ids(upload(client, "bare", [image_file(7), image_file(8)]))
    body = {"query_image": first, "image": second, "same": True}
    assert client.post("/galleries/bare/feedback", json=body).status_code == 201
    bare = client.post("/galleries/bare/feedback/export", json=export)
    assert (bare.status_code, "keep_images" in bare.json()["hint"]) == (422, True)
    assert list(settings.uploads_dir.glob("*")) == []
    assert client.get("/datasets").json()["items"] == []


def test_persons_are_what_confirmed_pairs_join() -> None:
    generator = random.Random(0)
    images = [f"img_{number:02}" for number in range(12)]
    for _ in range(200):
        drawn = [sorted(generator.sample(images, 2)) for _ in range(generator.randint(1, 14))]
        pairs = [
            Feedback(id="fb", first_image_id=first, second_image_id=second, same=generator.random() < 0.6)
            for first, second in drawn
        ]
        label = {image: image for pair in drawn for image in pair}
        for _ in images:  # labels spread until nothing changes
            for pair in pairs:
                if pair.same:
                    one, other = pair.first_image_id, pair.second_image_id
                    label[one] = label[other] = min(label[one], label[other])
        expected = sorted(sorted(image for image in label if label[image] == name) for name in set(label.values()))
        if any(not pair.same and label[pair.first_image_id] == label[pair.second_image_id] for pair in pairs):
            with pytest.raises(Problem):
                group_by_person(pairs)
        else:
            assert group_by_person(pairs) == expected
