"""Images that come with a request: decoded, encoded, stored, and searchable when the request is answered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from sqlalchemy.orm import Session

from reid_core.data.labels import normal_label
from reid_core.data.preprocessing import Decoded
from reid_core.errors import CoreError, Fault
from service.db import audit
from service.db.ids import new_ids
from service.db.lookup import find
from service.db.session import Database
from service.db.tables import Gallery, GalleryImage
from service.decoding import Decoder
from service.errors import Problem, problem_from_core
from service.galleries.conflicts import OnConflict, find_known, resolve
from service.galleries.encoding import BATCH_SIZE, EncoderFor, GalleryEncoder, Prepared, gallery_encoder
from service.galleries.files import Features, feature_bytes, join_features
from service.galleries.image_files import image_folder, stored_suffix
from service.galleries.image_schemas import ImageDetails, UploadWarning
from service.galleries.images import append_to
from service.galleries.lifecycle import lock_gallery
from service.galleries.removal import remove_erased
from service.galleries.retention import clear_staging
from service.galleries.staging import new_staging_folder
from service.galleries.withdrawal import withdraw
from service.settings import Settings
from service.storage import claim, ensure_free_space, link_files, write_file

_MAX_FILENAME = 200

_LARGEST_CROP_PIXELS = 2_000_000
"""Crops of persons from 4K video have less."""

_MESSAGES = {
    "whole-frame": "{width} x {height} pixels looks like a whole frame; images are compared as crops of one person",
    "first-of-several": "the file holds several images; the first was taken",
    "cut-off": "the end of the file is missing; what is missing is grey",
}


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a request, with the name that the client gave it and what it told of it."""

    filename: str
    file: BinaryIO
    details: ImageDetails


@dataclass(frozen=True, slots=True)
class Addition:
    """The outcome of an upload.

    Attributes:
        added: image id, file name, and the ids of the images in whose place it came.
        skipped: file name, and the id of the image that stands under its external id.
        rejected: file name, and why.
        warnings: what a person should look at among those added.
    """

    gallery_id: str
    added: list[tuple[str, str, list[str]]]
    skipped: list[tuple[str, str]]
    rejected: list[tuple[str, Problem]]
    warnings: list[UploadWarning]
    revision: int


@dataclass(frozen=True, slots=True)
class _Accepted:
    image: GalleryImage
    content: bytes
    suffix: str
    prepared: Prepared
    warnings: tuple[UploadWarning, ...]


def add_uploads(
    database: Database,
    settings: Settings,
    gallery_key: str,
    uploads: Sequence[Upload],
    encoder_for: EncoderFor,
    decoder: Decoder,
    *,
    on_conflict: OnConflict = "add",
    key_id: str | None = None,
) -> Addition:
    """Adds every file that is an image; they are found by the next search.

    `on_conflict` says what becomes of one whose external id the gallery has already; an image that is replaced is
    erased in the transaction that adds the new one.

    Raises:
        Problem: 404 for an unknown gallery, 507 without disk space; where not one file is accepted, the first one's
            problem, with all of them under `errors`.
    """
    with database.read() as session:
        gallery = find(session, Gallery, gallery_key)
        needed = _total_bytes(uploads) + len(uploads) * feature_bytes(session, gallery)
        skipped, uploads = _split_off_known(session, gallery, uploads) if on_conflict == "skip" else ([], uploads)
    ensure_free_space(settings.galleries_dir, needed_bytes=needed, min_free_bytes=settings.min_free_bytes)
    folder = new_staging_folder(settings, gallery.id)
    rejected: list[tuple[str, Problem]] = []
    images: list[GalleryImage] = []
    warnings: list[UploadWarning] = []
    features: list[Features] = []
    try:
        with claim(folder):
            encoder = gallery_encoder(gallery, encoder_for)
            for batch in _accepted_batches(uploads, settings, encoder, decoder, rejected):
                images += [accepted.image for accepted in batch]
                warnings += [warning for accepted in batch for warning in accepted.warnings]
                if gallery.keep_images:
                    _stage_images(folder, batch)
                features.append(encoder.encode([accepted.prepared for accepted in batch]))
            if rejected and not images and not skipped:
                raise _nothing_accepted(uploads, rejected)
            addition = _add(database, settings, gallery.id, images, features, folder, on_conflict, key_id)
    except BaseException:
        clear_staging(database, settings, gallery.id, folder)
        raise
    if any(replaced for _, _, replaced in addition.added):
        remove_erased(database, settings, gallery.id)
    kept = {image_id for image_id, *_ in addition.added}
    warnings = [warning for warning in warnings if warning.image in kept]
    return replace(addition, skipped=skipped + addition.skipped, rejected=rejected, warnings=warnings)


