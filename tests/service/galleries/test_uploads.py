"""Uploaded images are searchable when the request is answered; what cannot be taken is said, nothing is half done."""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.errors import Problem
from service.galleries.files import generation_folder, open_store
from service.galleries.images import append
from service.galleries.lifecycle import create_gallery
from service.galleries.retention import remove_leftovers
from service.galleries.schemas import GalleryBody
from service.main import create_app
from service.settings import Settings
from tests.service.galleries.conftest import MODEL_ID
from tests.service.galleries.stock import SIZE, add_model_row, added_ids, found_ids, image_file, make_gallery, upload
from tests.service.serving import open_client, serve

pytestmark = pytest.mark.usefixtures("model")

DETAILS = {"identity": "anna", "camera": "3", "captured_at": "2024-05-01T12:00:00+02:00", "external_id": "frame/17"}


def test_what_was_told_of_an_image_is_kept_with_it(client: httpx.Client) -> None:
    gallery = make_gallery(client)
    content = image_file(1, "JPEG", (20, 40))
    answer = upload(client, "hall", [content], [DETAILS])
    (image,) = added_ids(answer)
    here = f"/galleries/{gallery['id']}/images/{image}"
    assert answer.headers["Location"] == here
    assert (answer.json()["revision"], answer.json()["rejected"]) == (1, [])
    shown = client.get(here).json()
    assert {name: shown[name] for name in ("identity", "camera", "external_id")} == {
        "identity": "anna",
        "camera": "3",
        "external_id": "frame/17",
    }
    assert shown["captured_at"] == "2024-05-01T10:00:00Z"
    assert (shown["width"], shown["height"], shown["filename"]) == (20, 40, "0.png")
    assert shown["sha256"] == hashlib.sha256(content).hexdigest()
    gallery = client.get("/galleries/hall").json()
    assert (gallery["images"], gallery["revision"], gallery["state"]) == (1, 1, "ready")


