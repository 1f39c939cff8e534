"""Thumbnails of images: upright, never larger than the image, cached by their ETag, gone with the image."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import pytest
from PIL import Image

from service.db.session import Database
from service.db.tables import Dataset, DatasetImage, Model
from tests.service.galleries.stock import added_ids, image_file, make_gallery, upload


def _photo(*, orientation: int | None = None) -> bytes:
    """200 x 400, its upper half red; stored as a camera that was held sideways does where an orientation is given."""
    image = Image.new("RGB", (200, 400), "blue")
    image.paste("red", (0, 0, 200, 200))
    file, exif = io.BytesIO(), Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
        image = image.transpose(Image.Transpose.ROTATE_90)  # what orientation 6 turns back
    image.save(file, "JPEG", exif=exif)
    return file.getvalue()


def _image_of(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "image/jpeg"
    return Image.open(io.BytesIO(answer.content))


@pytest.fixture
def content(client: httpx.Client, model: Model) -> str:
    make_gallery(client)
    (image,) = added_ids(upload(client, "hall", [_photo(orientation=6)]))
    return f"/galleries/hall/images/{image}/content"


def test_it_is_upright_and_keeps_its_aspect(client: httpx.Client, content: str) -> None:
    image = _image_of(client.get(content, params={"width": 50}))
    assert image.size == (50, 100)
    red, _, blue = image.getpixel((25, 10))  # type: ignore[misc]
    assert red > 200 > 100 > blue
    assert not image.getexif()


def test_it_is_never_larger_than_the_image(client: httpx.Client, content: str) -> None:
    assert _image_of(client.get(content, params={"width": 900})).size == (200, 400)


def test_a_client_that_has_it_is_told_so(client: httpx.Client, content: str) -> None:
    first = client.get(content, params={"width": 50})
    tag = {"If-None-Match": first.headers["ETag"]}
    again = client.get(content, params={"width": 50}, headers=tag)
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert client.get(content, params={"width": 60}, headers=tag).status_code == 200
    assert client.get(content, headers=tag).status_code == 200
    client.delete(content.removesuffix("/content"))
    assert client.get(content, params={"width": 50}, headers=tag).status_code == 410


@pytest.mark.parametrize("width", ["15", "1025", "0", "-1", "1.5", "wide"])
def test_widths_out_of_range_are_refused(client: httpx.Client, content: str, width: str) -> None:
    answer = client.get(content, params={"width": width})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/query/width")


def test_a_gallery_that_keeps_no_images_has_none(client: httpx.Client, model: Model) -> None:
    make_gallery(client, keep_images=False)
    (image,) = added_ids(upload(client, "hall", [image_file(0)]))
    assert client.get(f"/galleries/hall/images/{image}/content?width=50").status_code == 404


def test_images_of_data_sets_have_them_until_their_file_changes(
    client: httpx.Client, database: Database, dataset: Dataset
) -> None:
    with database.read() as session:
        image = session.query(DatasetImage).first()
        assert image is not None
    path, address = Path(dataset.path) / image.path, f"/datasets/lobby/images/{image.id}/content?width=16"
    path.write_bytes(_photo())
    first = client.get(address)
    assert _image_of(first).size == (16, 32)
    tag = {"If-None-Match": first.headers["ETag"]}
    assert client.get(address, headers=tag).status_code == 304
    path.write_bytes(image_file(3, "JPEG", (64, 64)))
    assert _image_of(client.get(address, headers=tag)).size == (16, 16)
    path.write_bytes(b"no image any more")
    assert client.get(address).status_code == 415
