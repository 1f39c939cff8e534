"""Calibrations that are asked for are resolved, or refused with a way out, and models show theirs."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from reid_core.calibration.folds import fit_held_out
from reid_core.calibration.record import FILE_NAME, Calibration, write_calibrations
from reid_core.calibration.shift import describe_origin
from reid_core.methods import METHODS
from service.db.session import Database
from service.db.tables import Dataset, DatasetImage, Model
from service.settings import Settings
from tests.reid_core.test_calibration import gaussian_pairs
from tests.service.galleries.stock import add_model_row

MODEL = "mdl_plain"


@pytest.fixture(autouse=True)
def _rows(database: Database) -> None:
    """`lobby` has 12 people to train on and 12 to test on, all on two cameras; `yard` has one camera."""
    add_model_row(database, MODEL, "plain")
    with database.write() as session:
        session.get_one(Model, MODEL).settings = METHODS["bnneck"].recipe.model_dump(mode="json")
        for name, cameras in (("lobby", ("1", "2")), ("yard", ("1",))):
            described = {"path": "/", "format": "auto", "uploaded": False, "state": "ready"}
            session.add(Dataset(id=f"ds_{name}", name=name, **described))
            session.flush()
            for split, people in (("train", range(12)), ("query", range(12, 24)), ("gallery", range(12, 24))):
                for person in people:
                    for camera in cameras:
                        key = f"{name}_{split}_{person}_{camera}"
                        place = {"split": split, "position": 2 * person + int(camera), "path": key}
                        labels = {"identity": str(person), "camera": camera}
                        session.add(DatasetImage(id=key, dataset_id=f"ds_{name}", **place, **labels))


def calibrate(client: httpx.Client, **body: Any) -> httpx.Response:
    return client.post("/jobs", json={"kind": "calibrate", "model": "plain", "dataset": "lobby", **body})


def trained_on(database: Database, split: str) -> None:
    with database.write() as session:
        session.get_one(Model, MODEL).lineage = {"datasets": [{"id": "ds_lobby", "split": split}]}


def test_a_calibration_is_a_job_that_holds_its_model(client: httpx.Client, database: Database) -> None:
    answer = calibrate(client, rerank="k_reciprocal")
    assert answer.status_code == 202, answer.text
    assert answer.json()["spec"] == {"model": MODEL, "dataset": "ds_lobby", "rerank": "k_reciprocal"}
    assert calibrate(client).json()["spec"]["rerank"] == "none"
    assert client.delete(f"/models/{MODEL}").status_code == 409


def test_people_that_a_model_has_not_seen_suffice(client: httpx.Client, database: Database) -> None:
    trained_on(database, "train")
    assert calibrate(client).status_code == 202


@pytest.mark.parametrize(
    ("split", "body", "status", "pointer", "word"),
    [
        ("all", {}, 422, "/dataset", "shows 0 people"),
        ("train", {"dataset": "yard"}, 422, "/dataset", "shows 0 people"),
        ("train", {"rerank": "qaconv"}, 422, "/rerank", "matches no local features"),
        ("train", {"rerank": "best"}, 422, "/rerank", ""),
        ("train", {"model": "nobody"}, 404, None, "nobody"),
        ("train", {"dataset": "nowhere"}, 404, None, "nowhere"),
    ],
)
def test_what_cannot_be_is_refused(
    client: httpx.Client,
    database: Database,
    split: str,
    body: dict[str, Any],
    status: int,
    pointer: str | None,
    word: str,
) -> None:
    trained_on(database, split)
    answer = calibrate(client, **body)
    assert answer.status_code == status, answer.text
    assert word in answer.json()["detail"]
    assert answer.json()["hint"]
    if pointer:
        assert pointer in [fault["pointer"] for fault in answer.json()["errors"]]


def test_a_dry_run_counts_the_images(client: httpx.Client) -> None:
    body = {"kind": "calibrate", "model": "plain", "dataset": "lobby"}
    answer = client.post("/jobs", params={"dry_run": True}, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["estimate"]["pictures"] == 72


def test_a_model_shows_its_calibrations(client: httpx.Client, settings: Settings) -> None:
    assert client.get("/models/plain").json()["calibrations"] == []
    vectors = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    origin = describe_origin(vectors, np.arange(20))
    fit = fit_held_out(gaussian_pairs())
    folder = settings.models_dir / MODEL
    folder.mkdir(parents=True)
    write_calibrations(folder / FILE_NAME, {"none": Calibration("none", fit, origin, {"dataset": "ds_lobby"})})
    (shown,) = client.get("/models/plain").json()["calibrations"]
    assert (shown["rerank"], shown["kind"], shown["fitted_on"]) == ("none", fit.curve.kind, {"dataset": "ds_lobby"})
    assert shown["expected_calibration_error"] == fit.expected_calibration_error
    assert sum(one["share"] for one in shown["reliability"]) == pytest.approx(1)

    (folder / "new").write_text("{")
    (folder / "new").replace(folder / FILE_NAME)
    assert client.get("/models/plain").json()["calibrations"] == []
    assert client.get("/models").status_code == 200
