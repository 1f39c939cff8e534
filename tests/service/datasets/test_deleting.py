"""Deleting data sets: refused while they are needed, complete otherwise."""

from __future__ import annotations

from pathlib import Path

import httpx
from sqlalchemy import func, select

from service.datasets.catalog import delete_dataset
from service.datasets.readiness import State, in_state
from service.datasets.registration import register
from service.db.ids import new_id
from service.db.session import Database
from service.db.tables import Dataset, DatasetImage, Gallery, GalleryImage, Job, JobDataset, Model
from service.settings import Settings
from tests.service.datasets.registering import (
    Register,
    add_row,
    files_below,
    post,
    set_job,
    slug,
    upload,
    zipped,
)

STATES: tuple[State, ...] = ("pending", "ready", "invalid")


def test_a_data_set_read_in_place_is_deleted_without_its_folder(
    client: httpx.Client, database: Database, market: Path, run: Register
) -> None:
    dataset = post(client, name="lobby", path="market")
    run(dataset)
    before = files_below(market)

    assert client.delete("/datasets/lobby").status_code == 204

    assert client.get(f"/datasets/{dataset['id']}").status_code == 404
    assert files_below(market) == before
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(DatasetImage)) == 0
    assert client.get("/audit?action=dataset.delete").json()["items"][0]["target"] == dataset["id"]
    assert post(client, name="lobby", path="market")["id"] != dataset["id"]


def test_an_uploaded_data_set_is_deleted_with_its_files(
    client: httpx.Client, settings: Settings, market: Path, run: Register
) -> None:
    dataset = upload(client, zipped(market), name="sent").json()
    run(dataset)
    (settings.uploads_dir / f".{dataset['id']}-lost").mkdir()  # what a killed extraction leaves

    assert client.delete("/datasets/sent").status_code == 204
    assert files_below(settings.uploads_dir) == []


def test_a_data_set_that_a_job_needs_is_not_deleted(
    client: httpx.Client, database: Database, market: Path, run: Register
) -> None:
    dataset = post(client, name="lobby", path="market")
    waiting = client.delete("/datasets/lobby")
    assert (waiting.status_code, slug(waiting)) == (409, "in-use")
    run(dataset)
    job_id = new_id("job")
    with database.write() as session:
        session.add(Job(id=job_id, kind="train", state="queued", spec={}))
        session.flush()
        session.add(JobDataset(job_id=job_id, dataset_id=dataset["id"]))

    for state in ("queued", "running", "cancelling", "interrupted"):
        set_job(database, job_id, state)
        refused = client.delete("/datasets/lobby")
        assert (refused.status_code, slug(refused)) == (409, "in-use")
        assert job_id in refused.json()["detail"]
    set_job(database, job_id, "failed")
    assert client.delete("/datasets/lobby").status_code == 204


def test_a_data_set_can_be_deleted_the_moment_it_is_ready(
    client: httpx.Client, database: Database, settings: Settings, market: Path
) -> None:
    dataset = post(client, name="lobby", path="market")
    set_job(database, dataset["job"], "running")
    register(database, settings, dataset["id"])

    assert client.get("/datasets/lobby").json()["state"] == "ready"
    assert client.delete("/datasets/lobby").status_code == 204


def test_a_data_set_whose_images_are_in_a_gallery_is_not_deleted(
    client: httpx.Client, database: Database, market: Path, run: Register
) -> None:
    run(post(client, name="lobby", path="market"))
    image = client.get("/datasets/lobby/images?limit=1").json()["items"][0]
    add_to_gallery(database, "cameras", image["id"])

    refused = client.delete("/datasets/lobby")

    assert (refused.status_code, slug(refused)) == (409, "in-use")
    assert "'cameras'" in refused.json()["detail"]
    assert client.get("/datasets/lobby").json()["state"] == "ready"


def add_to_gallery(database: Database, name: str, dataset_image_id: str) -> None:
    model = Model(
        id=new_id("mdl"),
        name="m",
        method="bnneck",
        settings={},
        lineage={},
        embedding_size=2,
        preprocessing={},
        files={},
    )
    gallery = Gallery(id=new_id("gal"), name=name, model_id=model.id, index_kind="flat", keep_images=False)
    image = GalleryImage(
        id=new_id("img"),
        gallery_id=gallery.id,
        position=0,
        filename="a.png",
        sha256="0",
        width=1,
        height=1,
        dataset_image_id=dataset_image_id,
        added_revision=1,
    )
    with database.write() as session:
        for row in (model, gallery, image):
            session.add(row)
            session.flush()


def test_both_databases_delete_and_filter_alike(each_database: Database, settings: Settings, market: Path) -> None:
    kept, deleted = (add_row(each_database, market, name) for name in ("kept", "deleted"))
    register(each_database, settings, deleted.id)

    delete_dataset(each_database, settings, "deleted", key_id=None)

    with each_database.read() as session:
        states = {state: session.scalars(select(Dataset.id).where(in_state(state))).all() for state in STATES}
        left = session.scalar(select(func.count()).select_from(DatasetImage))
    assert states == {"pending": [], "ready": [], "invalid": [kept.id]}  # nobody is going to read it
    assert left == 0
