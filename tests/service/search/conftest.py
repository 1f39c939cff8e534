"""A service with a model that matches locally and a gallery of its maps."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest

from service.db.session import Database
from service.db.tables import Model
from service.settings import Settings
from tests.service.galleries.stock import add_model_row, added_ids, make_gallery, upload
from tests.service.search.stock import EMBEDDING_SIZE, MATCHER_ID, METHOD, save_matching_model, scene

COUNT = 12


@pytest.fixture(scope="session")
def matcher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "matcher"
    save_matching_model(folder)
    return folder


@pytest.fixture
def settings(tmp_path: Path, matcher_folder: Path) -> Settings:
    settings = Settings(home=tmp_path / "home", min_free_bytes=0, device="cpu", threads=1)
    shutil.copytree(matcher_folder, settings.models_dir / MATCHER_ID)
    return settings


@pytest.fixture
def matcher(database: Database) -> Model:
    """The model called `matcher`."""
    return add_model_row(database, MATCHER_ID, "matcher", method=METHOD, size=EMBEDDING_SIZE)


@pytest.fixture
def ids(client: httpx.Client, matcher: Model) -> list[str]:
    """Twelve images in the gallery `hall` of the matcher, on cameras 0, 1 and 2."""
    make_gallery(client, model="matcher")
    metadata = [{"camera": str(number % 3)} for number in range(COUNT)]
    return added_ids(upload(client, "hall", [scene(number) for number in range(COUNT)], metadata))
