"""Networks from elsewhere become models over the API, or are refused with the reason, and leave nothing behind."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from reid_core.data.preprocessing import open_image, preprocessing_of
from reid_core.engines import IMPORTED
from reid_core.methods import METHODS
from reid_core.model import MANIFEST_NAME, WEIGHTS_NAME, load_model, save_model
from reid_core.settings import override
from service.db.session import Database
from service.db.tables import AuditEntry, Model
from service.main import create_app
from service.models.importing import import_folder, remove_lost_imports
from service.settings import Settings
from tests.reid_core.onnx_files import EMBEDDING_SIZE, OUTPUT, embed, write_network
from tests.service.galleries.stock import add_dataset, image_file
from tests.service.serving import open_client, serve
from tests.waiting import wait_until

INPUT: dict[str, Any] = {
    "height": 64,
    "width": 32,
    "colour": "BGR",
    "range": [0, 255],
    "mean": [103.0, 116.0, 123.0],
    "std": [57.0, 57.0, 58.0],
}
SMALL: dict[str, Any] = {"backbone": "resnet18", "image": {"height": 64, "width": 32}}


@pytest.fixture
def onnx(tmp_path: Path) -> bytes:
    return write_network(tmp_path / "net.onnx").read_bytes()


def post(
    client: httpx.Client, files: dict[str, bytes], headers: dict[str, str] | None = None, **fields: Any
) -> httpx.Response:
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    parts = {name: (f"my {name}.bin", content) for name, content in files.items()}
    return client.post("/models", files=parts, data=texts, headers=headers)


def post_onnx(client: httpx.Client, onnx: bytes, **fields: Any) -> httpx.Response:
    return post(client, {"onnx": onnx}, **{"manifest": {"input": INPUT}, **fields})


def nothing_is_left(settings: Settings) -> bool:
    folders = (settings.uploads_dir, settings.models_dir)
    return [path for folder in folders for path in folder.glob("*") if path.is_dir()] == []


def test_an_onnx_file_becomes_a_model_that_is_shown_like_others(
    client: httpx.Client, database: Database, settings: Settings, onnx: bytes
) -> None:
    answer = post_onnx(client, onnx, name="osnet")
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert answer.headers["Location"] == f"/models/{body['id']}"
    assert client.get(answer.headers["Location"]).json() == body == client.get("/models/osnet").json()
    assert (body["method"], body["embedding_size"], body["job"]) == ("external", EMBEDDING_SIZE, None)
    assert {name: body["preprocessing"][name] for name in INPUT} == INPUT
    assert (body["settings"]["output"], body["settings"]["opset"], body["settings"]["batch"]) == (OUTPUT, 13, None)
    sha256 = hashlib.sha256(onnx).hexdigest()
    assert body["lineage"]["imported"] == {"file": "my onnx.bin", "bytes": len(onnx), "sha256": sha256}
    files = {file["name"]: file for file in body["files"]}
    assert list(files) == ["engine.json", MANIFEST_NAME, "network.onnx"]
    assert (body["engine"]["name"], body["engine"]["reason"]) == ("onnxruntime", IMPORTED)
    assert client.get(files["network.onnx"]["links"]["content"]).content == onnx
    with database.read() as session:
        entry = session.query(AuditEntry).filter_by(action="model.import").one()
        assert (entry.target, entry.detail) == (body["id"], {"method": "external"})
    assert [item["id"] for item in client.get("/models?method=external").json()["items"]] == [body["id"]]
    assert list(settings.uploads_dir.glob("mdl*")) == []
    assert client.delete("/models/osnet").status_code == 204
    assert nothing_is_left(settings)


def test_a_gallery_of_it_finds_people_by_its_embeddings(client: httpx.Client, onnx: bytes) -> None:
    post_onnx(client, onnx, name="osnet")
    made = client.post("/galleries", json={"name": "hall", "model": "osnet"})
    assert (made.status_code, made.json()["reranker"]) == (201, None)
    images = {seed: image_file(seed, size=(32, 64)) for seed in range(6)}
    for seed, content in images.items():
        added = client.post("/galleries/hall/images", files={"files": (f"{seed}.png", content)})
        assert added.status_code == 201, added.text
    found = client.post("/search", data={"gallery": "hall", "top_k": "6"}, files={"image": images[3]}).json()
    expected = by_hand(images) @ by_hand({3: images[3]})[0]
    assert [result["score"] for result in found["results"]] == pytest.approx(sorted(expected, reverse=True), abs=1e-4)
    assert found["results"][0]["score"] == pytest.approx(1)
    asked = {"gallery": "hall", "image_id": found["results"][0]["image_id"], "rerank": "qaconv"}
    refused = client.get("/search", params=asked)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/query/rerank")


def by_hand(images: dict[int, bytes]) -> np.ndarray[Any, Any]:
    decoded = [open_image(content).resize((32, 64), Image.Resampling.BILINEAR) for content in images.values()]
    pixels = np.stack([np.asarray(image) for image in decoded]).transpose(0, 3, 1, 2)[:, ::-1].astype(np.float32)
    mean, std = (np.reshape(INPUT[name], (3, 1, 1)) for name in ("mean", "std"))
    return embed(((pixels - mean) / std).astype(np.float32))


def test_the_manifest_may_come_as_a_file_and_the_name_may_be_left_out(client: httpx.Client, onnx: bytes) -> None:
    manifest = json.dumps({"input": INPUT, "output": OUTPUT}).encode()
    answer = post(client, {"onnx": onnx, "manifest": manifest})
    assert answer.status_code == 201, answer.text
    assert answer.json()["name"] == f"external-{answer.json()['id'][-8:]}"


def test_what_the_service_says_of_a_models_images_can_be_said_to_it(client: httpx.Client, onnx: bytes) -> None:
    shown = post_onnx(client, onnx).json()["preprocessing"]
    again = post_onnx(client, onnx, manifest={"input": shown})
    assert (again.status_code, again.json()["preprocessing"]) == (201, shown)


MANIFESTS: list[tuple[dict[str, Any], str]] = [
    ({"height": 128}, "/manifest/input/height"),
    ({"width": 64}, "/manifest/input/width"),
    ({"height": 8}, "/manifest/input/height"),
    ({"width": None}, "/manifest/input/width"),
    ({"colour": "GBR"}, "/manifest/input/colour"),
    ({"range": [0, 1]}, "/manifest/input/mean"),
    ({"range": [-1, 1]}, "/manifest/input/range"),
    ({"range": [0, 1], "mean": [0.5, 0.5, 0.5]}, "/manifest/input/std"),
    ({"mean": [0.5, 0.5]}, "/manifest/input/mean/2"),
    ({"std": [0, 1, 1]}, "/manifest/input/std"),
    ({"std": [1, 1, "NaN"]}, "/manifest/input/std/2"),
    ({"interpolation": "guess"}, "/manifest/input/interpolation"),
    ({"layout": "NHWC"}, "/manifest/input/layout"),
    ({"swap_rb": True}, "/manifest/input/swap_rb"),
]


@pytest.mark.parametrize(("change", "pointer"), MANIFESTS)
def test_a_wrong_manifest_is_refused_with_the_place(
    client: httpx.Client, settings: Settings, onnx: bytes, change: dict[str, Any], pointer: str
) -> None:
    answer = post_onnx(client, onnx, manifest={"input": {**INPUT, **change}})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert nothing_is_left(settings)


def test_a_size_that_is_not_the_networks_is_told_with_both(client: httpx.Client, onnx: bytes) -> None:
    problem = post_onnx(client, onnx, manifest={"input": {**INPUT, "height": 128}}).json()
    assert problem["type"] == "/problems/weights-unusable"
    assert problem["detail"] == "The manifest says height 128, the network takes images of height 64 alone."
    assert problem["errors"][0]["code"] == "other-size"


FORMS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"manifest": {"input": INPUT}}, "/weights"),
    ({"onnx": b"x", "weights": b"x"}, {"manifest": {"input": INPUT}}, "/weights"),
    ({"onnx": b"x"}, {}, "/manifest"),
    ({"onnx": b"x"}, {"manifest": "{"}, "/manifest"),
    ({"onnx": b"x"}, {"manifest": {"input": INPUT}, "method": "bnneck"}, "/method"),
    ({"onnx": b"x"}, {"manifest": {"input": INPUT}, "name": "a/b"}, "/name"),
    ({"onnx": b"x"}, {"manifest": {"input": INPUT, "author": "me"}}, "/manifest/author"),
    ({"onnx": b"x", "bundle": b"x"}, {"manifest": {"input": INPUT}}, "/bundle"),
    ({"onnx": b"x", "manifest": b"{}"}, {"manifest": {"input": INPUT}}, "/manifest"),
    ({"onnx": b"x", "manifest": b"\xff"}, {}, "/manifest"),
    ({"onnx": b"x"}, {"manifest": {"input": INPUT}}, "/onnx"),
    ({"weights": b"x"}, {"method": "bnneck"}, "/weights"),
    ({"weights": b"x"}, {"method": "osnet"}, "/method"),
    ({"weights": b"x"}, {}, "/method"),
    ({"weights": b"x"}, {"method": "bnneck", "settings": {"backbone": "osnet"}}, "/settings/backbone"),
    ({"weights": b"x"}, {"method": "bnneck", "settings": "backbone=x"}, "/settings"),
]


@pytest.mark.parametrize(("files", "fields", "pointer"), FORMS)
def test_a_form_that_says_too_little_or_too_much_is_refused(
    client: httpx.Client, settings: Settings, files: dict[str, bytes], fields: dict[str, Any], pointer: str
) -> None:
    answer = post(client, files, **fields) if files else as_form(client, fields)
    assert answer.status_code == 422, answer.text
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert nothing_is_left(settings)


def as_form(client: httpx.Client, fields: dict[str, Any]) -> httpx.Response:
    return client.post("/models", files={name: (None, json.dumps(value)) for name, value in fields.items()})


def test_what_is_no_form_is_refused(client: httpx.Client) -> None:
    assert client.post("/models", json={"name": "a"}).status_code == 415
    assert client.post("/models", content=b"x", headers={"Content-Type": "text/plain"}).status_code == 415


def test_a_name_is_given_once_and_an_answer_too(client: httpx.Client, settings: Settings, onnx: bytes) -> None:
    key = {"Idempotency-Key": "import-1"}
    first = post_onnx(client, onnx, name="osnet", headers=key)
    again = post_onnx(client, onnx, name="osnet", headers=key)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Idempotent-Replayed"] == "true"
    taken = post_onnx(client, onnx, name="osnet")
    assert (taken.status_code, taken.json()["type"]) == (409, "/problems/name-taken")
    assert len(list(settings.models_dir.iterdir())) == 1
    other = post_onnx(client, onnx, name="other", headers=key)
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-key-reused")


def test_a_check_that_takes_too_long_is_ended(tmp_path: Path, onnx: bytes) -> None:
    hasty = Settings(home=tmp_path / "hasty", min_free_bytes=0, import_seconds=0.01)
    with serve(create_app(hasty)) as address:
        headers = {"X-API-Key": hasty.admin_key_path.read_text().strip()}
        with open_client(address, headers) as client:
            late = post_onnx(client, onnx)
    assert (late.status_code, late.json()["errors"][0]["code"]) == (422, "too-slow")
    assert "REID_IMPORT_SECONDS = 0.01" in late.json()["detail"]
    assert nothing_is_left(hasty)


def test_a_check_that_dies_is_told_and_the_service_goes_on(
    client: httpx.Client, settings: Settings, onnx: bytes
) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post_onnx, client, onnx)
        checks: list[psutil.Process] = []
        wait_until(lambda: bool(checks.extend(running_checks()) or checks))
        checks[0].kill()
        died = answer.result()
    assert (died.status_code, died.json()["errors"][0]["code"]) == (422, "check-failed")
    assert "ended with -9" in died.json()["detail"]
    assert nothing_is_left(settings)
    assert post_onnx(client, onnx).status_code == 201


def running_checks() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "reid_core.external.checking" in child.cmdline()]


def make_weights(folder: Path, method: str, classes: int = 7, **overrides: Any) -> Path:
    """The weights of an untrained network, as another installation keeps them."""
    chosen = override(METHODS[method].recipe, {**SMALL, **overrides})
    torch.manual_seed(1)
    network = METHODS[method].build_network(chosen, classes)
    folder.mkdir(parents=True)
    seen = preprocessing_of(chosen)
    save_model(folder, network, method=method, settings=chosen, num_classes=classes, preprocessing=seen)
    return folder / WEIGHTS_NAME


@pytest.mark.parametrize("method", ["bnneck", "qaconv-pk", "mgn", "pyramid"])
def test_weights_of_a_known_method_become_its_model(
    client: httpx.Client, settings: Settings, tmp_path: Path, method: str
) -> None:
    overrides = {} if method != "pyramid" else {"image": {"height": 192, "width": 64}}
    file = make_weights(tmp_path / "theirs", method, **overrides)
    answer = post(client, {"weights": file.read_bytes()}, method=method, settings={**SMALL, **overrides}, name="mine")
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert (body["method"], body["name"]) == (method, "mine")
    assert body["lineage"]["imported"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    theirs, ours = (
        load_model(folder, torch.device("cpu")) for folder in (file.parent, settings.models_dir / body["id"])
    )
    # Networks without a classifier do not tell how many classes they were trained on.
    tells = method != "qaconv-pk"
    assert ours.manifest == replace(theirs.manifest, num_classes=7 if tells else ours.manifest.num_classes)
    size = theirs.manifest.preprocessing
    pictures = [Image.effect_noise((size.width, size.height), 60).convert("RGB") for _ in range(2)]
    assert torch.equal(ours.encoder().embed(pictures), theirs.encoder().embed(pictures))


def test_half_precision_and_missing_counters_are_taken(
    client: httpx.Client, settings: Settings, tmp_path: Path
) -> None:
    tensors = load_file(make_weights(tmp_path / "theirs", "bnneck"))
    fewer = {name: tensor.half() for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    save_file(fewer, tmp_path / "half.safetensors")
    answer = post(client, {"weights": (tmp_path / "half.safetensors").read_bytes()}, method="bnneck", settings=SMALL)
    assert answer.status_code == 201, answer.text
    kept = load_model(settings.models_dir / answer.json()["id"], torch.device("cpu")).network.state_dict()
    assert all(torch.equal(kept[name], tensor.to(kept[name].dtype)) for name, tensor in fewer.items())


def spoilt(tensors: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    name = "backbone.layer1.0.conv1.weight"
    assert name in tensors
    if kind == "missing":
        return {key: tensor for key, tensor in tensors.items() if key != name}
    if kind == "extra":
        return {**tensors, "memory.bank": torch.zeros(3)}
    return {**tensors, name: torch.zeros(3) if kind == "shape" else torch.full_like(tensors[name], torch.nan)}


SPOILT = {
    "missing": "1 missing: backbone.layer1.0.conv1.weight",
    "extra": "1 unknown to the network: memory.bank",
    "shape": "1 of another shape: backbone.layer1.0.conv1.weight (3,) instead of (64, 64, 3, 3)",
    "nan": "not finite: backbone.layer1.0.conv1.weight",
}


@pytest.mark.parametrize("kind", SPOILT)
def test_weights_that_are_not_the_networks_are_refused_by_name(
    client: httpx.Client, settings: Settings, tmp_path: Path, kind: str
) -> None:
    tensors = load_file(make_weights(tmp_path / "theirs", "bnneck"))
    save_file(spoilt(tensors, kind), tmp_path / "spoilt.safetensors")
    content = (tmp_path / "spoilt.safetensors").read_bytes()
    problem = post(client, {"weights": content}, method="bnneck", settings=SMALL)
    assert (problem.status_code, problem.json()["type"]) == (422, "/problems/weights-unusable")
    assert SPOILT[kind] in problem.json()["detail"]
    assert problem.json()["errors"][0]["pointer"] == "/weights"
    assert nothing_is_left(settings)


def test_weights_of_another_backbone_and_cut_off_files_are_refused(client: httpx.Client, tmp_path: Path) -> None:
    content = make_weights(tmp_path / "theirs", "bnneck").read_bytes()
    other = post(client, {"weights": content}, method="bnneck", settings={**SMALL, "backbone": "resnet34"})
    assert (other.status_code, "missing" in other.json()["detail"]) == (422, True)
    cut = post(client, {"weights": content[:-1000]}, method="bnneck", settings=SMALL)
    assert (cut.status_code, "not a safetensors file" in cut.json()["detail"]) == (422, True)


def test_what_an_import_left_that_was_killed_is_removed_and_one_that_runs_is_not(settings: Settings) -> None:
    lost = settings.uploads_dir / f"mdl_{'0' * 26}-import"
    lost.mkdir(parents=True)
    (lost / "form").write_bytes(b"half a network")
    with import_folder(settings, f"mdl_{'1' * 26}") as running:
        (running / "form").write_bytes(b"coming")
        remove_lost_imports(settings)
        assert (running / "form").exists()
    assert [path.name for path in settings.uploads_dir.iterdir() if path.is_dir()] == []


def test_jobs_know_what_to_do_with_it(
    client: httpx.Client, database: Database, settings: Settings, onnx: bytes
) -> None:
    model = post_onnx(client, onnx, name="osnet").json()["id"]
    report = {"evaluable_queries": 3}
    add_dataset(database, settings.home / "people", report=report)
    with database.write() as session:
        row = session.get_one(Model, model)
        assert row.files["network.onnx"]["bytes"] == len(onnx)
    evaluated = client.post("/jobs?dry_run=true", json={"kind": "evaluate", "model": "osnet", "dataset": "lobby"})
    assert evaluated.status_code == 200, evaluated.text
    assert evaluated.json()["spec"]["rerank"] == "none"
    exported = {"kind": "export", "model": "osnet", "format": "onnx"}
    estimate = client.post("/jobs?dry_run=true", json={**exported, "dataset": "lobby"}).json()["estimate"]
    operations = client.get("/models/osnet").json()["settings"]["operations"]
    assert estimate["operations"] == 2 * 24 * operations > 0
    alone = client.post("/jobs", json=exported)
    assert (alone.status_code, "was imported" in alone.json()["detail"]) == (422, True)
    matched = client.post("/jobs", json={"kind": "evaluate", "model": "osnet", "dataset": "lobby", "rerank": "qaconv"})
    assert (matched.status_code, matched.json()["errors"][0]["code"]) == (422, "cannot-rerank")
    reranker = client.post("/galleries", json={"name": "hall", "model": "osnet", "reranker": "osnet"})
    assert (reranker.status_code, reranker.json()["errors"][0]["code"]) == (422, "cannot-rerank")
    training = {"kind": "train", "method": "bnneck", "dataset": "lobby", "init_from": "osnet", "settings": SMALL}
    started = client.post("/jobs", json=training)
    assert started.status_code == 422


def test_only_writers_may_import(client: httpx.Client, onnx: bytes) -> None:
    key = client.post("/api-keys", json={"name": "reader", "scopes": ["read", "search"]}).json()["key"]
    refused = post_onnx(client, onnx, headers={"Authorization": f"Bearer {key}"})
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/missing-scope")
