"""Pictures by id, whether they lie in a gallery or in a data set, and what of an upload is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.orm import Session

from reid_core.data.preprocessing import Decoded, decode, decoding_bytes
from reid_core.errors import PictureTooLarge
from service.budget import Budget
from service.db.tables import Dataset, DatasetImage, ErasedImage, GalleryImage
from service.errors import Problem, not_found
from service.settings import Settings
from service.storage import find_stored, resolve_inside
from service.vectors import gallery_folder

_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}
"""Of stored pictures, where it is not Pillow's word for their type."""

_MEDIA_TYPES = {f".{suffix}": "image/jpeg" for suffix in ("jpg", "jpeg", "jpe", "jfif")} | {
    ".png": "image/png",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".ppm": "image/x-portable-pixmap",
    ".pgm": "image/x-portable-graymap",
    ".pnm": "image/x-portable-anymap",
}


def dataset_folder(settings: Settings, dataset: Dataset) -> Path:
    """Where the data set's pictures lie now; home and data roots may have moved since it was registered."""
    return find_stored(dataset.path, settings.bases)


def pictures_folder(settings: Settings, gallery_id: str) -> Path:
    """Where a gallery keeps the pictures that were uploaded to it."""
    return gallery_folder(settings, gallery_id) / "pictures"


def find_picture(session: Session, image_id: str) -> GalleryImage | DatasetImage:
    """The picture of any gallery or data set; raises 404, or 410 for one that was erased."""
    found = session.get(GalleryImage, image_id) or session.get(DatasetImage, image_id)
    if found is None:
        raise missing_picture(session, image_id)
    return found


def missing_picture(session: Session, image_id: str) -> Problem:
    """The problem of a picture that is not there: 410 where it was erased, else 404."""
    if session.get(ErasedImage, image_id) is not None:
        return Problem("erased", f"picture {image_id!r} has been erased")
    return not_found("picture", image_id)


def picture_path(session: Session, settings: Settings, picture: GalleryImage | DatasetImage) -> Path:
    """The picture's file; raises 404 where none is kept, or where its data set or the file itself is gone."""
    path = _path(session, settings, picture)
    if not path.is_file():
        raise Problem("not-found", f"the file of picture {picture.id!r} is gone from where it lay")
    return path


def media_type(path: Path) -> str:
    """`image/jpeg` and the like, by the file's name."""
    return _MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")


def stored_suffix(picture: Decoded) -> str:
    """Of the file in which an uploaded picture is kept, by which it is sent as what it is."""
    return _SUFFIXES.get(picture.format, f".{picture.format.lower()}")


class Decoder:
    """Decodes pictures for requests, at a time no more than REID_DECODE_MEMORY_BYTES allows. Threads share it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._memory = Budget(settings.decode_memory_bytes)

    @contextmanager
    def opened(self, source: bytes | Path, name: str = "the picture") -> Iterator[Decoded]:
        """The decoded picture, gone at the end; `name` stands in messages.

        Raises:
            Problem: `too-large` for an upload of too many bytes, `unavailable` where others keep the memory too long.
            PictureError: it has too many pixels, is no picture that we read, or is damaged.
        """
        if isinstance(source, bytes):
            self._refuse_heavy(source, name)
        max_pixels = self._settings.max_image_pixels
        needed = decoding_bytes(source, max_pixels=max_pixels, name=name)
        self._reserve(needed, name)
        try:
            picture = decode(source, max_pixels=max_pixels, name=name)
            try:
                yield picture
            finally:
                picture.image.close()
        finally:
            self._memory.give_back(needed)

    def _refuse_heavy(self, content: bytes, name: str) -> None:
        if len(content) > self._settings.max_picture_bytes:
            raise Problem(
                "too-large",
                f"{name} has more than {self._settings.max_picture_bytes:,} bytes",
                hint="send a crop of one person, or raise REID_MAX_PICTURE_BYTES",
            )

    def _reserve(self, needed: int, name: str) -> None:
        if needed > self._memory.total:
            raise PictureTooLarge(
                f"{name} may need {needed:,} bytes while it is decoded; "
                f"REID_DECODE_MEMORY_BYTES allows {self._memory.total:,}.",
                hint="Send a crop of one person, or raise REID_DECODE_MEMORY_BYTES.",
            )
        if not self._memory.take(needed, seconds=self._settings.max_wait_seconds):
            raise Problem(
                "unavailable",
                f"other pictures take all of REID_DECODE_MEMORY_BYTES = {self._memory.total:,}; "
                f"{name} had to wait longer than {self._settings.max_wait_seconds:g} s",
                hint="try again, with smaller pictures if you can",
                headers={"Retry-After": "2"},
            )


def _path(session: Session, settings: Settings, picture: GalleryImage | DatasetImage) -> Path:
    if isinstance(picture, GalleryImage):
        if picture.file is not None:
            return pictures_folder(settings, picture.gallery_id) / picture.file
        origin = session.get(DatasetImage, picture.dataset_image_id) if picture.dataset_image_id else None
        if origin is None:
            reason = "its data set was deleted" if picture.dataset_image_id else "its gallery keeps no pictures"
            raise Problem("not-found", f"there is no file of picture {picture.id!r}: {reason}")
        picture = origin
    dataset = session.get_one(Dataset, picture.dataset_id)
    return resolve_inside(dataset_folder(settings, dataset), picture.path)
