"""A data set's images as training and evaluation take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from reid_core.data.joining import join_datasets
from reid_core.data.records import DISTRACTOR, SPLITS, ImageRecord, Part, Split
from service.datasets.files import dataset_folder
from service.db.tables import Dataset, DatasetImage
from service.settings import Settings


def images(session: Session, settings: Settings, dataset: Dataset, part: Part) -> list[ImageRecord]:
    """The part's readable images with absolute paths, in the data set's order.

    Of all splits together every file comes once, and gallery images of nobody do not.
    """
    if part == "all":
        return _everybody({split: images(session, settings, dataset, split) for split in SPLITS})
    folder = dataset_folder(settings, dataset)
    # Columns and not rows as objects, which take five times as long; a data set may have 100,000 images.
    query = (
        select(
            DatasetImage.path,
            DatasetImage.identity,
            DatasetImage.camera,
            DatasetImage.captured_at,
            DatasetImage.frame,
            DatasetImage.clothes,
        )
        .where(DatasetImage.dataset_id == dataset.id, DatasetImage.split == part)
        .order_by(DatasetImage.position)
    )
    return [
        ImageRecord(folder / path, identity, camera, captured_at, frame, clothes or "")
        for path, identity, camera, captured_at, frame, clothes in session.execute(query)
    ]


def joined_images(session: Session, settings: Settings, parts: Sequence[tuple[Dataset, Part]]) -> list[ImageRecord]:
    """Parts of several data sets as one, as `join` does it; labels are prefixed by the data set's id."""
    return join_datasets({dataset.id: images(session, settings, dataset, part) for dataset, part in parts})


def other_people(session: Session, settings: Settings, parts: Sequence[tuple[Dataset, Part]]) -> list[ImageRecord]:
    """Images of the people that data sets whose training split is trained on keep for their tests, joined likewise.

    People who are in the training split, too, are left out.
    """
    tested = {}
    for dataset in (dataset for dataset, part in parts if part == "train"):
        of_training = (DatasetImage.dataset_id == dataset.id, DatasetImage.split == "train")
        trained = set(session.scalars(select(DatasetImage.identity).where(*of_training).distinct()))
        query = [image for image in images(session, settings, dataset, "query") if image.identity not in trained]
        people = {image.identity for image in query}
        gallery = images(session, settings, dataset, "gallery")
        tested[dataset.id] = query + [image for image in gallery if image.identity in people]
    return join_datasets(tested) if tested else []


def _everybody(splits: Mapping[Split, Sequence[ImageRecord]]) -> list[ImageRecord]:
    people = {image.identity for split in ("train", "query") for image in splits[split]}
    nobody = {DISTRACTOR} - people
    found = {image.path: image for split in SPLITS for image in splits[split] if image.identity not in nobody}
    return list(found.values())
