"""A model moves from one service to another in one file, and what is no bundle is refused with the reason."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from reid_core.calibration.curves import Curve
from reid_core.calibration.folds import HeldOutFit
from reid_core.calibration.record import FILE_NAME, Calibration, write_calibrations
from reid_core.calibration.shift import describe_origin
from reid_core.model import MANIFEST_NAME, WEIGHTS_NAME, load_model
from service.db.session import Database
from service.db.tables import Model
from service.settings import Settings
from tests.reid_core.onnx_files import OUTPUT
from tests.service.galleries.stock import save_tiny_model
from tests.service.test_importing import onnx, post_onnx  # noqa: F401  a fixture

LINEAGE = {"datasets": [{"id": "ds_1", "name": "lobby", "fingerprint": "abc", "split": "train"}], "seed": 7}

Files = dict[str, bytes]


@pytest.fixture
def model(database: Database, settings: Settings) -> str:
    save_tiny_model(settings.models_dir / "mdl_1")
    manifest = json.loads((settings.models_dir / "mdl_1" / MANIFEST_NAME).read_text())
    with database.write() as session:
        session.add(
            Model(
                id="mdl_1",
                name="tiny",
                method="bnneck",
                settings=manifest["settings"],
                lineage=LINEAGE,
                embedding_size=512,
                preprocessing=manifest["preprocessing"],
                files={WEIGHTS_NAME: {"bytes": 1, "sha256": "0"}},
            )
        )
    return "mdl_1"


def send(client: httpx.Client, bundle: bytes, **fields: str) -> httpx.Response:
    return client.post("/models", files={"bundle": ("model.zip", bundle)}, data=fields)


def unpacked(bundle: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files: Files, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def test_a_model_comes_out_as_it_went_in(client: httpx.Client, settings: Settings, model: str) -> None:
    answer = client.get(client.get("/models/tiny").json()["links"]["bundle"])
    assert answer.headers["content-type"] == "application/zip"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert b"# tiny" in unpacked(answer.content)["card.md"]
    taken = send(client, answer.content)
    assert (taken.status_code, taken.json()["type"]) == (409, "/problems/name-taken")
    assert client.patch("/models/tiny", json={"name": "moved away"}).status_code == 200
    made = send(client, answer.content)
    assert made.status_code == 201, made.text
    assert made.json()["name"] == "tiny"
    assert {**LINEAGE, "imported": made.json()["lineage"]["imported"]} == made.json()["lineage"]
    image = torch.randint(0, 255, (1, 3, 32, 16), dtype=torch.uint8)
    device = torch.device("cpu")
    first, second = (load_model(settings.models_dir / key, device).encoder() for key in (model, made.json()["id"]))
    assert torch.equal(first.embed_prepared(image), second.embed_prepared(image))
    again = send(client, client.get(f"/models/{made.json()['id']}/bundle").content, name="third")
    assert again.status_code == 201
    assert sorted(path.name for path in settings.uploads_dir.iterdir() if path.name != ".lock") == []


def test_an_onnx_network_moves_and_is_checked_again(client: httpx.Client, onnx: bytes) -> None:  # noqa: F811
    made = post_onnx(client, onnx, name="net").json()
    bundle = client.get("/models/net/bundle").content
    moved = send(client, bundle, name="other")
    assert moved.status_code == 201, moved.text
    assert moved.json()["settings"] == made["settings"]
    assert moved.json()["preprocessing"] == made["preprocessing"]
    files = unpacked(bundle)
    manifest = json.loads(files[MANIFEST_NAME])
    assert manifest["settings"]["output"] == OUTPUT
    manifest["settings"]["output"] = "nothing"
    wrong = send(client, packed(files | {MANIFEST_NAME: json.dumps(manifest).encode()}), name="third")
    assert (wrong.status_code, wrong.json()["errors"][0]["code"]) == (422, "no-such-output")


def change_manifest(**changes: Any) -> Callable[[Files], bytes]:
    def change(files: Files) -> bytes:
        manifest = json.loads(files[MANIFEST_NAME])
        return packed(files | {MANIFEST_NAME: json.dumps(manifest | changes).encode()})

    return change


def change_facts(**changes: Any) -> Callable[[Files], bytes]:
    def change(files: Files) -> bytes:
        facts = json.loads(files["bundle.json"])
        return packed(files | {"bundle.json": json.dumps(facts | changes).encode()})

    return change


def damage(files: Files) -> bytes:
    weights = np.frombuffer(files[WEIGHTS_NAME], np.uint8).copy()
    weights[-1] ^= 1
    return packed(files | {WEIGHTS_NAME: weights.tobytes()})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda files: b"no archive", "unreadable"),
        (lambda files: packed(files)[:-100], "unreadable"),
        (lambda files: packed(files, zipfile.ZIP_DEFLATED), "compressed"),
        (lambda files: packed(files | {"../evil": b""}), "other-files"),
        (lambda files: packed({name: files[name] for name in (MANIFEST_NAME, WEIGHTS_NAME)}), "other-files"),
        (lambda files: packed(files | {"bundle.json": b'{"version": 2}'}), "unknown-version"),
        (lambda files: packed(files | {"bundle.json": b"[" * 100_000}), "unreadable"),
        (change_facts(lineage={"datasets": "all"}), "wrong-facts"),
        (change_facts(lineage={"datasets": [{"name": "lobby"}]}), "wrong-facts"),
        (change_facts(lineage={"seed": {}}), "wrong-facts"),
        (change_facts(name=""), "wrong-facts"),
        (damage, "damaged"),
        (change_manifest(settings={"backbone": "resnet18", "nothing": 1}), "wrong-settings"),
        (change_manifest(preprocessing={"height": 32}), "wrong-preprocessing"),
    ],
)
def test_what_is_no_bundle_is_refused_with_the_reason(
    client: httpx.Client, model: str, change: Callable[[Files], bytes], code: str
) -> None:
    answer = send(client, change(unpacked(client.get("/models/tiny/bundle").content)), name="other")
    assert answer.status_code == 422, answer.text
    assert (answer.json()["errors"][0]["pointer"], answer.json()["errors"][0]["code"]) == ("/bundle", code)
    assert [one["name"] for one in client.get("/models").json()["items"]] == ["tiny"]


def test_calibrations_move_along(client: httpx.Client, settings: Settings, model: str) -> None:
    vectors = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    origin = describe_origin(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.arange(40) // 2)
    fit = HeldOutFit(Curve("logistic", (-1.0, 1.0), (-5.0, 5.0)), {"logistic": 0.2}, 0.03, ())
    facts = {"dataset": "ds_1", "identities": 20}
    write_calibrations(settings.models_dir / model / FILE_NAME, {"none": Calibration("none", fit, origin, facts)})
    before = client.get("/models/tiny").json()["calibrations"]
    bundle = client.get("/models/tiny/bundle").content
    made = send(client, bundle, name="other").json()
    assert before == made["calibrations"] == client.get("/models/other/card").json()["calibrations"] != []
    assert "| none | logistic | 0.03 |" in client.get("/models/other/card?format=markdown").text
    refused = send(client, packed(unpacked(bundle) | {FILE_NAME: b"{}"}), name="third")
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/bundle")


def test_an_unknown_method_is_refused(client: httpx.Client, model: str) -> None:
    files = unpacked(client.get("/models/tiny/bundle").content)
    answer = send(client, change_manifest(method="magic")(files), name="other")
    assert answer.status_code == 422
    assert "magic" in answer.text
