"""A home or a data root that is moved takes its data sets along."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from service.datasets.catalog import bring_up_to_date
from service.datasets.files import dataset_folder
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Dataset
from service.main import create_app
from service.settings import Settings
from service.storage import find_stored, stored_path
from tests.service.datasets.registering import Register, make_market, post, upload, zipped
from tests.service.serving import open_client, serve


def test_data_sets_are_found_again_after_home_and_data_root_moved(
    client: httpx.Client, settings: Settings, run: Register, tmp_path: Path
) -> None:
    make_market(settings.data_roots[0] / "registered")
    run(post(client, name="registered", path="registered"))
    run(upload(client, zipped(make_market(tmp_path / "pictures")), name="uploaded").json())
    images = {name: _first_image(client, name) for name in ("registered", "uploaded")}

    settings.home.rename(tmp_path / "renamed")
    moved = Settings(home=tmp_path / "renamed", min_free_bytes=0)

    key = moved.admin_key_path.read_text().strip()
    with serve(create_app(moved)) as address, open_client(address, {"X-API-Key": key}) as other:
        assert {name: _first_image(other, name) for name in images} == images


def _first_image(client: httpx.Client, name: str) -> bytes:
    image = client.get(f"/datasets/{name}/images?limit=1").json()["items"][0]
    answer = client.get(image["links"]["content"])
    assert answer.status_code == 200, answer.text
    return answer.content


def test_absolute_paths_of_earlier_versions_become_relative(
    database: Database, settings: Settings, client: httpx.Client
) -> None:
    folder = make_market(settings.data_roots[0] / "lobby")
    made = post(client, name="lobby", path="lobby")
    with database.write() as session:
        session.execute(update(Dataset).where(Dataset.id == made["id"]).values(path=str(folder)))
    for _ in range(2):
        bring_up_to_date(database, settings)
    with database.read() as session:
        dataset = find(session, Dataset, "lobby")
    assert dataset.path == "datasets/lobby"
    assert dataset_folder(settings, dataset) == folder


def test_a_path_is_kept_absolute_where_its_relative_name_means_another_folder(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first / "people", second / "people", second / "only"):
        folder.mkdir(parents=True)
    bases = (first, second)
    assert stored_path(first / "people", bases) == "people"
    assert stored_path(second / "people", bases) == str(second / "people")
    assert stored_path(second / "only", bases) == "only"
    assert stored_path(tmp_path, bases) == str(tmp_path)


@pytest.mark.parametrize("name", ["people", "only", "nowhere"])
def test_a_stored_path_is_found_again(tmp_path: Path, name: str) -> None:
    (tmp_path / "second" / "only").mkdir(parents=True)
    (tmp_path / "first" / "people").mkdir(parents=True)
    expected = tmp_path / ("second" if name == "only" else "first") / name
    assert find_stored(name, (tmp_path / "first", tmp_path / "second")) == expected
    assert find_stored(str(expected), (tmp_path / "first",)) == expected
