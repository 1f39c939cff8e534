"""Data sets that arrive as an archive: streamed to disk, checked, unpacked by the job."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from reid_core.errors import DatasetError
from service.datasets.registration import register
from service.datasets.uploads import remove_lost_uploads
from service.db.ids import new_ids
from service.db.session import Database
from service.main import create_app
from service.settings import Settings
from service.storage import held_file
from tests.service.datasets.registering import (
    Register,
    files_below,
    make_market,
    slug,
    upload,
    zipped,
)
from tests.service.serving import open_client, serve
from tests.waiting import wait_until


@pytest.mark.parametrize("packed", ["zip", "tar.gz"])
def test_an_uploaded_archive_becomes_a_data_set_and_is_removed(
    client: httpx.Client, settings: Settings, tmp_path: Path, run: Register, packed: str
) -> None:
    folder = make_market(tmp_path / "pictures")
    if packed == "zip":
        content = zipped(folder)
    else:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            archive.add(folder, "pictures")
        content = buffer.getvalue()

    answer = upload(client, content, name="sent", format="market1501")
    assert answer.status_code == 202, answer.text
    dataset = answer.json()
    assert (dataset["state"], dataset["uploaded"]) == ("pending", True)
    assert files_below(settings.uploads_dir) == [f"{dataset['id']}.part"]
    run(dataset)

    assert client.get("/datasets/sent").json()["splits"]["gallery"]["images"] == 12
    assert not (settings.uploads_dir / f"{dataset['id']}.part").exists()
    assert (settings.uploads_dir / dataset["id"]).is_dir()


def test_a_large_upload_arrives_byte_by_byte_as_it_was_sent(client: httpx.Client, settings: Settings) -> None:
    content = b"PK\x05\x06" + bytes(18)  # an empty zip at the end of what makes the file large
    content = b"PK\x03\x04" + np.random.default_rng(0).bytes(5_000_000) + content

    answer = upload(client, content, name="large")

    assert answer.status_code == 202, answer.text
    assert (settings.uploads_dir / f"{answer.json()['id']}.part").read_bytes() == content


def test_an_archive_that_leads_out_of_its_folder_makes_the_data_set_invalid(
    client: httpx.Client, settings: Settings, run: Register
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../escaped.jpg", "outside")
    dataset = upload(client, buffer.getvalue(), name="evil").json()

    with pytest.raises(DatasetError, match="leads out of its folder"):
        run(dataset)

    shown = client.get("/datasets/evil").json()
    assert (shown["state"], shown["error"]["type"]) == ("invalid", "/problems/invalid-dataset")
    assert "escaped.jpg" in shown["error"]["detail"]
    assert files_below(settings.uploads_dir) == []
    assert not list(settings.home.parent.rglob("escaped.jpg"))


def test_what_is_no_archive_is_refused_and_not_kept(client: httpx.Client, settings: Settings) -> None:
    text = b"Dear all,\nplease find the images attached.\n"
    for content in (text, b"", b"PK not really a zip", b"\x1f\x8b but not gzip"):
        answer = upload(client, content, name="letter")
        assert (answer.status_code, slug(answer)) == (415, "unsupported-media"), content
    assert files_below(settings.uploads_dir) == []
    assert client.get("/datasets").json()["items"] == []


def test_a_form_must_be_complete_and_hold_one_archive(client: httpx.Client, settings: Settings) -> None:
    two = [("archive", ("a.zip", b"PK")), ("archive", ("b.zip", b"PK"))]
    cases = [
        (client.post("/datasets", data={"name": "a"}, files={"picture": ("a.zip", b"PK")}), 422, "/picture"),
        (client.post("/datasets", data={"name": "a"}, files=two), 422, "/archive"),
        (client.post("/datasets", files={"name": (None, "a"), "format": (None, "auto")}), 422, "/archive"),
        (upload(client, zipped_text(), format="auto"), 422, "/name"),
        (upload(client, zipped_text(), name="a", colour="red"), 422, "/colour"),
        (upload(client, zipped_text(), name="a" * 20_000), 422, "/name"),
    ]
    for answer, status, pointer in cases:
        assert answer.status_code == status, answer.text
        assert answer.json()["errors"][0]["pointer"] == pointer
    cut_off = b'--x\r\nContent-Disposition: form-data; name="archive"; filename="a.zip"\r\n\r\nPK'
    for body in (cut_off, b"no form at all"):
        answer = client.post("/datasets", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
        assert (answer.status_code, slug(answer)) == (400, "malformed-request")
    endless = {"Content-Type": f"multipart/form-data; boundary={'x' * 5000}"}
    answer = client.post("/datasets", content=cut_off, headers=endless)
    assert (answer.status_code, slug(answer)) == (400, "malformed-request")
    assert files_below(settings.uploads_dir) == []


def zipped_text() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("read.me", "nothing else")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("limit", "status", "expected"),
    [({"min_free_bytes": 2**60}, 507, "disk-full"), ({"max_upload_bytes": 1000}, 413, "too-large")],
)
def test_an_upload_beyond_a_limit_is_refused_and_not_kept(
    tmp_path: Path, limit: dict[str, int], status: int, expected: str
) -> None:
    settings = Settings(home=tmp_path / "home", auth="off", **limit)
    content = zipped(make_market(tmp_path / "pictures"))
    with serve(create_app(settings)) as address, open_client(address) as client:
        answer = upload(client, content, name="sent")
        items = client.get("/datasets").json()["items"]

    assert (answer.status_code, slug(answer), items) == (status, expected, [])
    assert files_below(settings.uploads_dir) == []


def test_an_archive_too_large_once_unpacked_makes_the_data_set_invalid(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/1/zeros.jpg", bytes(1_000_000))
    dataset = upload(client, buffer.getvalue(), name="bomb").json()

    with pytest.raises(DatasetError, match="more than 100000 bytes"):
        register(database, settings.model_copy(update={"max_archive_bytes": 100_000}), dataset["id"])

    shown = client.get("/datasets/bomb").json()
    assert shown["state"] == "invalid"
    assert "REID_MAX_ARCHIVE_BYTES" in shown["error"]["hint"]
    assert files_below(settings.uploads_dir) == []


def test_an_upload_that_breaks_off_leaves_nothing(client: httpx.Client, settings: Settings) -> None:
    start = b'--x\r\nContent-Disposition: form-data; name="archive"; filename="a.zip"\r\n\r\nPK' + bytes(2_000_000)

    def break_off() -> Iterator[bytes]:
        yield start
        wait_until(lambda: len(files_below(settings.uploads_dir)) == 1)
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        client.post("/datasets", content=break_off(), headers={"Content-Type": "multipart/form-data; boundary=x"})

    wait_until(lambda: files_below(settings.uploads_dir) == [])
    assert client.get("/datasets").json()["items"] == []


def test_what_killed_uploads_left_is_removed_and_what_arrives_is_not(
    client: httpx.Client, database: Database, settings: Settings, tmp_path: Path
) -> None:
    mine = upload(client, zipped(make_market(tmp_path / "pictures")), name="waiting").json()["id"]
    lost, arriving = new_ids("ds", 2)
    (settings.uploads_dir / f"{lost}.part").write_bytes(b"PK")
    (settings.uploads_dir / f".{lost}-a1b2" / "train").mkdir(parents=True)
    (settings.uploads_dir / "notes.txt").write_text("an operator's own")
    with held_file(settings.uploads_dir / f"{arriving}.part"):
        remove_lost_uploads(database, settings)
        assert files_below(settings.uploads_dir) == sorted([f"{mine}.part", f"{arriving}.part", "notes.txt"])
    remove_lost_uploads(database, settings)
    assert files_below(settings.uploads_dir) == sorted([f"{mine}.part", "notes.txt"])
