"""Ten thousand searches among 100,000 vectors are killed in their middle, and end as if they had not been."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from sqlalchemy import insert

from reid_core.retrieval.columns import write_embeddings
from service.db.ids import new_id, new_ids
from service.db.schema import upgrade
from service.db.session import open_database
from service.db.tables import Gallery, GalleryImage
from service.galleries.files import generation_folder, open_or_create_store
from service.settings import Settings
from tests.service.galleries.stock import add_model_row
from tests.waiting import wait_until
from tests.worker.service import Service

IMAGES, QUERIES, SIZE = 100_000, 10_000, 64


def _fill(settings: Settings) -> None:
    """A gallery `hall` of random directions, as uploads leave one."""
    upgrade(settings.database_url)
    database, gallery_id = open_database(settings.database_url), new_id("gal")
    add_model_row(database, "mdl_1", "first", size=SIZE)
    vectors = np.random.default_rng(0).standard_normal((IMAGES, SIZE), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    open_or_create_store(generation_folder(settings, gallery_id, 0), SIZE, count=0).write(0, vectors)
    counts = {"revision": 1, "next_position": IMAGES, "images": IMAGES}
    details = {"filename": "a.jpg", "sha256": "0", "width": 1, "height": 1, "added_revision": 1}
    with database.write() as session:
        session.add(
            Gallery(id=gallery_id, name="hall", model_id="mdl_1", index_kind="flat", keep_images=False, **counts)
        )
        session.flush()
        rows = [
            {"id": image_id, "gallery_id": gallery_id, "position": position, **details}
            for position, image_id in enumerate(new_ids("img", IMAGES))
        ]
        session.execute(insert(GalleryImage), rows)
    database.close()


def _queries(path: Path) -> Path:
    vectors = np.random.default_rng(1).standard_normal((QUERIES, SIZE), dtype=np.float32)
    pyarrow.parquet.write_table(pyarrow.table({"embedding": write_embeddings(vectors)}), path)
    return path


@pytest.mark.slow
def test_ten_thousand_queries_survive_kill_9(tmp_path: Path) -> None:
    home = tmp_path / "home"
    _fill(Settings(home=home))
    queries = _queries(tmp_path / "queries.parquet").read_bytes()
    service = Service(home, tmp_path, REID_LEASE_SECONDS="3")
    service.start()
    try:

        def post() -> str:
            form = {"gallery": "hall", "top_k": "10", "format": "parquet"}
            answer = service.http.post("/search/batch/jobs", files={"queries": queries}, data=form)
            assert answer.status_code == 202, answer.text
            return str(answer.json()["id"])

        def results(job_id: str) -> bytes:
            return service.http.get(f"/jobs/{job_id}/files/results.parquet").content

        unbroken = post()
        service.wait_for(unbroken, "succeeded")
        killed = post()
        blocks = home / "jobs" / killed / "blocks"
        wait_until(lambda: blocks.is_dir() and len(list(blocks.glob("*.parquet"))) >= 10)
        (child,) = service.processes("worker.run", killed)
        child.kill()
        wait_until(lambda: service.job(killed)["attempt"] == 2)
        wait_until(lambda: len(list(blocks.glob("*.parquet"))) >= 20 or service.job(killed)["state"] == "succeeded")
        service.kill_everything()
        service.start()
        job = service.wait_for(killed, "succeeded")
        assert job["attempt"] >= 3
        assert (job["result"]["queries"], job["result"]["problems"]) == (QUERIES, 0)
        assert results(killed) == results(unbroken)
        wait_until(lambda: not blocks.exists())
        service.stop()
    finally:
        if service.processes():
            service.kill_everything()
