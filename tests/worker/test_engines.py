"""A training publishes its model with an engine, or says why not; searches and index jobs run it by that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from reid_core.data.preprocessing import Preprocessing
from reid_core.engines import files
from reid_core.engines.image_network import ImageNetwork
from service.db.schema import upgrade
from service.db.session import Database, open_database
from service.db.tables import Dataset, Job, JobEvent, Model
from service.jobs.lifecycle import claim
from service.main import create_app
from service.search.batching import Batcher
from service.search.models import Encoders
from service.settings import Settings
from tests.service.serving import open_client, serve
from tests.worker.test_distillation import make_rows
from worker import train
from worker.reporter import Reporter
from worker.work import Outcome, Work

TRAINING: dict[str, Any] = {
    "kind": "train",
    "method": "bnneck",
    "dataset": "lobby",
    "init_from": None,
    "settings": {
        "backbone": "resnet18",
        "image": {"height": 32, "width": 16},
        "batch": {"identities": 4, "images_per_identity": 2},
        "schedule": {"epochs": 0},
        "precision": "fp32",
    },
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", min_free_bytes=0, device="cpu", threads=1)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """One that knows a data set called `lobby`."""
    upgrade(settings.database_url)
    database = open_database(settings.database_url)
    with database.write() as session:
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
        with open_client(address, {"X-API-Key": settings.admin_key_path.read_text().strip()}) as client:
            yield client


def train_model(client: httpx.Client, settings: Settings, database: Database) -> Outcome:
    """The outcome of the training, whose model is there when this returns."""
    posted = client.post("/jobs", json=TRAINING)
    assert posted.status_code == 202, posted.text
    job_id = posted.json()["id"]
    assert claim(database, job_id, "worker", 60) == 1
    with database.read() as session:
        job = session.get_one(Job, job_id)
    outcome = train.run(Work(settings, database, job, 1, Reporter(database, job_id, 1, 60), lambda: False))
    with database.write() as session:
        session.add_all(outcome.rows)
    return outcome


def embed(settings: Settings, model: str) -> torch.Tensor:
    """Embeddings of one image, as the API makes them."""
    batcher = Batcher()
    try:
        images = torch.arange(3 * 32 * 16).remainder(251).to(torch.uint8).reshape(1, 3, 32, 16)
        return Encoders(settings, batcher).get(model).embed_prepared(images)
    finally:
        batcher.close()


def test_a_model_is_published_with_an_engine_that_the_model_names(
    client: httpx.Client, settings: Settings, database: Database
) -> None:
    outcome = train_model(client, settings, database)
    assert outcome.result["warnings"] == []
    body = client.get(f"/models/{outcome.result['model']}").json()
    engine = body["engine"]
    assert 0 < engine.pop("difference") < 1e-4
    assert engine == {"name": "openvino", "precision": "fp32", "images": 16, "reason": None}
    names = ["engine.json", "manifest.json", "serving.bin", "serving.xml", "weights.safetensors"]
    assert [file["name"] for file in body["files"]] == names
    by_engine = embed(settings, body["id"])
    by_torch = embed(settings.model_copy(update={"engine": "torch"}), body["id"])
    assert by_engine.numpy() == pytest.approx(by_torch.numpy(), abs=1e-4)
    assert not torch.equal(by_engine, by_torch)  # another engine has computed it


def test_a_wrong_normalisation_is_published_with_pytorch_and_a_warning(
    client: httpx.Client, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = files.FORMATS["openvino"]

    def write(network: ImageNetwork, preprocessing: Preprocessing, path: Path) -> None:
        wrong = replace(preprocessing, mean=(0.0, 0.0, 0.0))
        right.write(ImageNetwork(network._network, wrong, with_maps=False), wrong, path)

    monkeypatch.setitem(files.FORMATS, "openvino", replace(right, write=write))
    outcome = train_model(client, settings, database)
    (warning,) = outcome.result["warnings"]
    assert warning["code"] == "engine-refused"
    assert "away from PyTorch on 16 images; 0.001 is allowed" in warning["detail"]
    with database.read() as session:
        events = session.query(JobEvent).filter_by(kind="warning").all()
    assert [event.data["code"] for event in events] == ["engine-refused"]
    body = client.get(f"/models/{outcome.result['model']}").json()
    assert (body["engine"]["name"], body["engine"]["difference"]) == ("torch", None)
    assert body["engine"]["reason"] == warning["detail"]
    assert [file["name"] for file in body["files"]] == ["engine.json", "manifest.json", "weights.safetensors"]
    by_torch = embed(settings.model_copy(update={"engine": "torch"}), body["id"])
    assert torch.equal(embed(settings, body["id"]), by_torch)


def test_pytorch_is_published_without_a_warning_where_it_is_asked_for(
    client: httpx.Client, settings: Settings, database: Database
) -> None:
    outcome = train_model(client, settings.model_copy(update={"engine": "torch"}), database)
    assert outcome.result["warnings"] == []
    with database.read() as session:
        engine = session.get_one(Model, outcome.result["model"]).engine
    assert engine is not None
    assert (engine["name"], engine["reason"]) == ("torch", "REID_ENGINE was torch when it was published")
