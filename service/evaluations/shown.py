"""Images of a data set as evaluations name them: by their places in its splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from reid_core.data.records import Split
from service.db.tables import DatasetImage
from service.evaluations.schemas import ShownImage, ShownImageLinks

_AT_ONCE = 500


def shown_images(
    session: Session, dataset_id: str, split: Split, places: Iterable[int], prefix: str
) -> Mapping[int, ShownImage]:
    """Those of the split's images at `places` that are still there; `prefix` is put before links."""
    wanted, found = sorted(set(places)), {}
    in_split = select(DatasetImage).where(DatasetImage.dataset_id == dataset_id, DatasetImage.split == split)
    for start in range(0, len(wanted), _AT_ONCE):
        for row in session.scalars(in_split.where(DatasetImage.position.in_(wanted[start : start + _AT_ONCE]))):
            found[row.position] = _shown(row, prefix)
    return found


def _shown(row: DatasetImage, prefix: str) -> ShownImage:
    link = f"{prefix}/datasets/{row.dataset_id}/images/{row.id}"
    return ShownImage(
        id=row.id,
        path=row.path,
        identity=row.identity,
        camera=row.camera,
        links=ShownImageLinks(self=link, content=f"{link}/content"),
    )
