"""Adaptation jobs: a model trained further on images without labels, of a data set or of a gallery."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch

from reid_core.data.preprocessing import preprocessing_of
from reid_core.methods import METHODS
from reid_core.model import load_model, save_model
from reid_core.settings import override
from service.db.ids import new_ids
from service.db.schema import upgrade
from service.db.session import Database, open_database
from service.db.tables import Dataset, DatasetImage, Job, Model
from service.jobs.lifecycle import claim
from service.main import create_app
from service.settings import Settings
from tests.reid_core.images import make_images
from tests.service.serving import open_client, serve
from tests.waiting import wait_until
from worker import adapt
from worker.reporter import Reporter
from worker.supervisor import Supervisor
from worker.work import Work

CPU = torch.device("cpu")
ASKED: dict[str, Any] = {
    "kind": "adapt",
    "model": "start",
    "dataset": "lobby",
    "clustering": {"threshold": 0.1},
    "reliability": {"confidence": 0, "cross_camera": False},
    "settings": {"schedule": {"epochs": 2, "base_lr": 1e-5}, "freeze_backbone_bn": True},
}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of this process and of the processes that it starts."""
    values = {"home": str(tmp_path / "home"), "checkpoint_seconds": "0", "threads": "1", "min_free_bytes": "0"}
    for name, value in {**values, "device": "cpu"}.items():
        monkeypatch.setenv(f"REID_{name.upper()}", value)
    return Settings()


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """One that knows a model called `start` and a data set called `lobby`, of ten people to train on and two others."""
    upgrade(settings.database_url)
    database = open_database(settings.database_url)
    with database.write() as session:
        session.add(save_start(settings))
        folder = settings.home / "lobby"
        report = {"evaluable_queries": 4}
        row = {"path": str(folder), "format": "auto", "state": "ready", "fingerprint": "of-lobby", "uploaded": False}
        session.add(Dataset(id="ds_1", name="lobby", report=report, **row))
        session.flush()
        session.add_all(make_rows(folder))
    yield database
    database.close()


@pytest.fixture
def client(settings: Settings, database: Database) -> Iterator[httpx.Client]:
    app = create_app(settings)
    with serve(app) as address:
        app.state.send = lambda job_id, kind: None
        key = settings.admin_key_path.read_text().strip()
        with open_client(address, {"X-API-Key": key}) as client:
            yield client


def save_start(settings: Settings, method: str = "bnneck") -> Model:
    """The row of a tiny untrained model, which tells colours apart; its files lie in its folder."""
    small = {
        "backbone": "resnet18",
        "image": {"height": 32, "width": 16},
        "batch": {"identities": 2, "images_per_identity": 4},
        "augmentation": {"padding": 1},
        "precision": "fp32",
    }
    chosen = override(METHODS[method].recipe, small)
    torch.manual_seed(0)
    network, preprocessing = METHODS[method].build_network(chosen, 4), preprocessing_of(chosen)
    folder = settings.models_dir / "mdl_start"
    folder.mkdir(parents=True)
    manifest = save_model(folder, network, method=method, settings=chosen, num_classes=4, preprocessing=preprocessing)
    return Model(
        id=folder.name,
        name="start",
        method=method,
        settings=dict(manifest.settings),
        lineage={},
        embedding_size=manifest.embedding_size,
        preprocessing=preprocessing.as_json(),
        files={},
    )


def make_rows(folder: Path) -> list[DatasetImage]:
    images = make_images(folder, identities=12, each=4, seed=2)
    positions: dict[str, int] = {}
    rows = []
    for image_id, image in zip(new_ids("img", len(images)), images, strict=True):
        split = "train"
        if int(image.identity) > 10:
            split = "query" if image.path.stem.endswith("000000_00") else "gallery"
        positions[split] = positions.get(split, -1) + 1
        place = {"split": split, "position": positions[split], "path": image.path.name}
        rows.append(DatasetImage(id=image_id, dataset_id="ds_1", identity=image.identity, camera=image.camera, **place))
    return rows


