"""Pictures that come with a request: decoded, encoded, stored, and searchable when the request is answered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from reid_core.data.labels import normal_label
from reid_core.data.preprocessing import Decoded
from reid_core.errors import CoreError, Fault
from service.db.ids import new_ids
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.errors import Problem, problem_from_core
from service.galleries.bodies import PictureDetails
from service.galleries.encoding import BATCH_SIZE, EncoderFor, GalleryEncoder, Prepared, gallery_encoder
from service.galleries.features import Features, feature_bytes, join_features
from service.galleries.images import append
from service.pictures import decode_upload, pictures_folder, stored_suffix
from service.settings import Settings
from service.storage import delete_file, ensure_free_space, write_file

_MAX_FILENAME = 200

_LARGEST_CROP_PIXELS = 2_000_000
"""Crops of persons from 4K video have less."""

_MESSAGES = {
    "whole-frame": "{width} x {height} pixels looks like a whole frame; pictures are compared as crops of one person",
    "first-of-several": "the file holds several pictures; the first was taken",
    "cut-off": "the end of the file is missing; what is missing is grey",
}


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a request, with the name that the client gave it and what it told of it."""

    filename: str
    file: BinaryIO
    details: PictureDetails


@dataclass(frozen=True, slots=True)
class Addition:
    """What became of the files of a request: (picture id, file name) of those added, (file name, why) of the others.

    `warnings` has what a person should look at among those added.
    """

    gallery_id: str
    added: list[tuple[str, str]]
    rejected: list[tuple[str, Problem]]
    warnings: list[UploadWarning]
    revision: int


@dataclass(frozen=True, slots=True)
class UploadWarning:
    """A picture that was added though it may not be what was meant; `code` is a stable word."""

    image: str
    filename: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class _Accepted:
    image: GalleryImage
    content: bytes
    picture: Decoded
    prepared: Prepared


def add_uploads(
    database: Database, settings: Settings, gallery_key: str, uploads: Sequence[Upload], encoder_for: EncoderFor
) -> Addition:
    """Adds every file that is a picture; they are found by the next search.

    Raises:
        Problem: 404 for an unknown gallery, 507 without disk space; where not one file is accepted, the first one's
            problem, with all of them under `errors`.
    """
    with database.read() as session:
        gallery = find(session, Gallery, gallery_key)
        needed = _total_bytes(uploads) + len(uploads) * feature_bytes(session, gallery)
    ensure_free_space(settings.galleries_dir, needed_bytes=needed, min_free_bytes=settings.min_free_bytes)
    encoder, folder = gallery_encoder(gallery, encoder_for), pictures_folder(settings, gallery.id)
    rejected: list[tuple[str, Problem]] = []
    images: list[GalleryImage] = []
    warnings: list[UploadWarning] = []
    features: list[Features] = []
    try:
        for batch in _accepted_batches(uploads, settings, encoder, rejected):
            images += [accepted.image for accepted in batch]
            warnings += [warning for accepted in batch for warning in _warnings(accepted)]
            if gallery.keep_images:
                _store_pictures(folder, batch)
            features.append(encoder.encode([accepted.prepared for accepted in batch]))
        if not images:
            raise _nothing_accepted(uploads, rejected)
        revision = append(database, settings, gallery.id, images, join_features(features))
    except BaseException:
        _forget_pictures(folder, images)
        raise
    return Addition(gallery.id, [(image.id, image.filename) for image in images], rejected, warnings, revision)


def _accepted_batches(
    uploads: Sequence[Upload], settings: Settings, encoder: GalleryEncoder, rejected: list[tuple[str, Problem]]
) -> Iterator[list[_Accepted]]:
    """Batches of the files that are pictures; the others are noted in `rejected`."""
    batch: list[_Accepted] = []
    for image_id, upload in zip(new_ids("img", len(uploads)), uploads, strict=True):
        name = _readable(upload.filename)
        try:
            batch.append(_accept(image_id, name, upload, settings, encoder))
        except Problem as problem:
            rejected.append((name, problem))
        except CoreError as error:
            rejected.append((name, problem_from_core(error)))
        if len(batch) == BATCH_SIZE:
            yield batch
            batch = []
    if batch:
        yield batch


def _accept(image_id: str, name: str, upload: Upload, settings: Settings, encoder: GalleryEncoder) -> _Accepted:
    content = upload.file.read(settings.max_picture_bytes + 1)
    picture = decode_upload(content, name, settings)
    image = GalleryImage(
        id=image_id,
        filename=name,
        sha256=hashlib.sha256(content).hexdigest(),
        width=picture.image.width,
        height=picture.image.height,
        **dict(upload.details),
    )
    return _Accepted(image, content, picture, encoder.prepare(picture.image))


def _warnings(accepted: _Accepted) -> Iterator[UploadWarning]:
    width, height = accepted.picture.image.size
    told = {
        "whole-frame": width > height or width * height > _LARGEST_CROP_PIXELS,
        "first-of-several": accepted.picture.animated,
        "cut-off": accepted.picture.cut_off,
    }
    for code in (code for code, holds in told.items() if holds):
        message = _MESSAGES[code].format(width=width, height=height)
        yield UploadWarning(accepted.image.id, accepted.image.filename, code, message)


def _store_pictures(folder: Path, batch: Sequence[_Accepted]) -> None:
    for accepted in batch:
        name = f"{accepted.image.id}{stored_suffix(accepted.picture)}"
        write_file(folder / name, accepted.content)
        accepted.image.file = name


def _forget_pictures(folder: Path, images: Sequence[GalleryImage]) -> None:
    for image in images:
        if image.file is not None:
            delete_file(folder / image.file)


def _readable(filename: str) -> str:
    """The file's name without folders and characters that cannot be shown, not too long."""
    shown = normal_label("".join(character for character in filename if character.isprintable()))
    return shown.replace("\\", "/").rpartition("/")[2][-_MAX_FILENAME:] or "picture"


def _total_bytes(uploads: Sequence[Upload]) -> int:
    return sum(upload.file.seek(0, 2) - upload.file.seek(0) for upload in uploads)


def _nothing_accepted(uploads: Sequence[Upload], rejected: Sequence[tuple[str, Problem]]) -> Problem:
    first = rejected[0][1]
    return Problem(
        first.slug,
        f"none of the {len(uploads)} files was accepted; the first: {first.detail}",
        hint=first.hint,
        errors=[Fault(f"/files/{place}", problem.slug, problem.detail) for place, (_, problem) in enumerate(rejected)],
    )
