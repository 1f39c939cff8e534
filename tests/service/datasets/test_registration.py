"""Registration of folders, and registrations that do not get to their end."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from reid_core.errors import DatasetError, Stopped
from service.datasets.images import images
from service.datasets.registration import register
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Dataset, DatasetImage
from service.errors import Problem
from service.settings import Settings
from tests.reid_core.images import make_images
from tests.service.datasets.registering import (
    Register,
    add_row,
    files_below,
    make_market,
    post,
    set_job,
    slug,
    upload,
    zipped,
)


def test_a_registered_folder_is_pending_with_a_queued_job_until_the_job_has_read_it(
    client: httpx.Client, database: Database, market: Path, run: Register
) -> None:
    answer = client.post("/datasets", json={"name": "lobby", "path": "market", "format": "auto"})

    assert answer.status_code == 202
    assert answer.headers["location"] == f"/datasets/{answer.json()['id']}"
    assert int(answer.headers["retry-after"]) > 0
    pending = client.get(answer.headers["location"]).json()
    assert pending == answer.json()
    assert (pending["state"], pending["splits"], pending["error"]) == ("pending", None, None)
    job = client.get(f"/jobs/{pending['job']}").json()
    assert (job["kind"], job["state"], job["spec"]["dataset"]) == ("register", "queued", pending["id"])

    before = files_below(market)
    result = run(pending)

    ready = client.get("/datasets/lobby").json()
    assert (ready["state"], ready["format"], ready["confidence"]) == ("ready", "market1501", 1.0)
    assert ready["splits"] == {
        "train": {"images": 16, "identities": 4, "cameras": 2},
        "query": {"images": 6, "identities": 3, "cameras": 2},
        "gallery": {"images": 12, "identities": 3, "cameras": 2},
    }
    assert ready["evaluable_queries"] == 6
    assert ready["fingerprint"].startswith("sha256:")
    assert result["splits"] == ready["splits"]
    assert files_below(market) == before


def test_the_report_waits_for_the_job_and_then_names_every_finding(
    client: httpx.Client, market: Path, run: Register
) -> None:
    dataset = post(client, name="lobby", path="market")
    early = client.get("/datasets/lobby/report")
    assert (early.status_code, slug(early)) == (409, "wrong-state")
    assert client.get("/datasets/lobby/images").status_code == 409

    run(dataset)

    report = client.get("/datasets/lobby/report").json()
    assert (report["dataset"], report["format"], report["evaluable_queries"]) == (dataset["id"], "market1501", 6)
    assert report["cameras"]["1"] == {"train": 8, "query": 3, "gallery": 6}
    overlap = next(finding for finding in report["findings"] if finding["code"] == "identity-overlap")
    assert overlap["samples"] == ["0001", "0002", "0003"]
    assert overlap["fix"]


def test_one_camera_only_is_told_in_the_data_set_in_the_job_and_in_the_report(
    client: httpx.Client, settings: Settings, run: Register
) -> None:
    folder = settings.data_roots[0] / "office"
    make_images(folder / "bounding_box_train", cameras=1, seed=1)
    make_images(folder / "query", cameras=1, seed=2)
    make_images(folder / "bounding_box_test", cameras=1, seed=3)

    dataset = post(client, name="office", path="office")
    result = run(dataset)

    told = {finding["code"]: finding["severity"] for finding in result["findings"]}
    assert told["single-camera"] == told["queries-without-cross-camera-positive"] == "warning"
    assert client.get("/datasets/office").json()["findings"] == result["findings"]
    assert client.get("/datasets/office/report").json()["unevaluable_identities"] == ["0001", "0002", "0003", "0004"]


def test_a_folder_that_nobody_recognises_is_invalid_with_the_way_out(
    client: httpx.Client, settings: Settings, run: Register
) -> None:
    (settings.data_roots[0] / "letters").mkdir(parents=True)
    (settings.data_roots[0] / "letters" / "one.txt").write_text("no image")
    dataset = post(client, name="letters", path="letters")

    with pytest.raises(DatasetError):
        run(dataset)

    shown = client.get("/datasets/letters").json()
    assert shown["state"] == "invalid"
    assert "one.txt" in shown["error"]["detail"]
    assert "market1501" in shown["error"]["hint"]
    report = client.get("/datasets/letters/report")
    assert (report.status_code, slug(report)) == (409, "wrong-state")
    assert "one.txt" in report.json()["detail"]


def test_a_data_set_of_no_use_is_invalid_but_has_a_report(
    client: httpx.Client, settings: Settings, run: Register
) -> None:
    make_images(settings.data_roots[0] / "alone" / "bounding_box_train", identities=1)
    dataset = post(client, name="alone", path="alone", format="market1501")

    with pytest.raises(DatasetError, match="neither be trained on"):
        run(dataset)

    assert client.get("/datasets/alone").json()["state"] == "invalid"
    assert client.get("/datasets/alone/report").json()["findings"][0]["code"] == "unusable"
    assert [item["id"] for item in client.get("/datasets?state=invalid").json()["items"]] == [dataset["id"]]
    assert client.get("/datasets?state=ready").json()["items"] == []


def test_a_registration_that_crashed_half_way_is_run_again_without_duplicates(
    client: httpx.Client, database: Database, settings: Settings, market: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.datasets.registration._ROWS_PER_STATEMENT", 10)
    dataset = upload(client, zipped(market), name="sent").json()

    def crash_after_some_rows() -> bool:
        with database.read() as session:
            if session.scalar(select(func.count()).select_from(DatasetImage)):
                raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        register(database, settings, dataset["id"], should_stop=crash_after_some_rows)
    assert client.get("/datasets/sent").json()["state"] == "pending"

    register(database, settings, dataset["id"])
    first = client.get("/datasets/sent/images?limit=200").json()["items"]
    register(database, settings, dataset["id"])

    assert len(first) == len({(item["split"], item["path"]) for item in first}) == 34
    assert client.get("/datasets/sent/images?limit=200").json()["items"] == first


def test_a_stopped_registration_stays_pending_and_can_go_on(
    client: httpx.Client, database: Database, settings: Settings, market: Path
) -> None:
    dataset = post(client, name="lobby", path="market")
    with pytest.raises(Stopped):
        register(database, settings, dataset["id"], should_stop=lambda: True)
    assert client.get("/datasets/lobby").json()["state"] == "pending"

    heard: list[tuple[int, int]] = []
    register(database, settings, dataset["id"], on_progress=lambda done, total: heard.append((done, total)))

    assert heard[-1] == (34, 34)
    assert client.get("/datasets/lobby").json()["state"] == "ready"


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_a_data_set_whose_registration_was_given_up_is_invalid_until_it_is_resumed(
    client: httpx.Client, database: Database, market: Path, run: Register, end: str
) -> None:
    dataset = post(client, name="lobby", path="market")
    error = Problem("job-crashed", "the process was lost", hint="resume it").as_json() if end == "failed" else None
    set_job(database, dataset["job"], end, error)

    shown = client.get("/datasets/lobby").json()
    assert shown["state"] == "invalid"
    assert ("lost" if error else "cancelled") in shown["error"]["detail"]
    assert len(client.get("/datasets?state=invalid").json()["items"]) == 1
    assert client.get("/datasets?state=pending").json()["items"] == []
    assert client.get("/datasets/lobby/report").status_code == 409

    retried = client.post(f"/jobs/{dataset['job']}/retry").json()
    assert client.get("/datasets/lobby").json()["job"] == retried["id"]
    assert len(client.get("/datasets?state=pending").json()["items"]) == 1
    run(dataset)
    assert client.get("/datasets/lobby").json()["state"] == "ready"


def test_a_data_set_mended_in_place_becomes_ready_when_its_job_is_retried(
    client: httpx.Client, database: Database, settings: Settings, run: Register
) -> None:
    folder = settings.data_roots[0] / "later"
    folder.mkdir(parents=True)
    dataset = post(client, name="later", path="later")
    with pytest.raises(DatasetError):
        run(dataset)

    make_market(folder)
    run(dataset)

    mended = client.get("/datasets/later").json()
    assert (mended["state"], mended["error"]) == ("ready", None)


def test_a_manifest_of_20000_rows_is_registered_on_either_database(each_database: Database, settings: Settings) -> None:
    folder = settings.data_roots[0] / "table"
    shots = make_images(folder / "shots", identities=2)
    lines = [
        f"shots/{shots[row % len(shots)].path.name},person {row % 500},{('train', 'query', 'gallery')[row % 3]},"
        f"{row % 7 or ''},2024-05-01T12:00:00Z,{row}"
        for row in range(20_000)
    ]
    (folder / "manifest.csv").write_text("path,identity,split,camera,captured_at,frame\n" + "\n".join(lines))
    dataset = add_row(each_database, folder, "table")

    register(each_database, settings, dataset.id)

    with each_database.read() as session:
        ready = find(session, Dataset, "table")
        found = {split: images(session, settings, ready, split) for split in ("train", "query", "gallery")}
        ids = session.scalars(select(DatasetImage.id).order_by(DatasetImage.split.desc(), DatasetImage.position)).all()
    assert (ready.state, ready.detected_format) == ("ready", "manifest")
    assert {split: len(of_split) for split, of_split in found.items()} == {
        "train": 6667,
        "query": 6667,
        "gallery": 6666,
    }
    assert all(image.path.is_file() for image in found["query"][:20])
    assert {image.frame for of_split in found.values() for image in of_split} == set(range(20_000))
    assert len(set(ids)) == 20_000
