"""A service with a tiny model, on real files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from service.db.session import Database
from service.db.tables import Dataset, Model
from service.settings import Settings
from tests.service.galleries.stock import MATCHER_SIZE, add_dataset, add_model_row, save_tiny_matcher, save_tiny_model

MODEL_ID = "mdl_00000000000000000000000001"
MATCHER_ID = "mdl_00000000000000000000000002"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_tiny_model(folder)
    return folder


@pytest.fixture(scope="session")
def matcher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "matcher"
    save_tiny_matcher(folder)
    return folder


@pytest.fixture
def settings(tmp_path: Path, model_folder: Path) -> Settings:
    settings = Settings(home=tmp_path / "home", min_free_bytes=0, device="cpu", threads=1)
    shutil.copytree(model_folder, settings.models_dir / MODEL_ID)
    return settings


@pytest.fixture
def model(database: Database) -> Model:
    """The model called `tiny`."""
    return add_model_row(database, MODEL_ID)


@pytest.fixture
def matcher(database: Database, settings: Settings, matcher_folder: Path) -> Model:
    """The model called `matcher`, whose method compares local feature maps."""
    shutil.copytree(matcher_folder, settings.models_dir / MATCHER_ID)
    return add_model_row(database, MATCHER_ID, "matcher", method="qaconv-pk", size=MATCHER_SIZE)


@pytest.fixture
def dataset(database: Database, tmp_path: Path) -> Dataset:
    """The data set called `lobby`."""
    return add_dataset(database, tmp_path / "lobby")
