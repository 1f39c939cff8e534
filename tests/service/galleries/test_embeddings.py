"""Embeddings out of images and galleries, and into galleries that keep no images."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from numpy.typing import NDArray
from sqlalchemy import select

from service.db.ids import new_ids
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage, Model
from service.galleries.embedding_export import EmbeddingExport
from service.galleries.embedding_files import Block, EmbeddingFile
from service.galleries.embedding_import import add_embeddings
from service.galleries.images import append
from service.settings import Settings
from tests.service.galleries.conftest import MODEL_ID
from tests.service.galleries.stock import SIZE, added_ids, encoder_for, image_file, make_gallery, upload

NPY = "application/x-npy"


def _vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((count, SIZE), dtype=np.float32)
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _npy(vectors: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, vectors)
    return file.getvalue()


def _npy_header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def _npy_of(rows: int) -> bytes:
    return _npy_header(str({"descr": "<f4", "fortran_order": False, "shape": (rows, SIZE)}))


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


def _add(client: httpx.Client, embeddings: bytes, metadata: bytes | None = None, **parameters: str) -> httpx.Response:
    files = [("embeddings", ("e", embeddings))] + ([] if metadata is None else [("metadata", ("m", metadata))])
    return client.post("/galleries/hall/embeddings", files=files, params=parameters)


@pytest.fixture
def hall(client: httpx.Client, model: Model) -> str:
    """A gallery that keeps vectors and labels alone."""
    return str(make_gallery(client, keep_images=False)["id"])


def test_images_are_embedded_as_the_model_embeds_them(client: httpx.Client, settings: Settings, model: Model) -> None:
    contents = [image_file(number) for number in range(35)]
    files = [("image", (f"{number}.png", content)) for number, content in enumerate(contents)]
    answer = client.post("/embeddings", files=files, data={"model": "tiny"}).json()
    assert (answer["model"], answer["size"], len(answer["items"])) == (MODEL_ID, SIZE, 35)
    made = np.array([item["embedding"] for item in answer["items"]])
    alone = client.post("/embeddings", files=files, data={"model": MODEL_ID}, headers={"Accept": NPY})
    array = np.load(io.BytesIO(alone.content))
    assert (alone.headers["Content-Type"], array.shape, array.dtype) == (NPY, (35, SIZE), np.float32)
    np.testing.assert_allclose(array, made, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(array, axis=1), 1, atol=1e-5)
    encoder = encoder_for(settings, MODEL_ID)
    from PIL import Image

    image = Image.open(io.BytesIO(contents[3])).convert("RGB")
    expected = encoder.encode_prepared(encoder.prepare(image)[None]).embeddings.numpy()
    np.testing.assert_allclose(array[3], expected[0], atol=1e-5)


def test_an_image_that_cannot_be_taken_has_its_problem_or_refuses_the_array(client: httpx.Client, model: Model) -> None:
    files = [("image", ("a.png", image_file(0))), ("image", ("b.png", b"no image"))]
    first, second = client.post("/embeddings", files=files, data={"model": "tiny"}).json()["items"]
    assert len(first["embedding"]) == SIZE
    assert (second["filename"], second["problem"]["status"]) == ("b.png", 415)
    refused = client.post("/embeddings", files=files, data={"model": "tiny"}, headers={"Accept": NPY})
    assert (refused.status_code, refused.json()["detail"][:8]) == (415, "Image 2:")


@pytest.mark.parametrize(
    ("fields", "status", "told"),
    [({"model": "other"}, 404, "other"), ({}, 422, "/model"), ({"model": "tiny", "size": "1"}, 422, "/size")],
)
def test_fields_that_are_wrong_are_refused(
    client: httpx.Client, model: Model, fields: dict[str, str], status: int, told: str
) -> None:
    answer = client.post("/embeddings", files=[("image", ("a.png", image_file(0)))], data=fields)
    assert (answer.status_code, told in answer.text) == (status, True)


def test_what_comes_out_of_a_gallery_goes_into_another(client: httpx.Client, model: Model, hall: str) -> None:
    make_gallery(client, name="yard")
    metadata = [{"camera": str(n % 3), "identity": f"p{n}", "captured_at": "2026-01-01T10:00:00Z"} for n in range(7)]
    ids = added_ids(upload(client, "yard", [image_file(number) for number in range(7)], [*metadata[:6], {}]))
    sent = client.get("/galleries/yard/embeddings")
    assert sent.headers["Content-Type"] == "application/vnd.apache.parquet"
    table = pyarrow.parquet.read_table(io.BytesIO(sent.content))
    assert table.column("image_id").to_pylist() == ids
    assert table.column("identity").to_pylist() == [*(f"p{n}" for n in range(6)), None]
    array = np.load(io.BytesIO(client.get("/galleries/yard/embeddings?format=npy").content))
    np.testing.assert_array_equal(np.stack(table.column("embedding").to_numpy()), array)

    added = _add(client, sent.content)
    assert added.status_code == 201, added.text
    assert {name: added.json()[name] for name in ("added", "skipped", "replaced", "rescaled")} == {
        "added": 7,
        "skipped": 0,
        "replaced": 0,
        "rescaled": 0,
    }
    assert "no picture" in added.json()["note"]
    images = client.get("/galleries/hall/images").json()["items"]
    assert [(image["camera"], image["identity"], image["captured_at"]) for image in images] == [
        *((str(n % 3), f"p{n}", "2026-01-01T10:00:00Z") for n in range(6)),
        (None, None, None),
    ]
    assert {image["links"]["content"] for image in images} == {None}
    assert client.get(f"/galleries/hall/images/{images[0]['id']}/content").status_code == 404
    query = client.post("/search", data={"gallery": "hall"}, files={"image": image_file(4)}).json()["results"]
    assert (query[0]["image_id"], query[0]["links"]["image"]) == (images[4]["id"], None)
    assert query[0]["score"] == pytest.approx(1, abs=1e-3)
    again = pyarrow.parquet.read_table(io.BytesIO(client.get("/galleries/hall/embeddings").content))
    np.testing.assert_allclose(np.stack(again.column("embedding").to_numpy()), array, atol=1e-6)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_an_array_comes_with_lines_of_metadata(client: httpx.Client, hall: str, kind: type) -> None:
    vectors = _vectors(2500)
    lines = b"".join(json.dumps({"external_id": str(number)}).encode() + b"\n" for number in range(2500))
    added = _add(client, _npy((3 * vectors).astype(kind)), lines)
    assert added.status_code == 201, added.text
    assert (added.json()["added"], added.json()["rescaled"]) == (2500, 2500)
    found = client.post("/search", json={"gallery": "hall", "embedding": vectors[1234].tolist(), "top_k": 1}).json()
    assert found["results"][0]["external_id"] == "1234"
    assert client.get("/galleries/hall").json()["images"] == 2500


def test_rows_that_are_sent_again_replace_or_are_skipped(client: httpx.Client, hall: str) -> None:
    vectors = _vectors(6)

    def rows(start: int, stop: int) -> bytes:
        return _parquet([{"external_id": str(n % 4), "embedding": vectors[n].tolist()} for n in range(start, stop)])

    assert _add(client, rows(0, 4)).json()["added"] == 4
    skipped = _add(client, rows(0, 4), on_conflict="skip")
    assert (skipped.status_code, skipped.json()["skipped"]) == (200, 4)
    replaced = _add(client, rows(4, 6), on_conflict="replace").json()
    assert (replaced["added"], replaced["replaced"]) == (2, 2)
    assert client.get("/galleries/hall").json()["images"] == 4
    found = client.post("/search", json={"gallery": "hall", "embedding": vectors[4].tolist(), "top_k": 1}).json()
    assert (found["results"][0]["external_id"], found["results"][0]["score"]) == ("0", pytest.approx(1, abs=1e-5))


def _with(number: int, value: float) -> NDArray[np.float32]:
    vectors = _vectors(1200)
    vectors[number] = value
    return vectors


@pytest.mark.parametrize(
    ("embeddings", "metadata", "pointer"),
    [
        (_npy(_with(1100, np.nan)), None, "/embeddings/1100"),
        (_npy(_with(1100, np.inf)), None, "/embeddings/1100"),
        (_npy(_with(1100, 0)), None, "/embeddings/1100"),
        (_npy(_vectors(3)[:, :100]), None, "/embeddings"),
        (_npy(np.zeros((3, SIZE), np.int8)), None, "/embeddings"),
        (_npy(_vectors(3))[:-5], None, "/embeddings"),
        (_npy(np.array([{"a": 1}], object)), None, "/embeddings"),
        *((_npy_of(rows), None, "/embeddings") for rows in (-1, 2**63, 2**70)),
        *((_npy_header(text), None, "/embeddings") for text in ("{'descr': (", " x\n y", "{1: 2, 'a': 3}", "-" * 9000)),
        (_npy(_vectors(3)), b'{"camera": "a"}\n', "/metadata"),
        (_npy(_vectors(1)), b'{"camera": "a"}\n{}\n', "/metadata"),
        (_npy(_vectors(1)), b'{"colour": "red"}\n', "/metadata/0/colour"),
        (_npy(_vectors(1)), b"no json\n", "/metadata/0"),
        (_parquet([{"embedding": [1.0, 2.0]}]), None, "/embeddings/0"),
        (_parquet([{"vector": [1.0, 2.0]}]), None, "/embeddings"),
        (_parquet([{"embedding": [1.0] * SIZE, "colour": "red"}]), None, "/embeddings"),
        (_parquet([{"embedding": [1.0] * SIZE}]), b"{}\n", "/metadata"),
        (b"PAR1 and no more", None, "/embeddings"),
        (b"something else", None, "/embeddings"),
    ],
)
def test_a_row_that_cannot_be_taken_refuses_all(
    client: httpx.Client, hall: str, embeddings: bytes, metadata: bytes | None, pointer: str
) -> None:
    answer = _add(client, embeddings, metadata)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer), answer.text
    assert client.get("/galleries/hall").json()["images"] == 0


def test_a_few_bytes_that_stand_for_many_numbers_are_refused_before_they_are_read(
    client: httpx.Client, hall: str
) -> None:
    bomb = _parquet([{"embedding": np.zeros(5_000_000)}])
    assert len(bomb) < 10_000
    answer = _add(client, bomb)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/embeddings"), answer.text
    assert "5,000,000 numbers in 1 rows" in answer.text


class _Watched(EmbeddingFile):
    """A file that counts, while each of its blocks is read, the gallery's images in a transaction that writes."""

    def __init__(self, content: bytes, metadata: bytes, database: Database, *, cut_at: int | None = None) -> None:
        super().__init__(io.BytesIO(content), io.BytesIO(metadata), SIZE)
        self.database, self.cut_at, self.counts = database, cut_at, list[int]()

    def blocks(self) -> Iterator[Block]:
        for block in super().blocks():
            with self.database.write() as session:
                self.counts.append(session.scalars(select(Gallery.images)).one())
            if self.counts[-1] == self.cut_at:
                raise OSError("the disk is gone")
            yield block


