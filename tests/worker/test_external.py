"""A network made by another library is served by a whole service the day it comes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reid_core.data.records import ImageRecord
from reid_core.evaluation.labels import encode_labels
from reid_core.evaluation.ranking import evaluate
from reid_core.external.runtime import import_onnxruntime
from tests.reid_core.onnx_files import EMBEDDING_SIZE, embed, write_network
from tests.service.datasets.registering import make_market
from tests.worker.service import Service

INPUT: dict[str, Any] = {"height": 64, "width": 32, "colour": "RGB", "range": [0, 1]}
INPUT |= {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "interpolation": "bilinear"}
STUDENT: dict[str, Any] = {
    "kind": "train",
    "method": "std",
    "dataset": "market",
    "model_name": "student",
    "device": "cpu",
}
STUDENT |= {"init_from": None, "settings": {"backbone": "resnet18", "batch": {"size": 8}, "schedule": {"epochs": 1}}}

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("external")
    make_market(home / "data" / "market")
    service = Service(home / "home", home / "data")
    service.start()
    service.register("market", home / "data" / "market")
    for name, change in (("osnet", {}), ("averaged", {"flip_average": True})):
        answer = post(service, home / name, name, {**INPUT, **change})
        assert answer.status_code == 201, answer.text
    yield service
    if service.processes():
        service.kill_everything()


def post(service: Service, folder: Path, name: str, seen: dict[str, Any], **network: Any) -> Any:
    folder.mkdir()
    file = write_network(folder / "network.onnx", **network)
    fields = {"name": name, "manifest": json.dumps({"input": seen})}
    return service.http.post("/models", data=fields, files={"onnx": ("network.onnx", file.read_bytes())})


def by_hand(paths: Sequence[Path], *, averaged: bool = False) -> np.ndarray[Any, Any]:
    """By Pillow and numpy, in which the network is written a second time."""
    resized = [Image.open(path).convert("RGB").resize((32, 64), Image.Resampling.BILINEAR) for path in paths]
    pixels = np.stack([np.asarray(image) for image in resized]).transpose(0, 3, 1, 2).astype(np.float32) / 255
    if not averaged:
        return embed(pixels)
    both = embed(pixels) + embed(np.ascontiguousarray(pixels[..., ::-1]))
    return np.asarray(both / np.linalg.norm(both, axis=1, keepdims=True))


def images_of(service: Service, split: str) -> list[ImageRecord]:
    folder = service.home.parent / "data" / "market"
    items = service.get("/datasets/market/images", split=split, limit=200)["items"]
    return [ImageRecord(folder / item["path"], item["identity"], item["camera"]) for item in items]


def paths_of(service: Service, split: str) -> list[Path]:
    return [image.path for image in images_of(service, split)]


def scores_in(service: Service, gallery: str, image: Path) -> list[float]:
    files = {"image": image.read_bytes()}
    answer = service.http.post("/search", data={"gallery": gallery, "top_k": "12"}, files=files)
    return [result["score"] for result in answer.json()["results"]]


@pytest.mark.parametrize(("model", "averaged"), [("osnet", False), ("averaged", True)])
def test_it_is_evaluated_and_compared_like_others(service: Service, model: str, averaged: bool) -> None:
    job = service.post("/jobs", {"kind": "evaluate", "model": model, "dataset": "market"})
    result = service.wait_for(job["id"], "succeeded", "failed")["result"]
    splits = [images_of(service, split) for split in ("query", "gallery")]
    query, gallery = (by_hand([image.path for image in images], averaged=averaged) for images in splits)
    expected = evaluate(torch.from_numpy(query), torch.from_numpy(gallery), *encode_labels(*splits))
    assert result["mAP"] == pytest.approx(expected.mAP, abs=1e-6)
    assert result["protocol"]["flip_average"] is averaged
    matrix = service.get("/evaluations/matrix")
    assert ("external", model) in [(row["method"], row["name"]) for row in matrix["models"]]


@pytest.mark.parametrize("batch", ["batch", 1])
def test_it_fills_a_gallery_and_finds_people_in_it(service: Service, tmp_path: Path, batch: int | str) -> None:
    name = f"batch-{batch}"
    assert post(service, tmp_path / "network", name, INPUT, batch=batch).status_code == 201
    body = {"name": name, "model": name, "dataset": {"id": "market", "split": "gallery"}}
    service.wait_for(service.post("/galleries", body)["job"], "succeeded")
    (query, *_), gallery = paths_of(service, "query"), paths_of(service, "gallery")
    expected = np.sort(by_hand(gallery) @ by_hand([query])[0])[::-1]
    assert scores_in(service, name, query) == pytest.approx(expected, abs=1e-4)
    again = service.post("/jobs", {"kind": "index", "gallery": name})
    assert service.wait_for(again["id"], "succeeded", "failed")["state"] == "succeeded"
    assert scores_in(service, name, query) == pytest.approx(expected, abs=1e-4)


def test_its_export_takes_bytes_and_agrees(service: Service, tmp_path: Path) -> None:
    for model, averaged in (("osnet", False), ("averaged", True)):
        for format in ("onnx", "openvino"):
            job = service.post("/jobs", {"kind": "export", "model": model, "format": format, "dataset": "market"})
            done = service.wait_for(job["id"], "succeeded", "failed")
            assert done["state"] == "succeeded", done["error"]
            assert done["result"]["agreement"]["embeddings"] < 1e-4
        (tmp_path / f"{model}.onnx").write_bytes(service.http.get(f"/models/{model}/files/model.onnx").content)
        query = paths_of(service, "query")
        resized = [Image.open(path).convert("RGB").resize((32, 64), Image.Resampling.BILINEAR) for path in query]
        given = np.stack([np.asarray(image) for image in resized]).transpose(0, 3, 1, 2)
        session = import_onnxruntime().InferenceSession(tmp_path / f"{model}.onnx")
        (found,) = session.run(["embeddings"], {"pictures": given})
        assert found == pytest.approx(by_hand(query, averaged=averaged), abs=1e-4)


def test_one_of_a_fixed_batch_says_why_it_has_no_export(service: Service, tmp_path: Path) -> None:
    assert post(service, tmp_path / "one", "one", INPUT, batch=1).status_code == 201
    job = service.post("/jobs", {"kind": "export", "model": "one", "format": "onnx", "dataset": "market"})
    error = service.wait_for(job["id"], "failed")["error"]
    assert (error["type"], "by 1 alone" in error["detail"]) == ("/problems/export-failed", True)


def test_it_teaches_a_student_and_starts_no_training(service: Service) -> None:
    job = service.post("/jobs", {**STUDENT, "teacher": "osnet"})
    done = service.wait_for(job["id"], "succeeded", "failed")
    assert done["state"] == "succeeded", done["error"]
    student = service.get("/models/student")
    assert {name: student["preprocessing"][name] for name in INPUT} == INPUT
    assert (student["lineage"]["teacher"], student["embedding_size"]) == (service.get("/models/osnet")["id"], 512)
    assert student["embedding_size"] != EMBEDDING_SIZE
    training = {"kind": "train", "method": "bnneck", "dataset": "market", "init_from": "osnet"}
    refused = service.post("/jobs", {**training, "settings": {"batch": {"identities": 2}}}, expect=422)
    assert (refused["errors"][0]["pointer"], refused["errors"][0]["code"]) == ("/init_from", "external-model")


def test_one_that_sees_other_colours_cannot_teach(service: Service, tmp_path: Path) -> None:
    assert post(service, tmp_path / "bgr", "bgr", {**INPUT, "colour": "BGR"}).status_code == 201
    refused = service.post("/jobs", {**STUDENT, "model_name": "other", "teacher": "bgr"}, expect=422)
    assert (refused["errors"][0]["pointer"], refused["errors"][0]["code"]) == ("/teacher", "other-pictures")
    assert "BGR" in refused["detail"]
