"""Exports that are asked for are resolved, or refused with a way out."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import torch

from reid_core.methods import METHODS
from reid_core.training.estimate import count_cost
from service.db.session import Database
from service.db.tables import Dataset, DatasetImage, Model
from tests.service.galleries.stock import add_model_row

MODEL = "mdl_plain"


@pytest.fixture(autouse=True)
def _rows(database: Database) -> None:
    """A model that was trained on `lobby`, of which two images are known, and on `gone`; `empty` has none."""
    add_model_row(database, MODEL, "plain")
    rest = {"path": "/", "format": "auto", "uploaded": False}
    with database.write() as session:
        for name, state in (("lobby", "ready"), ("yard", "ready"), ("empty", "ready"), ("pending", "pending")):
            session.add(Dataset(id=f"ds_{name}", name=name, state=state, **rest))
        session.flush()
        labels = {"split": "gallery", "identity": "1", "camera": "1"}
        for number, name in enumerate(("lobby", "lobby", "yard")):
            place = {"position": number, "path": f"{number}.png"}
            session.add(DatasetImage(id=f"img_{number}", dataset_id=f"ds_{name}", **place, **labels))
        model = session.get_one(Model, MODEL)
        model.lineage = {"datasets": [{"id": "ds_gone"}, {"id": "ds_lobby"}]}
        model.settings = {"backbone": "resnet18"}


def export(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/jobs", json={"kind": "export", "model": "plain", "format": "onnx", **body})


@pytest.mark.parametrize(("asked", "compared"), [(None, ["ds_lobby"]), ("yard", ["ds_yard"])])
def test_the_images_compared_are_the_models_own_or_those_named(
    client: httpx.Client, asked: str | None, compared: list[str]
) -> None:
    answer = export(client, format="openvino", dataset=asked)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert job["kind"] == "export"
    assert job["spec"] == {"model": MODEL, "format": "openvino", "datasets": compared}
    listed = client.get("/jobs", params={"kind": "export"}).json()["items"]
    assert [one["id"] for one in listed] == [job["id"]]
    refused = client.delete(f"/models/{MODEL}")
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/in-use")


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"format": "tensorrt"}, 422, "/format"),
        ({"model": "nobody"}, 404, None),
        ({"dataset": "nowhere"}, 404, None),
        ({"dataset": "pending"}, 422, "/dataset"),
        ({"dataset": "empty"}, 422, "/dataset"),
        ({"device": "cpu"}, 422, "/device"),
    ],
)
def test_what_cannot_be_is_refused(
    client: httpx.Client, body: dict[str, Any], status: int, pointer: str | None
) -> None:
    answer = export(client, **body)
    assert answer.status_code == status, answer.text
    if pointer:
        assert pointer in [fault["pointer"] for fault in answer.json()["errors"]]


def test_a_model_whose_data_sets_are_gone_needs_images_to_be_named(client: httpx.Client, database: Database) -> None:
    with database.write() as session:
        session.get_one(Model, MODEL).lineage = {"datasets": [{"id": "ds_gone"}]}
    refused = export(client)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["code"] == "nothing-to-compare"
    assert "Name as dataset" in refused.json()["hint"]
    assert export(client, dataset="yard").status_code == 202


def test_a_dry_run_counts_both_passes_over_the_images(client: httpx.Client, database: Database) -> None:
    method = METHODS["bnneck"]
    with torch.device("meta"):
        network = method.build_network(method.recipe, 2)
    size = method.recipe.image
    cost = count_cost(network, batch=2, height=size.height, width=size.width)
    with database.write() as session:
        session.get_one(Model, MODEL).settings = method.recipe.model_dump(mode="json")
    body = {"kind": "export", "model": "plain", "format": "onnx"}
    told = client.post("/jobs", params={"dry_run": True}, json=body).json()
    assert told["estimate"]["pictures"] == 2
    assert told["estimate"]["operations"] == 2 * 2 * cost.forward_operations
    assert client.get("/jobs").json()["items"] == []
