"""Data sets as people have them, over HTTP: tables by their own path, declared layouts, one folder per person."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from reid_core.errors import DatasetError
from service.settings import Settings
from tests.reid_core.images import make_images
from tests.reid_core.test_data_archive import pack_plain_names
from tests.service.datasets.registering import Register, post, slug, upload, zipped


def make_people(folder: Path, *, people: int = 4) -> Path:
    """A folder for each person, as a phone would have them: 2 images by each of 2 cameras."""
    for image in make_images(folder, identities=people, each=2):
        target = folder / f"person {image.identity}" / image.path.name
        target.parent.mkdir(exist_ok=True)
        image.path.rename(target)
    return folder


def report(client: httpx.Client, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = client.get(f"/datasets/{name}/report").json()
    return shown


def finding(client: httpx.Client, name: str, code: str) -> dict[str, Any]:
    (found,) = [each for each in report(client, name)["findings"] if each["code"] == code]
    return dict(found)


def test_a_table_is_registered_by_its_own_path(client: httpx.Client, settings: Settings, run: Register) -> None:
    folder = settings.data_roots[0] / "table"
    images = make_images(folder / "shots", identities=2, each=1)
    rows = [f"shots/{image.path.name};{image.identity};train" for image in images]
    (folder / "people.csv").write_text("\n".join(["File;Who;split", *rows]))
    columns = {"path": "File", "identity": "Who"}
    dataset = post(client, name="lobby", path="table/people.csv", columns=columns)
    run(dataset)

    shown = client.get("/datasets/lobby").json()
    assert (shown["state"], shown["format"], shown["splits"]["train"]["images"]) == ("ready", "manifest", 4)
    assert shown["declaration"] == {"table": "people.csv", "columns": columns}
    first = client.get("/datasets/lobby/images?limit=1").json()["items"][0]
    assert first["path"].startswith("shots/")
    assert client.get(first["links"]["content"]).status_code == 200


def test_a_file_that_is_no_table_is_refused(client: httpx.Client, settings: Settings) -> None:
    settings.data_roots[0].mkdir(parents=True)
    (settings.data_roots[0] / "set.zip").write_bytes(b"PK")
    answer = client.post("/datasets", json={"name": "lobby", "path": "set.zip"})
    assert (answer.status_code, slug(answer)) == (422, "invalid-dataset")
    assert "multipart" in answer.json()["hint"]


def test_a_declared_layout_is_read_and_stands_in_the_protocol(
    client: httpx.Client, market: Path, run: Register
) -> None:
    layout = {"train": "bounding_box_train", "gallery": "query/", "pattern": r"(?P<identity>\d+)_c(?P<camera>\d)"}
    run(post(client, name="lobby", path="market", layout=layout))

    shown = client.get("/datasets/lobby").json()
    assert (shown["format"], shown["splits"]["gallery"]["images"]) == ("declared", 6)
    assert "gallery in query" in report(client, "lobby")["protocol"]["splits"]
    assert finding(client, "lobby", "unread-folders")["samples"] == ["bounding_box_test: 12 files"]


IMPOSSIBLE = [
    ({"layout": {"train": "../a"}}, "/layout/train"),
    ({"layout": {"train": "/etc"}}, "/layout/train"),
    ({"layout": {"train": "a", "pattern": "("}}, "/layout/pattern"),
    ({"layout": {"train": "a", "pattern": r"(?P<who>\d)"}}, "/layout/pattern"),
    ({"layout": {"val": "a"}}, "/layout/val"),
    ({"columns": {"colour": "a"}}, "/columns/colour"),
    ({"encoding": "klingon"}, "/encoding"),
    ({"encoding": "base64"}, "/encoding"),
    ({"format": "declared"}, ""),
    ({"format": "msmt17", "layout": {"train": "a"}}, ""),
    ({"format": "msmt17", "columns": {"path": "a"}}, ""),
]


def test_declarations_that_mean_nothing_are_refused(client: httpx.Client, market: Path) -> None:
    for declared, pointer in IMPOSSIBLE:
        answer = client.post("/datasets", json={"name": "lobby", "path": "market", **declared})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer), declared


def test_an_upload_is_declared_in_form_fields(client: httpx.Client, market: Path, run: Register) -> None:
    layout = {"train": "bounding_box_train", "pattern": r"(?P<identity>\d+)_c(?P<camera>\d)"}
    answer = upload(client, zipped(market), name="sent", layout=json.dumps(layout))
    assert answer.status_code == 202, answer.text
    run(answer.json())
    assert client.get("/datasets/sent").json()["format"] == "declared"
    assert upload(client, zipped(market), name="other", layout="{").json()["errors"][0]["pointer"] == "/layout"


def test_names_in_an_archive_are_told_as_they_were_read(client: httpx.Client, tmp_path: Path, run: Register) -> None:
    dataset = upload(client, pack_plain_names(tmp_path / "a.zip", ["金/0.jpg"], "euc-kr").read_bytes(), name="unclear")
    with pytest.raises(DatasetError, match="not clear"):
        run(dataset.json())
    assert "encoding" in client.get("/datasets/unclear").json()["error"]["hint"]

    people = make_people(tmp_path / "people")
    names = [f"{path.parent.name}/{path.name}" for path in sorted(people.glob("*/*"))]
    plain = {name: name.replace("person", "Jos\u00e9") for name in names}
    packed = pack_plain_names(tmp_path / "b.zip", list(plain.values()), "cp437")
    with zipfile.ZipFile(packed) as empty, zipfile.ZipFile(tmp_path / "c.zip", "w") as filled:
        for info, name in zip(empty.infolist(), names, strict=True):
            filled.writestr(info.orig_filename.encode("ascii", "replace").decode(), (people / name).read_bytes())
    content = (tmp_path / "c.zip").read_bytes().replace(b"Jos?", b"Jos\x82")
    run(upload(client, content, name="sent").json())
    assert finding(client, "sent", "archive-names")["samples"][0] == "read as cp437"
    items = client.get("/datasets/sent/images?limit=200").json()["items"]
    assert {item["identity"][:4] for item in items} == {"Jos\u00e9"}


def test_one_folder_per_person_gets_a_split_that_stays(client: httpx.Client, settings: Settings, run: Register) -> None:
    folder = make_people(settings.data_roots[0] / "friends")
    (folder / "person 0001" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    run(post(client, name="friends", path="friends"))

    def trained() -> set[str]:
        items = client.get("/datasets/friends/images?split=train&limit=200").json()["items"]
        return {item["identity"] for item in items}

    assert client.get("/datasets/friends").json()["format"] == "people"
    assert "IMG_1.HEIC is HEIC" in finding(client, "friends", "unreadable-pictures")["samples"][0]
    first = trained()
    assert len(first) == 2
    make_people(folder, people=9)
    run(client.post("/datasets/friends/rescan").json())
    assert first < trained()
    assert "seed 0" in report(client, "friends")["protocol"]["splits"]


def test_a_failed_registration_gives_up_its_name(
    client: httpx.Client, settings: Settings, market: Path, run: Register
) -> None:
    (settings.data_roots[0] / "empty").mkdir(parents=True, exist_ok=True)
    failed = post(client, name="lobby", path="empty")
    with pytest.raises(DatasetError):
        run(failed)
    dataset = post(client, name="lobby", path="market")
    run(dataset)

    assert client.get("/datasets/lobby").json()["id"] == dataset["id"]
    assert client.get(f"/datasets/{failed['id']}").json()["name"] == f"lobby ({failed['id']})"
    again = client.post("/datasets", json={"name": "lobby", "path": "market"})
    assert (again.status_code, slug(again)) == (409, "name-taken")


def test_a_data_set_is_read_again_under_its_name(client: httpx.Client, market: Path, run: Register) -> None:
    run(post(client, name="lobby", path="market"))
    before = {item["path"]: item["id"] for item in client.get("/datasets/lobby/images?limit=200").json()["items"]}
    gone, changed = sorted((market / "bounding_box_train").iterdir())[:2]
    gone.unlink()
    changed.write_bytes((market / "query/0001_c1s1_000000_00.png").read_bytes())
    answer = client.post("/datasets/lobby/rescan")
    assert answer.status_code == 202
    assert client.get("/datasets/lobby").json()["state"] == "pending"
    assert slug(client.post("/datasets/lobby/rescan")) == "wrong-state"
    run(answer.json())

    shown = client.get("/datasets/lobby").json()
    after = {item["path"]: item["id"] for item in client.get("/datasets/lobby/images?limit=200").json()["items"]}
    assert (shown["state"], shown["splits"]["train"]["images"]) == ("ready", 15)
    assert after == {path: key for path, key in before.items() if not path.endswith(gone.name) or "train" not in path}
    told = finding(client, "lobby", "changed-files")
    assert told["count"] == 2
    assert told["samples"] == [
        f"bounding_box_train/{gone.name}: missing",
        f"bounding_box_train/{changed.name}: changed",
    ]


def test_a_data_set_that_was_mended_is_ready_after_a_rescan(
    client: httpx.Client, settings: Settings, market: Path, run: Register
) -> None:
    hidden = market.rename(settings.data_roots[0] / "hidden")
    market.mkdir()
    dataset = post(client, name="lobby", path="market")
    with pytest.raises(DatasetError):
        run(dataset)
    market.rmdir()
    hidden.rename(market)
    run(client.post("/datasets/lobby/rescan").json())
    assert client.get("/datasets/lobby").json()["state"] == "ready"
    assert client.post("/datasets/nothing/rescan").status_code == 404


def test_a_data_set_is_moved_to_where_the_same_files_lie(
    client: httpx.Client, settings: Settings, market: Path, run: Register
) -> None:
    run(post(client, name="lobby", path="market"))
    before = client.get("/datasets/lobby").json()["fingerprint"]
    elsewhere = settings.data_roots[0] / "elsewhere"
    shutil.copytree(market, elsewhere)
    shutil.rmtree(market)
    answer = client.patch("/datasets/lobby", json={"path": "elsewhere"})
    assert (answer.status_code, answer.json()["fingerprint"]) == (200, before)
    image = client.get("/datasets/lobby/images?limit=1").json()["items"][0]
    assert client.get(image["links"]["content"]).status_code == 200

    other = shutil.copytree(elsewhere, settings.data_roots[0] / "other")
    names = sorted(path.name for path in (other / "query").iterdir())[:3]
    (other / "query" / names[0]).unlink()
    content = (other / "query" / names[1]).read_bytes()
    (other / "query" / names[1]).write_bytes(content[:50])
    (other / "query" / names[2]).write_bytes(content[:-1] + b"x")
    refused = client.patch("/datasets/lobby", json={"path": "other"})
    assert (refused.status_code, slug(refused)) == (409, "files-differ")
    assert [(error["code"], error["message"]) for error in refused.json()["errors"]][:2] == [
        ("missing", f"query/{names[0]} is missing"),
        ("cut-short", f"query/{names[1]} is cut short"),
    ]
    assert client.patch("/datasets/lobby", json={"path": "/etc"}).status_code == 422
    assert client.patch("/datasets/lobby", json={"path": "nowhere"}).status_code == 422
    assert client.get(image["links"]["content"]).status_code == 200


def test_an_uploaded_data_set_is_not_moved(client: httpx.Client, market: Path, run: Register) -> None:
    run(upload(client, zipped(market), name="sent").json())
    refused = client.patch("/datasets/sent", json={"path": "market"})
    assert (refused.status_code, slug(refused)) == (409, "wrong-state")
