"""One rule of labels at every entrance: a table, a folder, an archive, metadata, filters, and the way out."""

from __future__ import annotations

import csv
import tempfile
import unicodedata
import zipfile
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from reid_core.data.archive import extract
from reid_core.data.reader import read
from reid_core.errors import DatasetError
from tests.service.galleries.stock import image_file, make_gallery, upload

pytestmark = pytest.mark.usefixtures("model")

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TRICKY = st.text(alphabet=" ./\\\u0301e\u00e9aA\u200b\u3000-1NoneN/A,;\"'\n\t|#%?&+=:~*", max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(typed=st.one_of(TEXT, TRICKY))
@example("Jose\u0301")
@example(" Jos\u00e9 ")
@example("..")
@example("a/../b")
@example("None")
@example("-1")
@example(".anna")
def test_a_label_is_the_same_through_every_entrance_or_refused_at_every_one(client: httpx.Client, typed: str) -> None:
    if client.get("/galleries/hall").status_code == 404:
        make_gallery(client)
    answer = upload(client, "hall", [image_file(1)], [{"identity": typed}])
    stored = None
    if answer.status_code == 201:
        stored = client.get(answer.json()["added"][0]["links"]["image"]).json()["identity"]
    else:
        assert answer.json()["errors"][0]["pointer"] == "/metadata/0/identity"

    with tempfile.TemporaryDirectory() as folder:
        assert in_table(Path(folder) / "table", typed) == stored
        if is_folder_name(typed):
            assert in_folder(Path(folder) / "tree", typed) == stored
            assert in_archive(Path(folder) / "set.zip", typed) == stored

    if stored is None:
        return
    for spelling in (stored, f" {unicodedata.normalize('NFD', stored)} "):
        found = client.get("/galleries/hall/images", params={"identity": spelling}).json()["items"]
        assert [item["identity"] for item in found] == [stored]
    receipt = client.delete(f"/galleries/hall/identities/{quote(unicodedata.normalize('NFD', stored), safe='')}")
    assert (receipt.status_code, receipt.json()["removed"]["images"]) == (200, 1)
    assert client.get("/galleries/hall").status_code == 200


def in_table(folder: Path, typed: str) -> str | None:
    """The label that a table gives an image; None where the row is passed over."""
    folder.mkdir()
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["path", "identity", "split"], ["1.jpg", typed, "train"]])
    return labelled(folder)


def in_folder(folder: Path, typed: str) -> str | None:
    place = folder / "train" / typed
    place.mkdir(parents=True)
    (place / "1.jpg").touch()
    return labelled(folder)


def in_archive(archive: Path, typed: str) -> str | None:
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("set/readme.txt", "so that it is never empty")
        file.writestr(f"set/train/{typed}/1.jpg", b"")
    extract(archive, archive.parent / "unpacked", max_bytes=1000, max_files=10)
    return labelled(archive.parent / "unpacked")


def labelled(folder: Path) -> str | None:
    try:
        images = read(folder).images["train"]
    except DatasetError:
        return None
    return images[0].identity if images else None


def is_folder_name(typed: str) -> bool:
    """A tree and an archive can hold a folder of that name; a backslash divides folders in archives."""
    fits = 0 < len(typed.encode()) < 256 and typed not in (".", "..")
    return fits and not any(character in typed for character in "/\\\0")


def test_cameras_and_keys_are_labels_too(client: httpx.Client) -> None:
    make_gallery(client)
    details = {"camera": " Eingang Su\u0308d ", "external_id": "cam/../7/e\u0301.jpg"}
    image = upload(client, "hall", [image_file(1)], [details]).json()["added"][0]["image"]
    shown = client.get(f"/galleries/hall/images/{image}").json()
    assert (shown["camera"], shown["external_id"]) == ("Eingang S\u00fcd", "cam/../7/\u00e9.jpg")
    for camera in ("Eingang Su\u0308d", " Eingang S\u00fcd"):
        found = client.get("/search", params={"gallery": "hall", "image_id": image, "camera": camera}).json()["results"]
        assert len(found) == 1
        hidden = client.get("/search", params={"gallery": "hall", "image_id": image, "exclude_camera": camera})
        assert hidden.json()["results"] == []


def test_a_plus_that_an_address_lost_is_found_again(client: httpx.Client) -> None:
    make_gallery(client)
    taken = {"captured_at": "2026-05-01T12:00:00+02:00"}
    image = upload(client, "hall", [image_file(1)], [taken]).json()["added"][0]["image"]
    for moment, count in (("2026-05-01T12:00:00+02:00", 1), ("2026-05-01T11:00:00+00:00", 0)):
        address = f"/search?gallery=hall&image_id={image}&captured_after={moment}"
        assert len(client.get(address).json()["results"]) == count