def _split_off_known(
    session: Session, gallery: Gallery, uploads: Sequence[Upload]
) -> tuple[list[tuple[str, str]], list[Upload]]:
    """Splits off the uploads whose external id the gallery has, as in `Addition.skipped`: they need no decoding."""
    known = find_known(session, gallery.id, [upload.details.external_id for upload in uploads])
    skipped = [
        (_readable(upload.filename), known[upload.details.external_id][-1].id)
        for upload in uploads
        if upload.details.external_id in known
    ]
    return skipped, [upload for upload in uploads if upload.details.external_id not in known]


def _add(
    database: Database,
    settings: Settings,
    gallery_id: str,
    images: Sequence[GalleryImage],
    features: Sequence[Features],
    folder: Path,
    on_conflict: OnConflict,
    key_id: str | None,
) -> Addition:
    """The one transaction by which an upload comes in; its images lie in `folder`."""
    with database.write() as session:
        gallery = lock_gallery(session, gallery_id)
        plan = resolve(session, gallery_id, images, on_conflict)
        if replaced := [image for old in plan.replaced.values() for image in old]:
            withdraw(session, gallery, replaced)
            audit.record(
                session, key_id=key_id, action="gallery.replace_images", target=gallery_id, images=len(replaced)
            )
        added = [images[number] for number in plan.added]
        if added:
            if files := [image.file for image in added if image.file is not None]:
                link_files(folder, files, image_folder(settings, gallery_id))
            chosen = tuple(column[plan.added] for column in join_features(features))
            append_to(session, settings, gallery, added, chosen)
        return Addition(
            gallery_id,
            added=[
                (images[number].id, images[number].filename, [old.id for old in plan.replaced.get(number, ())])
                for number in plan.added
            ],
            skipped=[(images[number].filename, stands) for number, stands in plan.skipped.items()],
            rejected=[],
            warnings=[],
            revision=gallery.revision,
        )


def _accepted_batches(
    uploads: Sequence[Upload],
    settings: Settings,
    encoder: GalleryEncoder,
    decoder: Decoder,
    rejected: list[tuple[str, Problem]],
) -> Iterator[list[_Accepted]]:
    """Batches of the files that are images; the others are noted in `rejected`."""
    batch: list[_Accepted] = []
    for image_id, upload in zip(new_ids("img", len(uploads)), uploads, strict=True):
        name = _readable(upload.filename)
        try:
            batch.append(_accept(image_id, name, upload, settings, encoder, decoder))
        except Problem as problem:
            rejected.append((name, problem))
        except CoreError as error:
            rejected.append((name, problem_from_core(error)))
        if len(batch) == BATCH_SIZE:
            yield batch
            batch = []
    if batch:
        yield batch


def _accept(
    image_id: str, name: str, upload: Upload, settings: Settings, encoder: GalleryEncoder, decoder: Decoder
) -> _Accepted:
    content = upload.file.read(settings.max_picture_bytes + 1)
    with decoder.opened(content, name) as decoded:
        image = GalleryImage(
            id=image_id,
            filename=name,
            sha256=hashlib.sha256(content).hexdigest(),
            width=decoded.image.width,
            height=decoded.image.height,
            **dict(upload.details),
        )
        warnings = tuple(_warnings(image, decoded))
        return _Accepted(image, content, stored_suffix(decoded), encoder.prepare(decoded.image), warnings)


def _warnings(image: GalleryImage, decoded: Decoded) -> Iterator[UploadWarning]:
    width, height = decoded.image.size
    doubts = {
        "whole-frame": width > height or width * height > _LARGEST_CROP_PIXELS,
        "first-of-several": decoded.animated,
        "cut-off": decoded.cut_off,
    }
    for code in (code for code, holds in doubts.items() if holds):
        message = _MESSAGES[code].format(width=width, height=height)
        yield UploadWarning(image=image.id, filename=image.filename, code=code, message=message)


def _stage_images(folder: Path, batch: Sequence[_Accepted]) -> None:
    for accepted in batch:
        name = f"{accepted.image.id}{accepted.suffix}"
        write_file(folder / name, accepted.content)
        accepted.image.file = name


def _readable(filename: str) -> str:
    """The file's name without folders and characters that cannot be shown, not too long."""
    name = normal_label("".join(character for character in filename if character.isprintable()))
    return name.replace("\\", "/").rpartition("/")[2][-_MAX_FILENAME:] or "picture"


def _total_bytes(uploads: Sequence[Upload]) -> int:
    return sum(upload.file.seek(0, 2) - upload.file.seek(0) for upload in uploads)


def _nothing_accepted(uploads: Sequence[Upload], rejected: Sequence[tuple[str, Problem]]) -> Problem:
    first = rejected[0][1]
    return Problem(
        first.slug,
        f"None of the {len(uploads)} files was accepted; the first: {first.detail}",
        hint=first.hint,
        headers=first.headers,
        errors=[Fault(f"/files/{place}", problem.slug, problem.detail) for place, (_, problem) in enumerate(rejected)],
    )
