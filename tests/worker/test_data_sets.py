"""Data sets as people have them, from a phone's folder to a search, and files that change on the way."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.reid_core.images import make_images
from tests.worker.service import Service

SETTINGS: dict[str, Any] = {
    "backbone": "resnet18",
    "image": {"height": 32, "width": 16},
    "batch": {"identities": 2, "images_per_identity": 2},
    "schedule": {"epochs": 1, "base_lr": 1e-3},
    "augmentation": {"padding": 1},
    "precision": "fp32",
}
NAMES = ("Jose\u0301", "Ben Müller", " Zoë ", "田中")
PEOPLE = sorted(("Jos\u00e9", "Ben Müller", "Zoë", "田中"))

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("phone")
    make_phone_export(home / "data" / "friends")
    service = Service(home / "home", home / "data")
    service.start()
    yield service
    if service.processes():
        service.kill_everything()


def make_phone_export(folder: Path) -> None:
    """A folder per person: JPEG turned by EXIF, PNG with transparency, 16 bits, WebP, and HEIC that nobody reads."""
    suffixes = ("JPG", "png", "webp", "tif", "jpeg", "avif")
    for person, record in enumerate(make_images(folder / "raw", identities=4, cameras=1, each=6)):
        place = folder / NAMES[person // 6] / f"IMG {person % 6}.{suffixes[person % 6]}"
        place.parent.mkdir(exist_ok=True)
        image = Image.open(record.path)
        if place.suffix in (".JPG", ".jpeg"):
            exif = Image.Exif()
            exif[0x0112] = 6
            image.transpose(Image.Transpose.ROTATE_90).save(place, "JPEG", exif=exif, quality=95)
        elif place.suffix == ".tif":
            Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(place)
        else:
            image.convert("RGBA").save(place)
    shutil.rmtree(folder / "raw")
    for name in NAMES:
        (folder / name / "IMG 9.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
        (folder / name / ".DS_Store").write_bytes(b"Bud1")


def train(service: Service, name: str, dataset: Any) -> Any:
    body = {"kind": "train", "method": "bnneck", "dataset": dataset, "model_name": name, "device": "cpu"}
    started = service.post("/jobs", body | {"init_from": None, "settings": SETTINGS})
    return service.wait_for(started["id"], "succeeded", "failed")


def findings(service: Service, dataset: str) -> dict[str, Any]:
    return {each["code"]: each for each in service.get(f"/datasets/{dataset}/report")["findings"]}


def test_a_phones_folder_is_registered_trained_on_and_searched(service: Service) -> None:
    service.register("friends", service.home.parent / "data" / "friends")
    shown = service.get("/datasets/friends")
    assert (shown["format"], shown["evaluable_queries"]) == ("people", 2)
    refused = findings(service, "friends")["unreadable-pictures"]
    assert refused["count"] == 4
    assert all("IMG 9.HEIC is HEIC" in sample for sample in refused["samples"])

    half = train(service, "half", "friends")
    everybody = train(service, "everybody", {"id": "friends", "split": "all"})
    assert [(job["state"], job["result"]["identities"]) for job in (half, everybody)] == [
        ("succeeded", 2),
        ("succeeded", 4),
    ]
    assert everybody["result"]["images"] == 24
    lineage = service.get("/models/everybody")["lineage"]["datasets"][0]
    assert (lineage["split"], "seed 0" in lineage["protocol"]["splits"]) == ("all", True)

    measured = service.post("/jobs", {"kind": "evaluate", "model": "half", "dataset": "friends"})
    protocol = service.wait_for(measured["id"], "succeeded", "failed")["result"]["protocol"]
    assert "seed 0" in protocol["dataset"]["splits"]
    assert protocol["dataset"]["fingerprint"] == shown["fingerprint"]

    body = {"name": "hall", "model": "everybody", "dataset": {"id": "friends", "split": "gallery"}}
    service.wait_for(service.post("/galleries", body)["job"], "succeeded")
    items = service.get("/galleries/hall/images", limit=200)["items"]
    assert {item["identity"] for item in items} <= set(PEOPLE)
    typed = sorted({item["identity"] for item in items})[0]
    assert {item["identity"] for item in service.get("/galleries/hall/images", identity=f" {typed} ")["items"]} == {
        typed
    }
    file = io.BytesIO()
    Image.new("RGB", (16, 32), (200, 40, 40)).save(file, "GIF")
    answer = service.http.post("/search", data={"gallery": "hall"}, files={"image": file.getvalue()})
    assert len(answer.json()["results"]) == 10


def test_files_that_change_after_registration_are_all_named_before_a_job_begins(service: Service) -> None:
    data = service.home.parent / "data"
    folder = shutil.copytree(data / "friends", data / "changing")
    service.register("changing", folder)
    items = service.get("/datasets/changing/images", limit=200)["items"]
    trained = [item["path"] for item in items if item["split"] == "train"][:3]
    searched = [item["path"] for item in items if item["split"] == "gallery"][:1]
    (folder / trained[0]).unlink()
    (folder / trained[1]).write_bytes((folder / trained[1]).read_bytes()[:-20])
    (folder / trained[2]).write_bytes((folder / trained[2]).read_bytes() + b"x")
    (folder / searched[0]).unlink()

    error = train(service, "never", "changing")["error"]
    assert (error["type"], error["status"]) == ("/problems/invalid-dataset", 422)
    assert [(fault["code"], fault["message"].rpartition(" is ")[0]) for fault in error["errors"]] == [
        ("missing", trained[0]),
        ("cut-short", trained[1]),
        ("changed", trained[2]),
    ]
    assert "'changing'" in error["detail"]
    assert str(data) not in str(error)
    assert findings(service, "changing")["changed-files"]["count"] == 3

    body = {"kind": "evaluate", "model": "half", "dataset": "changing"}
    evaluated = service.wait_for(service.post("/jobs", body)["id"], "succeeded", "failed")
    assert evaluated["error"]["errors"][0]["message"] == f"{searched[0]} is missing"
    gallery = service.post(
        "/galleries", {"name": "yard", "model": "half", "dataset": {"id": "changing", "split": "gallery"}}
    )
    assert service.wait_for(gallery["job"], "succeeded", "failed")["error"]["type"] == "/problems/invalid-dataset"

    again = service.post("/datasets/changing/rescan")
    service.wait_for(again["job"], "succeeded")
    assert train(service, "mended", "changing")["state"] == "succeeded"
    assert findings(service, "changing")["changed-files"]["count"] == 4