def test_the_image_comes_back_as_it_was_sent(client: httpx.Client) -> None:
    make_gallery(client)
    kinds = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "GIF": "gif", "AVIF": "avif"}
    for format, kind in kinds.items():
        content = image_file(1, format)
        (image,) = added_ids(upload(client, "hall", [content]))
        answer = client.get(f"/galleries/hall/images/{image}/content")
        assert (answer.content, answer.headers["content-type"]) == (content, f"image/{kind}")
        again = client.get(f"/galleries/hall/images/{image}/content", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


def test_a_gallery_may_keep_no_images(client: httpx.Client, settings: Settings) -> None:
    gallery = make_gallery(client, keep_images=False)
    (image,) = added_ids(upload(client, "hall", [image_file(1)]))
    assert client.get(f"/galleries/hall/images/{image}").json()["links"]["content"] is None
    content = client.get(f"/galleries/hall/images/{image}/content")
    assert (content.status_code, "keeps no images" in content.json()["detail"]) == (404, True)
    assert found_ids(client.get("/search", params={"gallery": "hall", "image_id": image})) == [image]
    assert [path.name for path in (settings.galleries_dir / gallery["id"]).iterdir()] == ["0"]


def test_bad_files_are_named_and_the_good_ones_added(client: httpx.Client) -> None:
    make_gallery(client)
    contents = [image_file(1), b"no image at all", image_file(2), image_file(3)[:60]]
    metadata = [{"identity": name} for name in ("a", "b", "c", "d")]
    body = upload(client, "hall", contents, metadata).json()
    assert [item["filename"] for item in body["added"]] == ["0.png", "2.png"]
    assert [item["filename"] for item in body["rejected"]] == ["1.png", "3.png"]
    assert {item["problem"]["type"] for item in body["rejected"]} == {"/problems/invalid-picture"}
    identities = [client.get(item["links"]["image"]).json()["identity"] for item in body["added"]]
    assert identities == ["a", "c"]


def test_images_that_may_not_be_meant_are_added_with_a_warning(client: httpx.Client) -> None:
    make_gallery(client)
    first = Image.open(io.BytesIO(image_file(3)))
    animation = io.BytesIO()
    first.save(animation, "GIF", save_all=True, append_images=[Image.new("RGB", first.size)])
    contents = [
        image_file(1, size=(40, 20)),
        image_file(2, size=(1400, 1500)),
        animation.getvalue(),
        image_file(4, "JPEG")[:-2],
    ]
    body = upload(client, "hall", [*contents, image_file(5)]).json()
    assert len(body["added"]) == 5
    assert [(warning["filename"], warning["code"]) for warning in body["warnings"]] == [
        ("0.png", "whole-frame"),
        ("1.png", "whole-frame"),
        ("2.png", "first-of-several"),
        ("3.png", "cut-off"),
    ]
    assert "40 x 20 pixels looks like a whole frame" in body["warnings"][0]["message"]
    assert body["warnings"][0]["image"] == body["added"][0]["image"]


def test_what_is_transparent_does_not_show(client: httpx.Client) -> None:
    make_gallery(client)
    cutouts = []
    for hidden in (0, 255):
        pixels = np.full((32, 16, 4), hidden, np.uint8)
        pixels[..., 3] = 0
        pixels[8:24, 4:12] = (200, 30, 60, 255)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        cutouts.append(file.getvalue())
    (image,) = added_ids(upload(client, "hall", cutouts[:1]))
    (result,) = client.post("/search", data={"gallery": "hall"}, files={"image": cutouts[1]}).json()["results"]
    assert (result["image_id"], result["score"]) == (image, pytest.approx(1, abs=1e-5))


def test_types_that_are_not_read_are_named_and_the_rest_added(client: httpx.Client) -> None:
    make_gallery(client)
    body = upload(client, "hall", [image_file(1), b"\0\0\0\x18ftypheic" + bytes(50)]).json()
    (rejected,) = body["rejected"]
    assert "1.png is HEIC" in rejected["problem"]["detail"]
    assert "Convert it to JPEG" in rejected["problem"]["hint"]


def test_nothing_is_added_when_no_file_is_an_image(client: httpx.Client, settings: Settings) -> None:
    gallery = make_gallery(client)
    answer = upload(client, "hall", [b"nothing", b"neither"])
    assert (answer.status_code, answer.json()["type"]) == (415, "/problems/invalid-picture")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/files/0", "/files/1"]
    assert client.get("/galleries/hall").json()["revision"] == 0
    assert not (settings.galleries_dir / gallery["id"]).exists()


WRONG_METADATA = [
    ("no json", "/metadata"),
    ("{}", "/metadata"),
    ("[{}]", "/metadata"),
    ("[{}, {}, {}]", "/metadata"),
    ('[{}, {"colour": "red"}]', "/metadata/1/colour"),
    ('[{}, {"camera": 3}]', "/metadata/1/camera"),
    ('[{}, {"identity": ""}]', "/metadata/1/identity"),
    ('[{}, {"identity": "a\\u0000b"}]', "/metadata/1/identity"),
    ('[{}, {"identity": "\\ud800"}]', "/metadata/1/identity"),
    ('[{"captured_at": "yesterday"}, {}]', "/metadata/0/captured_at"),
    ('[{"captured_at": 1714500000}, {}]', "/metadata/0/captured_at"),
    ('[{"captured_at": "9999-12-31T23:59:59-14:00"}, {}]', "/metadata/0/captured_at"),
]


def test_wrong_metadata_adds_nothing(client: httpx.Client) -> None:
    make_gallery(client)
    files = [("files", ("a.png", image_file(1))), ("files", ("b.png", image_file(2)))]
    for metadata, pointer in WRONG_METADATA:
        answer = client.post("/galleries/hall/images", files=files, data={"metadata": metadata})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    assert client.get("/galleries/hall").json()["images"] == 0


def test_requests_that_are_no_upload_are_refused(client: httpx.Client) -> None:
    make_gallery(client)
    url = "/galleries/hall/images"
    assert client.post(url, content=b"x", headers={"Content-Type": "text/plain"}).status_code == 415
    assert client.post(url, content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
    no_boundary = client.post(url, content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert no_boundary.status_code == 400
    assert client.post(url, files={"pictures": image_file(1)}).json()["errors"][0]["pointer"] == "/pictures"
    assert client.post(url, files={"metadata": b"[]"}).json()["errors"][0]["pointer"] == "/files"
    assert client.post("/galleries/nobody/images", files={"files": image_file(1)}).status_code == 404
    assert client.post(url, json={"dataset": "lobby"}).json()["errors"][0]["pointer"] == "/split"
    metadata_as_file = client.post(url, files={"files": image_file(1), "metadata": b'[{"identity": "anna"}]'})
    assert metadata_as_file.status_code == 201


def test_limits_are_told_by_their_setting(settings: Settings, database: Database) -> None:
    limits = {"max_images_per_request": 3, "max_picture_bytes": 2000, "max_image_pixels": 600, "max_json_bytes": 3000}
    small = settings.model_copy(update=limits)
    with (
        serve(create_app(small)) as address,
        open_client(address, {"X-API-Key": small.admin_key_path.read_text().strip()}) as client,
    ):
        make_gallery(client)
        many = upload(client, "hall", [image_file(1)] * 4)
        assert (many.status_code, many.json()["type"]) == (413, "/problems/too-large")
        assert "REID_MAX_IMAGES_PER_REQUEST" in many.json()["hint"]
        wordy = upload(client, "hall", [image_file(1)], [{"identity": "x" * 4000}])
        assert (wordy.status_code, "REID_MAX_JSON_BYTES" in wordy.json()["hint"]) == (413, True)
        heavy = upload(client, "hall", [image_file(1) + bytes(2000)])
        assert (heavy.status_code, "REID_MAX_PICTURE_BYTES" in heavy.json()["hint"]) == (413, True)
        wide = upload(client, "hall", [image_file(1, size=(30, 30)), image_file(1)])
        assert [item["problem"]["status"] for item in wide.json()["rejected"]] == [413]
        assert "REID_MAX_IMAGE_PIXELS" in wide.json()["rejected"][0]["problem"]["hint"]


def test_uploads_from_many_threads_are_all_found_at_once(client: httpx.Client) -> None:
    make_gallery(client)

    def add_and_search(seed: int) -> None:
        ids = added_ids(upload(client, "hall", [image_file(seed), image_file(seed + 1000)]))
        for image in ids:
            assert image in found_ids(client.get("/search", params={"gallery": "hall", "image_id": image}))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add_and_search, range(16)))
    gallery = client.get("/galleries/hall").json()
    assert (gallery["images"], gallery["revision"]) == (32, 16)
    listed = client.get("/galleries/hall/images?limit=200").json()["items"]
    assert len({item["id"] for item in listed}) == 32


def test_file_names_cannot_lead_anywhere(client: httpx.Client) -> None:
    make_gallery(client)
    names = ["../../etc/passwd.png", "C:\\people\\anna.png", "a\u200bb.png", "x" * 500 + ".png"]
    files = [("files", (name, image_file(seed))) for seed, name in enumerate(names)]
    added = client.post("/galleries/hall/images", files=files).json()["added"]
    assert [item["filename"] for item in added[:3]] == ["passwd.png", "anna.png", "ab.png"]
    assert len(added[3]["filename"]) == 200


def row(number: int) -> GalleryImage:
    return GalleryImage(id=f"img_{number}", filename="a", sha256="0", width=1, height=1)


def vectors(*seeds: int) -> np.ndarray:
    made = np.stack([np.random.default_rng(seed).standard_normal(SIZE) for seed in seeds]).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture
def hall(each_database: Database, settings: Settings) -> str:
    """An empty gallery in either kind of database."""
    if each_database.dialect == "postgresql":
        add_model_row(each_database, MODEL_ID)
    with each_database.write() as session:
        return create_gallery(session, settings, GalleryBody(name="hall", model="tiny")).id


def test_additions_at_the_same_time_get_positions_of_their_own(
    each_database: Database, settings: Settings, hall: str
) -> None:
    def add(number: int) -> int:
        images = [row(10 * number), row(10 * number + 1)]
        return append(each_database, settings, hall, images, (vectors(10 * number, 10 * number + 1),))

    with ThreadPoolExecutor(4) as pool:
        revisions = list(pool.map(add, range(8)))
    assert sorted(revisions) == list(range(1, 9))
    store = open_store(generation_folder(settings, hall, 0), SIZE, count=16)
    with each_database.read() as session:
        images = session.query(GalleryImage).all()
    assert sorted(image.position for image in images) == list(range(16))
    for image in images:
        np.testing.assert_array_equal(store.read([image.position])[0], vectors(int(image.id[4:]))[0])


def test_what_a_crash_left_beyond_the_committed_positions_is_overwritten(
    database: Database, settings: Settings
) -> None:
    with database.write() as session:
        hall = create_gallery(session, settings, GalleryBody(name="hall", model="tiny")).id
    append(database, settings, hall, [row(1)], (vectors(1),))
    with pytest.raises(Exception, match="UNIQUE"):
        append(database, settings, hall, [row(2), row(1)], (vectors(2, 3),))
    store = open_store(generation_folder(settings, hall, 0), SIZE, count=1)
    assert len(store) == 3
    assert append(database, settings, hall, [row(4)], (vectors(4),)) == 2
    np.testing.assert_array_equal(store.read([0, 1]), vectors(1, 4))
    with database.read() as session:
        gallery = session.get_one(Gallery, hall)
    assert (gallery.images, gallery.next_position) == (2, 2)
    with pytest.raises(Problem, match="no gallery"):
        append(database, settings, "gal_gone", [row(5)], (vectors(5),))


def test_leftovers_of_crashes_are_removed_and_nothing_else(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    gallery = make_gallery(client)
    (image,) = added_ids(upload(client, "hall", [image_file(1)]))
    folder = settings.galleries_dir / gallery["id"]

    def leave(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left over")
        return path

    doomed = [
        leave(settings.galleries_dir / "gal_deleted" / "0" / "embeddings"),
        leave(folder / "1" / "embeddings"),
        leave(folder / "0" / "index-0123"),
        leave(folder / "0" / ".index-0123.abcd"),
        leave(folder / "pictures" / "img_unknown.png"),
    ]
    remove_leftovers(database, settings)
    assert [path for path in doomed if path.exists()] == []
    assert client.get(f"/galleries/hall/images/{image}/content").content == image_file(1)
    assert found_ids(client.get("/search", params={"gallery": "hall", "image_id": image})) == [image]