def post(client: httpx.Client, **body: Any) -> str:
    answer = client.post("/jobs", json=ASKED | body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def read_job(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return session.get_one(Job, job_id)


def carry_out(database: Database, settings: Settings, job_id: str, attempt: int = 1) -> tuple[dict[str, Any], Model]:
    """The result and the row of one attempt, in this process."""
    assert claim(database, job_id, "worker", 60) == attempt
    reporter = Reporter(database, job_id, attempt, 60)
    (settings.jobs_dir / job_id).mkdir(parents=True, exist_ok=True)
    reporter.start()
    outcome = adapt.run(Work(settings, database, read_job(database, job_id), attempt, reporter, lambda: False))
    reporter.close("FINISHED")
    (row,) = outcome.rows
    assert isinstance(row, Model)
    return outcome.result, row


def test_an_adaptation_that_is_killed_goes_on_and_becomes_a_model(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    job_id = post(client, model_name="adapted", seed=1)
    supervisor = Supervisor(settings, database, "worker", {"training": 1}, lambda job_id, kind: None, threading.Event())
    folder = settings.jobs_dir / job_id
    first = threading.Thread(target=supervisor.run_job, args=(job_id,))
    first.start()
    wait_until((folder / "epoch-00001" / "checkpoint.pt").exists)
    (child,) = [child for child in psutil.Process().children() if job_id in child.cmdline()]
    child.kill()
    first.join()

    job = client.get(f"/jobs/{job_id}").json()
    assert (job["state"], job["attempt"]) == ("succeeded", 2), (folder / "log.txt").read_text()
    model = client.get("/models/adapted").json()
    lineage = model["lineage"]
    assert (lineage["parent"], lineage["datasets"][0]["fingerprint"]) == ("mdl_start", "of-lobby")
    assert lineage["adapted"]["images"] == 80
    assert model["settings"]["schedule"]["epochs"] == 2
    assert load_model(settings.models_dir / model["id"], CPU).manifest.num_classes == job["result"]["clusters"] > 1
    curves = client.get(f"/jobs/{job_id}/metrics").json()
    assert [step for step, _ in curves["loss"]] == list(range(1, len(curves["loss"]) + 1))
    assert len(curves["clusters"]) == len(curves["confident_images"]) == 2
    assert set(job["result"]["before"]) == set(job["result"]["after"]) == {"rank1", "mAP"}
    assert job["result"]["after"]["mAP"] == curves["mAP"][-1][1]
    assert not list(folder.rglob("checkpoint*"))

    clusters = client.get(f"/jobs/{job_id}/clusters").json()
    assert (clusters["epoch"], clusters["epochs"], clusters["images"]) == (2, [1, 2], 80)
    assert sum(each["trained_on"] for each in clusters["clusters"]) == job["result"]["clusters"]
    listed = [image for each in clusters["clusters"] for image in each["images"]]
    assert len(set(listed)) == len(listed) == 80 - clusters["left_alone"]
    assert client.get(f"/datasets/lobby/images/{listed[0]}/content").status_code == 200
    assert client.get(f"/jobs/{job_id}/clusters", params={"epoch": 3}).status_code == 404
    assert "without labels" in client.get("/models/adapted/card?format=markdown").text


def test_a_gallery_that_keeps_its_images_can_be_adapted_to(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    client.post("/galleries", json={"name": "hall", "model": "start"})
    files = sorted((settings.home / "lobby").iterdir())[:40]
    uploaded = [("files", (path.name, path.read_bytes(), "image/png")) for path in files]
    details = json.dumps([{"camera": path.name[6], "identity": None} for path in files])
    ids = [
        each["image"]
        for each in client.post("/galleries/hall/images", files=uploaded, data={"metadata": details}).json()["added"]
    ]
    job_id = post(client, dataset=None, gallery="hall")
    client.delete(f"/galleries/hall/images/{ids[0]}")

    result, row = carry_out(database, settings, job_id)

    assert (result["before"], result["after"]) == (None, None)
    assert row.lineage["adapted"]["images"] == 39
    clusters = client.get(f"/jobs/{job_id}/clusters").json()["clusters"]
    listed = {image for each in clusters for image in each["images"]}
    assert listed
    assert listed <= set(ids[1:])
    assert {camera for each in clusters for camera in each["cameras"]} == {"1", "2"}


def test_an_attempt_starts_over_where_images_have_gone_since(
    client: httpx.Client, database: Database, settings: Settings
) -> None:
    job_id = post(client)
    made = settings.jobs_dir / job_id / "epoch-00001"
    made.mkdir(parents=True)
    (made.parent / "images.json").write_text(json.dumps(["img_gone"]))
    (made / "clusters.json").write_text(json.dumps({"labels": [0], "confidence": [1.0]}))
    result, _ = carry_out(database, settings, job_id)
    assert result["clusters"] > 1
    assert "started-over" in client.get(f"/jobs/{job_id}/events", headers={"Accept": "application/json"}).text


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"dataset": None}, ["/dataset", "/gallery"]),
        ({"gallery": "hall"}, ["/dataset", "/gallery"]),
        ({"settings": {"image": {"height": 64}}}, []),
        ({"settings": {"last_stride": 2}}, ["/settings"]),
        ({"settings": {"validation": {"fraction": 0.2}}}, ["/settings/validation/fraction"]),
        ({"settings": {"schedule": {"epochs": 0}}}, ["/settings/schedule/epochs"]),
        ({"clustering": {"threshold": 1}}, ["/clustering/threshold"]),
    ],
)
def test_what_cannot_be_adapted_is_refused(client: httpx.Client, body: dict[str, Any], pointers: list[str]) -> None:
    client.post("/galleries", json={"name": "hall", "model": "start"})
    answer = client.post("/jobs?dry_run=true", json=ASKED | body)
    assert answer.status_code == (422 if pointers else 200), answer.text
    assert [error["pointer"] for error in answer.json().get("errors", [])] == pointers


def test_the_spec_is_written_out_by_the_model_and_the_methods_rate(client: httpx.Client) -> None:
    answer = client.post("/jobs?dry_run=true", json=ASKED | {"settings": {}}).json()
    spec = answer["spec"]
    assert (spec["model"], spec["dataset"]) == ("mdl_start", "ds_1")
    assert spec["clustering"] == {"threshold": 0.1, "least": 2}
    assert spec["settings"]["schedule"]["base_lr"] == METHODS["bnneck"].recipe.schedule.base_lr
    assert spec["settings"]["backbone"] == "resnet18"
    assert answer["estimate"]["pictures"] == 80


def test_a_student_without_its_teacher_is_refused(settings: Settings, database: Database, client: httpx.Client) -> None:
    with database.write() as session:
        session.get_one(Model, "mdl_start").method = "std"
    answer = client.post("/jobs", json=ASKED)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "needs-a-teacher")