def test_others_write_while_a_file_is_added(database: Database, settings: Settings, hall: str) -> None:
    file = _Watched(_npy(_vectors(2500)), b"{}\n" * 2500, database)
    addition = add_embeddings(database, settings, "hall", file, on_conflict="add", key_id=None)
    assert (addition.added, file.counts) == (2500, [0, 0, 0, 0, 1000, 2000])


def test_a_file_that_is_cut_off_leaves_whole_blocks_and_can_be_sent_again(
    client: httpx.Client, database: Database, settings: Settings, hall: str
) -> None:
    vectors = _npy(_vectors(2500))
    lines = b"".join(json.dumps({"external_id": str(number)}).encode() + b"\n" for number in range(2500))
    file = _Watched(vectors, lines, database, cut_at=1000)
    with pytest.raises(OSError, match="gone"):
        add_embeddings(database, settings, "hall", file, on_conflict="skip", key_id=None)
    assert client.get("/galleries/hall").json()["images"] == 1000
    again = _add(client, vectors, lines, on_conflict="skip").json()
    assert (again["skipped"], again["added"]) == (1000, 1500)


def test_galleries_that_keep_images_or_local_features_take_none(
    client: httpx.Client, model: Model, matcher: Model
) -> None:
    make_gallery(client, name="hall")
    assert (_add(client, _npy(_vectors(1))).status_code, _add(client, b"").json()["status"]) == (409, 409)
    make_gallery(client, name="yard", model="matcher", keep_images=False)
    answer = client.post("/galleries/yard/embeddings", files={"embeddings": _npy(_vectors(1))})
    assert (answer.status_code, "local features" in answer.text) == (409, True)


