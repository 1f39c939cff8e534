"""Adding a data set's split to a gallery, batch by batch: searchable as it grows, resumable where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath

from sqlalchemy import Select, exists, func, select

from reid_core.errors import Stopped
from service.db.ids import new_ids
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Dataset, DatasetImage, Gallery, GalleryImage
from service.errors import Problem
from service.galleries.encoding import GalleryEncoder, ReadImage, read_ahead
from service.galleries.files import feature_bytes
from service.galleries.image_files import image_path
from service.galleries.images import append
from service.settings import Settings
from service.storage import ensure_free_space

PAGE_SIZE = 128


def add_split(
    database: Database,
    settings: Settings,
    gallery_id: str,
    split: Mapping[str, str],
    encoder: GalleryEncoder,
    *,
    on_progress: Callable[[int, int], None],
    should_stop: Callable[[], bool],
) -> dict[str, int]:
    """Adds the images of `split` ({dataset, split}) that the gallery lacks; how many were added and unreadable.

    Raises:
        Problem: 404 once the gallery or the data set is gone; 507, with nothing added, where the disk cannot take
            all of them.
        Stopped: between pages, when `should_stop` says so.
    """
    with database.read() as session:
        gallery = find(session, Gallery, gallery_id)
        missing = _missing(gallery_id, find(session, Dataset, split["dataset"]).id, split["split"])
        total = session.scalar(select(func.count()).select_from(missing.subquery())) or 0
        needed = total * feature_bytes(session, gallery)
    ensure_free_space(settings.galleries_dir, needed_bytes=needed, min_free_bytes=settings.min_free_bytes)
    done, added = 0, 0
    with closing(read_ahead(_pages(database, settings, missing), encoder, settings)) as pages:
        for page, read in pages:
            if should_stop():
                raise Stopped
            added += _add_page(database, settings, gallery_id, page, read, encoder)
            done += len(page)
            on_progress(done, total)
    return {"added": added, "unreadable": done - added}


def _missing(gallery_id: str, dataset_id: str, split: str) -> Select[DatasetImage]:
    in_gallery = exists().where(GalleryImage.gallery_id == gallery_id, GalleryImage.dataset_image_id == DatasetImage.id)
    return select(DatasetImage).where(DatasetImage.dataset_id == dataset_id, DatasetImage.split == split, ~in_gallery)


def _pages(
    database: Database, settings: Settings, missing: Select[DatasetImage]
) -> Iterator[tuple[Sequence[DatasetImage], list[Path | None]]]:
    """The missing images with their files, page by page."""
    last = -1
    while page := _read_page(database, missing, last):
        yield page, _paths(database, settings, page)
        last = page[-1].position


def _read_page(database: Database, missing: Select[DatasetImage], last: int) -> Sequence[DatasetImage]:
    page = missing.where(DatasetImage.position > last).order_by(DatasetImage.position).limit(PAGE_SIZE)
    with database.read() as session:
        return session.scalars(page).all()


def _add_page(
    database: Database,
    settings: Settings,
    gallery_id: str,
    page: Sequence[DatasetImage],
    read: Sequence[ReadImage | None],
    encoder: GalleryEncoder,
) -> int:
    """Adds those of the page's images that can be read; returns their number."""
    found = [(origin, image) for origin, image in zip(page, read, strict=True) if image is not None]
    if found:
        ids = new_ids("img", len(found))
        images = [_as_gallery_image(*pair, image_id) for pair, image_id in zip(found, ids, strict=True)]
        append(database, settings, gallery_id, images, encoder.encode([image.prepared for _, image in found]))
    return len(found)


def _paths(database: Database, settings: Settings, page: Sequence[DatasetImage]) -> list[Path | None]:
    def path(origin: DatasetImage) -> Path | None:
        try:
            return image_path(session, settings, origin)
        except Problem:
            return None

    with database.read() as session:
        return [path(origin) for origin in page]


def _as_gallery_image(origin: DatasetImage, image: ReadImage, image_id: str) -> GalleryImage:
    return GalleryImage(
        id=image_id,
        identity=origin.identity,
        camera=origin.camera or None,
        captured_at=origin.captured_at,
        filename=PurePosixPath(origin.path).name,
        sha256=image.sha256,
        width=image.width,
        height=image.height,
        dataset_image_id=origin.id,
    )
