"""Galleries are made, shown, listed and deleted over the API."""

from __future__ import annotations

import httpx
import pytest

from service.db.session import Database
from service.db.tables import AuditEntry, Dataset, Gallery, GalleryImage, Job, JobDataset, Model
from service.jobs import enqueue
from service.settings import Settings
from tests.service.galleries.stock import add_model_row, added_ids, image_file, make_gallery, upload

pytestmark = pytest.mark.usefixtures("model")


def test_a_gallery_is_made_and_found_by_id_and_name(client: httpx.Client, model: Model) -> None:
    answer = client.post("/galleries", json={"name": "hall", "model": "tiny", "retention_days": 30})
    body = answer.json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/galleries/{body['id']}"
    assert body["model"] == model.id
    assert (body["state"], body["images"], body["revision"], body["job"]) == ("empty", 0, 0, None)
    assert (body["keep_images"], body["retention_days"], body["reranker"]) == (True, 30, None)
    assert body["index"] == {
        "requested": "auto",
        "kind": "flat",
        "built_images": 0,
        "parameters": {},
        "recall": None,
    }
    assert client.get("/galleries/hall").json() == client.get(answer.headers["Location"]).json() == body


def test_links_and_location_keep_the_prefix(client: httpx.Client) -> None:
    answer = client.post("/v1/galleries", json={"name": "hall", "model": "tiny"})
    assert answer.headers["Location"] == f"/v1/galleries/{answer.json()['id']}" == answer.json()["links"]["self"]


def test_what_cannot_be_made_is_refused(client: httpx.Client, database: Database) -> None:
    make_gallery(client)
    taken = client.post("/galleries", json={"name": "hall", "model": "tiny"})
    assert (taken.status_code, taken.json()["type"]) == (409, "/problems/name-taken")
    assert client.post("/galleries", json={"name": "a", "model": "nobody"}).status_code == 404
    unknown = client.post("/galleries", json={"name": "a", "model": "tiny", "colour": "red"})
    assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (422, "/colour")
    index = client.post("/galleries", json={"name": "a", "model": "tiny", "index": "annoy"})
    assert (index.status_code, index.json()["errors"][0]["pointer"]) == (422, "/index")
    reranker = client.post("/galleries", json={"name": "a", "model": "tiny", "reranker": "tiny"})
    assert (reranker.status_code, reranker.json()["errors"][0]["pointer"]) == (422, "/reranker")
    assert "bnneck" in reranker.json()["detail"]
    with database.read() as session:
        assert session.query(Gallery).count() == 1


def test_a_gallery_of_a_split_starts_a_job(client: httpx.Client, database: Database, dataset: Dataset) -> None:
    fields = {"name": "hall", "model": "tiny", "dataset": {"id": "lobby", "split": "gallery"}}
    answer = client.post("/galleries", json=fields)
    body = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/galleries/{body['id']}"
    assert "Retry-After" in answer.headers
    assert body["state"] == "building"
    with database.read() as session:
        job = session.get_one(Job, body["job"])
        assert job.spec == {"gallery": body["id"], "add": {"dataset": dataset.id, "split": "gallery"}}
        assert session.get(JobDataset, (job.id, dataset.id)) is not None
    assert client.get(body["links"]["job"]).json()["kind"] == "index"


def test_a_split_that_cannot_be_added_makes_no_gallery(
    client: httpx.Client, database: Database, dataset: Dataset
) -> None:
    def ask(split: str) -> httpx.Response:
        return client.post(
            "/galleries", json={"name": "hall", "model": "tiny", "dataset": {"id": "lobby", "split": split}}
        )

    assert ask("train").json()["type"] == "/problems/invalid-dataset"
    assert ask("everything").status_code == 422
    with database.write() as session:
        session.get_one(Dataset, dataset.id).state = "pending"
        job = enqueue(session, "register", {"dataset": dataset.id}, datasets=[dataset.id])
    assert ask("gallery").status_code == 409
    client.post(f"/jobs/{job.id}/cancel")
    assert (ask("gallery").status_code, "cancelled" in ask("gallery").json()["detail"]) == (422, True)
    assert client.get("/galleries").json()["items"] == []


def test_galleries_are_listed_in_pages_newest_first(client: httpx.Client) -> None:
    names = ["a", "b", "c"]
    for name in names:
        make_gallery(client, name=name)
    first = client.get("/galleries?limit=2").json()
    second = client.get("/galleries", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [item["name"] for item in first["items"] + second["items"]] == ["c", "b", "a"]
    assert second["next_cursor"] is None
    assert client.get("/galleries?colour=red").status_code == 422


def test_deleting_a_gallery_leaves_nothing_of_it(client: httpx.Client, database: Database, settings: Settings) -> None:
    gallery = make_gallery(client)
    (image,) = added_ids(upload(client, "hall", [image_file(1)]))
    assert client.delete("/galleries/hall").status_code == 204
    assert client.get(f"/galleries/{gallery['id']}").status_code == 404
    assert client.get("/search", params={"gallery": "hall", "image_id": image}).status_code == 404
    assert [path.name for path in settings.galleries_dir.rglob("*") if path.name != ".lock"] == [".arriving"]
    with database.read() as session:
        assert session.query(GalleryImage).count() == 0
        assert session.query(AuditEntry).filter_by(action="gallery.delete", target=gallery["id"]).count() == 1
    assert make_gallery(client)["id"] != gallery["id"]


def test_scopes_are_demanded(client: httpx.Client, database: Database) -> None:
    make_gallery(client)
    (image,) = added_ids(upload(client, "hall", [image_file(1)]))
    made = client.post("/api-keys", json={"name": "reader", "scopes": ["read"]}).json()
    reader = {"Authorization": f"Bearer {made['key']}"}
    assert client.get("/galleries/hall", headers=reader).status_code == 200
    assert client.post("/galleries", json={"name": "a", "model": "tiny"}, headers=reader).status_code == 403
    assert client.delete(f"/galleries/hall/images/{image}", headers=reader).status_code == 403
    assert client.delete("/galleries/hall/identities/x", headers=reader).status_code == 403
    search = client.get("/search", params={"gallery": "hall", "image_id": image}, headers=reader)
    assert (search.status_code, search.json()["type"]) == (403, "/problems/missing-scope")
    assert client.get("/galleries", headers={"Authorization": "Bearer nonsense"}).status_code == 401
    add_model_row(database, "mdl_2", "other")
    assert client.delete("/models/other", headers=reader).status_code == 403
