"""The clusters of an adaptation over the API."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest

from reid_core.clustering import Clusters
from reid_core.data.records import ImageRecord
from service.db.ids import new_id
from service.db.session import Database
from service.db.tables import Job
from service.jobs.clusters import write_clusters
from service.settings import Settings

COUNT = 70
IDS = [f"img_{number}" for number in range(2 * COUNT + 1)]


@pytest.fixture
def job(database: Database, settings: Settings) -> str:
    """A job with an epoch of clusters: two images of two cameras in each, and one image in none."""
    job_id = new_id("job")
    with database.write() as session:
        session.add(Job(id=job_id, kind="adapt", spec={}, state="running"))
    (settings.jobs_dir / job_id).mkdir(parents=True)
    labels = np.array([*np.repeat(np.arange(COUNT), 2), -1])
    images = [ImageRecord(Path("a.png"), "", str(number % 2)) for number in range(len(IDS))]
    write_clusters(settings.jobs_dir / job_id, 0, Clusters(labels, np.full(COUNT, 0.5)), [3, 69], IDS, images)
    return job_id


def test_the_clusters_of_an_epoch_come_in_pages(client: httpx.Client, job: str) -> None:
    first = client.get(f"/jobs/{job}/clusters").json()
    rest = client.get(f"/jobs/{job}/clusters", params={"cursor": first["next_cursor"]}).json()
    assert (len(first["clusters"]), len(rest["clusters"]), rest["next_cursor"]) == (50, 20, None)
    for page in (first, rest):
        assert (page["epoch"], page["epochs"], page["images"], page["left_alone"]) == (1, [1], 2 * COUNT + 1, 1)
    clusters = [*first["clusters"], *rest["clusters"]]
    assert [image for each in clusters for image in each["images"]] == IDS[:-1]
    assert [number for number, each in enumerate(clusters) if each["trained_on"]] == [3, 69]
    assert clusters[0] == {"confidence": 0.5, "trained_on": False, "cameras": ["0", "1"], "images": IDS[:2]}
    exact = client.get(f"/jobs/{job}/clusters", params={"limit": COUNT}).json()
    assert (len(exact["clusters"]), exact["next_cursor"]) == (COUNT, None)
    foreign = client.get("/api-keys", params={"limit": 1}).json()["next_cursor"] or "none"
    assert client.get(f"/jobs/{job}/clusters", params={"cursor": foreign}).status_code == 400
    assert client.get(f"/jobs/{job}/clusters", params={"epoch": 2}).status_code == 404
