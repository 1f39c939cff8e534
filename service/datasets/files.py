"""The image files of data sets, wherever home and data roots lie now."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.orm import Session

from service.db.tables import Dataset, DatasetImage
from service.errors import Problem
from service.settings import Settings
from service.storage import find_stored, resolve_inside


def dataset_folder(settings: Settings, dataset: Dataset) -> Path:
    """The folder of the data set's images; home and data roots may have moved since it was registered."""
    return find_stored(dataset.path, settings.bases)


def dataset_image_path(session: Session, settings: Settings, image: DatasetImage) -> Path:
    """The image's file; raises 404 where it is gone."""
    dataset = session.get_one(Dataset, image.dataset_id)
    return existing_file(resolve_inside(dataset_folder(settings, dataset), image.path), image.id)


def existing_file(path: Path, image_id: str) -> Path:
    """`path`, the file of that image; raises 404 where it is gone."""
    if not path.is_file():
        raise Problem("not-found", f"The file of image {image_id!r} is gone from where it lay.")
    return path