def test_an_export_survives_erasures_and_a_rebuild_beneath_it(
    client: httpx.Client, database: Database, settings: Settings, hall: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.galleries.embedding_export._ROWS_AT_ONCE", 10)
    assert _add(client, _npy(_vectors(30))).status_code == 201
    ids = [image["id"] for image in client.get("/galleries/hall/images").json()["items"]]
    pieces = EmbeddingExport(database, settings, "hall").parquet()
    content = next(pieces)
    client.delete(f"/galleries/hall/images/{ids[25]}")
    assert _add(client, _npy(_vectors(5, seed=1))).status_code == 201
    content += b"".join(pieces)
    table = pyarrow.parquet.read_table(io.BytesIO(content))
    assert table.column("image_id").to_pylist() == [image for image in ids if image != ids[25]]


def test_an_upload_that_began_before_an_export_and_ends_within_it_is_not_in_it(
    client: httpx.Client, database: Database, settings: Settings, hall: str
) -> None:
    began = [GalleryImage(id=key, filename="", sha256="", width=0, height=0) for key in new_ids("img", 5)]
    assert _add(client, _npy(_vectors(30))).status_code == 201
    export = EmbeddingExport(database, settings, "hall")
    append(database, settings, hall, began, (_vectors(5, seed=1),))
    content = b"".join(export.npy())
    assert len(content) == export.npy_bytes()
    np.testing.assert_allclose(np.load(io.BytesIO(content)), _vectors(30), atol=1e-6)


def test_an_empty_gallery_exports_no_rows(client: httpx.Client, hall: str) -> None:
    table = pyarrow.parquet.read_table(io.BytesIO(client.get("/galleries/hall/embeddings").content))
    assert (table.num_rows, "embedding" in table.column_names) == (0, True)
    assert np.load(io.BytesIO(client.get("/galleries/hall/embeddings?format=npy").content)).shape == (0, SIZE)
