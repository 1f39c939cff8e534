"""Pictures of graph sampling's nearest classes."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from reid_core.data.records import ImageRecord
from reid_core.sampling import Graph
from service.db.ids import new_id
from service.db.session import Database
from service.db.tables import Job
from service.drawing.text import shorten
from service.jobs.graphs import write_graph
from service.settings import Settings

COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200))
LEFT, TOP, WIDTH, COLUMN = 16, 83, 80, 112


@pytest.fixture
def job(database: Database, settings: Settings, tmp_path: Path) -> str:
    """A job with the graph of three classes, each an image of one colour."""
    images = []
    for number, colour in enumerate(COLOURS):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (32, 64), colour).save(path)
        images.append(ImageRecord(path, f"000{number}", "1"))
    neighbours, distances = np.array([[1, 2], [2, 0], [1, 0]]), np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    job_id = new_id("job")
    with database.write() as session:
        session.add(Job(id=job_id, kind="train", spec={}, state="running"))
    (settings.jobs_dir / job_id).mkdir(parents=True)
    write_graph(settings.jobs_dir / job_id, 1, Graph(np.arange(3), neighbours, distances.astype(np.float32)), images)
    return job_id


def draw(client: httpx.Client, path: str) -> np.ndarray:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
    with Image.open(io.BytesIO(answer.content)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_each_class_stands_beside_its_nearest_ones(client: httpx.Client, job: str) -> None:
    drawn = draw(client, f"/jobs/{job}/graph.png")
    row_height = (drawn.shape[0] - TOP - 16) // 3
    seen = [
        [
            tuple(
                drawn[TOP + row * row_height + 76, LEFT + column * COLUMN + (10 if column else 0) + WIDTH // 2].tolist()
            )
            for column in range(3)
        ]
        for row in range(3)
    ]
    assert seen == [[COLOURS[code] for code in codes] for codes in ((0, 1, 2), (1, 2, 0), (2, 1, 0))]
    below = drawn[TOP + 152 : TOP + row_height - 10, LEFT + 10 + COLUMN : LEFT + 10 + 2 * COLUMN]
    assert (below < 100).all(axis=2).sum() > 100  # the distance is written
    assert draw(client, f"/jobs/{job}/graph.png?rows=1").shape[0] == TOP + 16 + row_height


def test_a_picture_of_a_graph_is_sent_once(client: httpx.Client, job: str, tmp_path: Path) -> None:
    first = client.get(f"/v1/jobs/{job}/graph.png")
    again = client.get(f"/v1/jobs/{job}/graph.png", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    (tmp_path / "1.png").unlink()  # the empty frame is another picture
    assert client.get(f"/v1/jobs/{job}/graph.png").headers["etag"] != first.headers["etag"]
    assert client.get(f"/jobs/{job}/graph.png?epoch=9").status_code == 404


def test_long_names_keep_their_beginning_and_their_end() -> None:
    assert shorten("camera-12", 16) == "camera-12"
    assert shorten("a-very-long-identity-of-0007", 16) == "a-very-lon…-0007"
    assert shorten("\n\u202e厅", 40) == "\\x0a\\u202e\\u5385"
