"""Folders, uploads and registrations for the tests of data sets."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import update

from service.clock import utc_now
from service.db.ids import new_id
from service.db.session import Database
from service.db.tables import Dataset, Job
from service.jobs.lifecycle import FINISHED
from tests.reid_core.images import make_images

Register = Callable[..., dict[str, Any]]


def make_market(folder: Path) -> Path:
    """Market-1501's layout: 16 images of 4 people to train on, 6 queries and 12 gallery images of 3, 2 cameras."""
    make_images(folder / "bounding_box_train", identities=4, each=2, seed=1)
    make_images(folder / "query", identities=3, each=1, seed=2)
    make_images(folder / "bounding_box_test", identities=3, each=2, seed=3)
    return folder


def post(client: httpx.Client, **body: Any) -> dict[str, Any]:
    """Registers a folder that must be accepted: the data set."""
    answer = client.post("/datasets", json=body)
    assert answer.status_code == 202, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


def upload(client: httpx.Client, content: bytes, **fields: str) -> httpx.Response:
    """The answer to an upload of `content` as `archive`."""
    return client.post("/datasets", data=fields, files={"archive": ("pictures", content)})


def zipped(folder: Path) -> bytes:
    """A zip that holds the folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))
    return buffer.getvalue()


def add_row(database: Database, folder: Path, name: str) -> Dataset:
    """A pending data set without the API and without a job."""
    dataset = Dataset(id=new_id("ds"), name=name, path=str(folder), format="auto", state="pending", uploaded=False)
    with database.write() as session:
        session.add(dataset)
    return dataset


def set_job(database: Database, job_id: str, state: str = "succeeded", error: dict[str, Any] | None = None) -> None:
    """Puts a job into a state, as its worker would."""
    finished_at = utc_now() if state in FINISHED else None
    with database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(state=state, error=error, finished_at=finished_at))


def slug(answer: httpx.Response) -> str:
    """The kind of problem that the answer is."""
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["type"]).removeprefix("/problems/")


def files_below(folder: Path) -> list[str]:
    """Paths of all files in the folder; none if there is no folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) if folder.exists() else []
