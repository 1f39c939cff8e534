"""A data set's pictures as training and evaluation take them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from reid_core.data.joining import join
from reid_core.data.records import Picture, Split
from service.db.tables import Dataset, DatasetImage
from service.pictures import dataset_folder
from service.settings import Settings


def pictures(session: Session, settings: Settings, dataset: Dataset, split: Split) -> list[Picture]:
    """The split's readable pictures with absolute paths, in the data set's order."""
    folder = dataset_folder(settings, dataset)
    # Columns and not rows as objects, which take five times as long; a data set may have 100,000 pictures.
    query = (
        select(
            DatasetImage.path,
            DatasetImage.identity,
            DatasetImage.camera,
            DatasetImage.captured_at,
            DatasetImage.frame,
        )
        .where(DatasetImage.dataset_id == dataset.id, DatasetImage.split == split)
        .order_by(DatasetImage.position)
    )
    return [
        Picture(folder / path, identity, camera, captured_at, frame)
        for path, identity, camera, captured_at, frame in session.execute(query)
    ]


def joined_pictures(session: Session, settings: Settings, datasets: Sequence[Dataset], split: Split) -> list[Picture]:
    """The split of several data sets as one, as `join` does it; labels are prefixed by the data set's id."""
    return join({dataset.id: pictures(session, settings, dataset, split) for dataset in datasets})
