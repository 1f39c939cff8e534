"""The files of images, whether an image lies in a gallery or in a data set."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.orm import Session

from reid_core.data.preprocessing import Decoded
from service.datasets.files import dataset_image_path, existing_file
from service.db.tables import DatasetImage, ErasedImage, GalleryImage
from service.errors import Problem, not_found
from service.galleries.files import gallery_folder
from service.galleries.lifecycle import is_there
from service.settings import Settings

_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif"}
"""Suffixes of stored images, where they are not Pillow's word for their type."""


def image_folder(settings: Settings, gallery_id: str) -> Path:
    """The folder of the images that were uploaded to a gallery."""
    return gallery_folder(settings, gallery_id) / "pictures"


def find_any_image(session: Session, image_id: str) -> GalleryImage | DatasetImage:
    """The image of any gallery or data set; raises 404, or 410 for one that was erased."""
    image = session.get(GalleryImage, image_id) or session.get(DatasetImage, image_id)
    if image is None or (isinstance(image, GalleryImage) and not is_there(session, image.gallery_id)):
        raise missing_image(session, image_id)
    return image


def missing_image(session: Session, image_id: str) -> Problem:
    """The problem of an image that is not there: 410 where it was erased, else 404."""
    if session.get(ErasedImage, image_id) is not None:
        return Problem("erased", f"Image {image_id!r} has been erased.")
    return not_found("image", image_id)


def image_path(session: Session, settings: Settings, image: GalleryImage | DatasetImage) -> Path:
    """The image's file; raises 404 where none is kept, or where its data set or the file itself is gone."""
    if isinstance(image, DatasetImage):
        return dataset_image_path(session, settings, image)
    if image.file is not None:
        return existing_file(image_folder(settings, image.gallery_id) / image.file, image.id)
    origin = session.get(DatasetImage, image.dataset_image_id) if image.dataset_image_id else None
    if origin is None:
        reason = "its data set was deleted" if image.dataset_image_id else "its gallery keeps no images"
        raise Problem("not-found", f"There is no file of image {image.id!r}: {reason}.")
    return dataset_image_path(session, settings, origin)


def stored_suffix(decoded: Decoded) -> str:
    """The suffix of the file in which an uploaded image is kept, by which it is sent as what it is."""
    return _SUFFIXES.get(decoded.format, f".{decoded.format.lower()}")
