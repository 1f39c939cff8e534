"""A student is trained by a job and becomes a model like any other; its teacher stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
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
from worker import train
from worker.reporter import Reporter
from worker.work import Work

CPU = torch.device("cpu")
IMAGE = {"height": 32, "width": 16}
SETTINGS: dict[str, Any] = {"batch": {"size": 12}, "schedule": {"epochs": 1}, "precision": "fp32"}
STUDENT = {
    "kind": "train",
    "method": "std",
    "teacher": "teacher",
    "dataset": "lobby",
    "init_from": None,
    "settings": SETTINGS,
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", min_free_bytes=0, device="cpu", threads=1)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """One that knows a model called `teacher`, with cells, and a data set called `lobby`."""
    upgrade(settings.database_url)
    database = open_database(settings.database_url)
    with database.write() as session:
        session.add(make_teacher(settings))
        folder = settings.home / "lobby"
        session.add(Dataset(id="ds_1", name="lobby", path=str(folder), format="auto", state="ready", uploaded=False))
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


def make_teacher(settings: Settings) -> Model:
    """The row of a tiny model whose files lie in its folder."""
    method = METHODS["ptl-resnet50"]
    chosen = override(method.recipe, {"backbone": "resnet18", "image": IMAGE, "normalisation": "none"})
    torch.manual_seed(0)
    network, preprocessing = method.build_network(chosen, 4), preprocessing_of(chosen)
    folder = settings.models_dir / "mdl_teacher"
    folder.mkdir(parents=True)
    manifest = save_model(
        folder, network, method=method.name, settings=chosen, num_classes=4, preprocessing=preprocessing
    )
    return Model(
        id=folder.name,
        name="teacher",
        method=method.name,
        settings=dict(manifest.settings),
        lineage={},
        embedding_size=manifest.embedding_size,
        preprocessing=preprocessing.as_json(),
        files={},
    )


def make_rows(folder: Path) -> list[DatasetImage]:
    images = make_images(folder)
    return [
        DatasetImage(
            id=image_id,
            dataset_id="ds_1",
            split="train",
            position=position,
            path=image.path.name,
            identity=image.identity,
            camera=image.camera,
        )
        for position, (image_id, image) in enumerate(zip(new_ids("img", len(images)), images, strict=True))
    ]


def test_a_student_is_published_like_any_model_and_names_its_teacher(
    client: httpx.Client, settings: Settings, database: Database
) -> None:
    files = {path: path.read_bytes() for path in (settings.models_dir / "mdl_teacher").iterdir()}
    posted = client.post("/jobs", json=STUDENT | {"seed": 3})
    assert posted.status_code == 202, posted.text
    job_id = posted.json()["id"]
    assert claim(database, job_id, "worker", 60) == 1
    with database.read() as session:
        job = session.get_one(Job, job_id)

    outcome = train.run(Work(settings, database, job, 1, Reporter(database, job_id, 1, 60), lambda: False))

    (row,) = outcome.rows
    assert isinstance(row, Model)
    assert (row.method, row.lineage["teacher"]) == ("std", "mdl_teacher")
    assert (row.settings["student"], row.settings["backbone"]) == ("finetune-resnet50", "resnet18")
    assert {path: path.read_bytes() for path in files} == files
    student = load_model(settings.models_dir / row.id, CPU)
    method = METHODS["finetune-resnet50"]
    plain = method.build_network(override(method.recipe, {"backbone": "resnet18"}), 4)
    assert student.network.state_dict().keys() == plain.state_dict().keys()
    embeddings = student.encoder().embed_files(sorted((settings.home / "lobby").iterdir()))
    assert embeddings.shape == (24, student.manifest.embedding_size)


def test_the_spec_is_written_out_as_the_teacher_suggests(client: httpx.Client) -> None:
    spec = client.post("/jobs", json=STUDENT).json()["spec"]
    taken = {name: spec["settings"][name] for name in ("student", "backbone", "image", "normalisation")}
    assert spec["teacher"] == "mdl_teacher"
    assert taken == {
        "student": "finetune-resnet50",
        "backbone": "resnet18",
        "image": IMAGE,
        "normalisation": "none",
    }
    assert spec["settings"]["balance"] == 0.8


def test_a_model_that_a_job_learns_from_stays(client: httpx.Client) -> None:
    job_id = client.post("/jobs", json=STUDENT).json()["id"]
    refused = client.delete("/models/teacher")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/in-use")
    assert job_id in refused.json()["detail"]
    client.post(f"/jobs/{job_id}/cancel")
    assert client.delete("/models/teacher").status_code == 204


@pytest.mark.parametrize(
    ("body", "status", "pointers"),
    [
        ({"teacher": None}, 422, ["/teacher"]),
        ({"teacher": "nobody"}, 404, []),
        ({"method": "finetune-resnet50"}, 422, ["/teacher"]),
        ({"settings": {"image": {"height": 64}}}, 422, ["/teacher"]),
        ({"settings": {"normalisation": "imagenet"}}, 422, ["/teacher"]),
        ({"settings": {"student": "mgn", "last_stride": 1}}, 422, ["/settings/last_stride"]),
        ({"settings": {"student": "qaconv"}}, 422, ["/settings/student"]),
        ({"settings": {"balance": 2}}, 422, ["/settings/balance"]),
    ],
)
def test_what_cannot_be_taught_is_refused(
    client: httpx.Client, body: dict[str, Any], status: int, pointers: list[str]
) -> None:
    answer = client.post("/jobs", json=STUDENT | body)
    assert answer.status_code == status, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == pointers
    assert client.get("/jobs").json()["items"] == []


def test_the_estimate_counts_the_teachers_passes(client: httpx.Client) -> None:
    def count(body: dict[str, Any]) -> float:
        answer = client.post("/jobs?dry_run=true", json=body)
        assert answer.status_code == 200, answer.text
        operations: float = answer.json()["estimate"]["operations"]
        return operations

    plain = {name: value for name, value in STUDENT.items() if name != "teacher"} | {"method": "finetune-resnet50"}
    spec = client.post("/jobs?dry_run=true", json=STUDENT).json()["spec"]
    same = {name: spec["settings"][name] for name in ("backbone", "last_stride", "image", "normalisation", "schedule")}
    alone, taught = count(plain | {"settings": same}), count(STUDENT)
    # The teacher is the student with cells beside it: its forward pass is a third of a step or a little more.
    assert 1 + 1 / 3 < taught / alone < 2
