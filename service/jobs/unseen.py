"""Images of people whom a model has not seen: its data sets, and those of the models that it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from reid_core.data.records import DISTRACTOR, ImageRecord
from service.datasets.images import images, other_people
from service.db.tables import Dataset, DatasetImage, Model
from service.settings import Settings

Seen = Literal["nothing", "train", "all"]
"""The part of a data set that a model has seen."""


def seen_of(session: Session, model: Model, dataset: Dataset) -> Seen:
    """The part of the data set, or of another with the same files, that the model or one before it was trained on."""
    parts = {
        origin.get("split", "train")
        for lineage in _lineages(session, model)
        for origin in lineage.get("datasets", [])
        if origin["id"] == dataset.id or (dataset.fingerprint and origin.get("fingerprint") == dataset.fingerprint)
    }
    if "all" in parts:
        return "all"
    return "train" if parts else "nothing"


def unseen_images(session: Session, settings: Settings, dataset: Dataset, seen: Seen) -> list[ImageRecord]:
    """The data set's images of people whom the model has not seen; none where it has seen all of it."""
    if seen == "all":
        return []
    if seen == "train":
        return other_people(session, settings, [(dataset, "train")])
    return images(session, settings, dataset, "all")


def count_unseen_people(session: Session, dataset: Dataset, seen: Seen) -> int:
    """The number of those people who have images of more than one camera, or of an unknown one."""
    if seen == "all":
        return 0
    people = select(DatasetImage.identity).where(DatasetImage.dataset_id == dataset.id, ~_nobody(dataset))
    if seen == "train":
        trained = _identities(dataset, "train")
        people = people.where(DatasetImage.split != "train", DatasetImage.identity.not_in(trained))
        people = people.where(DatasetImage.identity.in_(_identities(dataset, "query")))
    cameras, least = func.count(DatasetImage.camera.distinct()), func.min(DatasetImage.camera)
    paired = people.group_by(DatasetImage.identity).having(or_(cameras > 1, (least == "") & (func.count() > 1)))
    return session.scalar(select(func.count()).select_from(paired.subquery())) or 0


def _nobody(dataset: Dataset) -> Any:
    """The condition on images of nobody in particular, as `images` leaves them out."""
    people = _identities(dataset, "train").union(_identities(dataset, "query"))
    return (DatasetImage.identity == DISTRACTOR) & DatasetImage.identity.not_in(people)


def _identities(dataset: Dataset, split: str) -> Select[str]:
    return select(DatasetImage.identity).where(DatasetImage.dataset_id == dataset.id, DatasetImage.split == split)


def _lineages(session: Session, model: Model) -> Iterator[dict[str, Any]]:
    """The lineages of the model, its parents and its teachers, as far as they are still there."""
    waiting, known = [model], {str(model.id)}
    while waiting:
        lineage = waiting.pop().lineage
        yield lineage
        before = {key for key in (lineage.get("parent"), lineage.get("teacher")) if key} - known
        known |= before
        waiting += session.scalars(select(Model).where(Model.id.in_(before)))
