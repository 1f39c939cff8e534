"""The bodies and answers of the routes of a gallery's images."""

from __future__ import annotations

from typing import Protocol

from pydantic import Field

from service.db.tables import GalleryImage
from service.schemas import Answer, Body, CaptureTime, ContentLinks, Key, Label, Omittable, ProblemAnswer, Time, example


class IdentityBody(Body):
    """A person, by the label that the images have."""

    identity: Label


class ImageDetails(Body):
    """The metadata of an uploaded image."""

    camera: Label | None = None
    captured_at: CaptureTime | None = None
    identity: Label | None = None
    external_id: Key | None = None


class GalleryImageAnswer(Answer):
    """An image of a gallery."""

    id: str
    gallery: str
    identity: str | None
    camera: str | None
    captured_at: Time | None
    external_id: str | None
    filename: str
    sha256: str
    width: int
    height: int
    dataset_image: str | None = Field(description="the data set's image that it is; null for an uploaded one")
    added_revision: int
    created_at: Time
    links: ContentLinks

    @classmethod
    def of(cls, image: GalleryImage, prefix: str = "") -> GalleryImageAnswer:
        """The image as clients see it; `prefix` is put before links."""
        here = image_link(image, prefix)
        return cls(
            id=image.id,
            gallery=image.gallery_id,
            identity=image.identity,
            camera=image.camera,
            captured_at=image.captured_at,
            external_id=image.external_id,
            filename=image.filename,
            sha256=image.sha256,
            width=image.width,
            height=image.height,
            dataset_image=image.dataset_image_id,
            added_revision=image.added_revision,
            created_at=image.created_at,
            links=ContentLinks(self=here, content=content_link(image, prefix)),
        )


class Linked(Protocol):
    """An image of a gallery, by the columns that its addresses are made from."""

    @property
    def id(self) -> str: ...

    @property
    def gallery_id(self) -> str: ...

    @property
    def file(self) -> str | None: ...

    @property
    def dataset_image_id(self) -> str | None: ...


def image_link(image: Linked, prefix: str) -> str:
    """The address of the image."""
    return f"{prefix}/galleries/{image.gallery_id}/images/{image.id}"


def content_link(image: Linked, prefix: str) -> str | None:
    """The address of the image's file; None where none is kept."""
    has_file = image.file is not None or image.dataset_image_id is not None
    return f"{image_link(image, prefix)}/content" if has_file else None


class ImageLink(Answer):
    """The link of an image."""

    image: str


class SkippedImage(Answer):
    """A file that was left out; `image` is the one that stands under its external id."""

    image: str
    filename: str
    links: ImageLink


class AddedImage(Answer):
    """A file that was added as `image`, in the place of those that it `replaces`."""

    image: str
    filename: str
    replaces: list[str]
    links: ImageLink


class RejectedFile(Answer):
    """A file that was not added, and why."""

    filename: str
    problem: ProblemAnswer


class UploadWarning(Answer):
    """An image that was added though it may not be what was meant; `code` is a stable word."""

    image: str
    filename: str
    code: str
    message: str


class UploadAnswer(Answer):
    """The outcome of an upload, file by file, and the gallery's revision after it."""

    model_config = example(
        added=[
            {
                "image": "img_01jb2c3d4e5f6g7h8j9k0m1n2p",
                "filename": "0002_c1.jpg",
                "replaces": [],
                "links": {"image": "/galleries/gal_01…/images/img_01…"},
            }
        ],
        skipped=[],
        rejected=[],
        warnings=[],
        revision=8,
    )

    added: list[AddedImage]
    skipped: list[SkippedImage]
    rejected: list[RejectedFile]
    warnings: list[UploadWarning]
    revision: int


class RemovedCounts(Answer):
    """The numbers of things that were removed."""

    images: int
    vectors: int
    pictures: int
    local_features: int
    rows: int
    indexes: int
    cluster_entries: int = Field(description="in proposed persons")
    feedback: int


class LeftInPlace(Answer):
    """A data set that erased images came from, or were copied to with feedback, and how many still lie in it."""

    dataset: str
    name: str
    pictures: int


class Remaining(Answer):
    """A remainder that stays for a time; `until` is null for one that is removed as soon as it can be."""

    what: str
    until: Time | None


class LookAlike(Answer):
    """Another label that a person would take for the erased one."""

    identity: str
    images: int


class ReceiptAnswer(Answer):
    """The receipt of an erasure: what it removed and what it did not; labels stand in it by their SHA-256 only."""

    model_config = example(
        identity_sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        gallery="gal_01jb2c3d4e5f6g7h8j9k0m1n2p",
        revision=9,
        erased_at="2026-01-31T12:00:00Z",
        removed={
            "images": 3,
            "vectors": 3,
            "pictures": 3,
            "local_features": 0,
            "rows": 3,
            "indexes": 0,
            "cluster_entries": 0,
            "feedback": 1,
        },
        left_in_place=[],
        remaining=[],
        look_alikes=[],
    )

    external_id_sha256: Omittable[str] = None
    identity_sha256: Omittable[str] = None
    camera_sha256: Omittable[str] = None
    captured_after: Omittable[str] = Field(default=None, description="of images erased by their time")
    captured_before: Omittable[str] = None
    gallery: str
    revision: int
    erased_at: Time
    removed: RemovedCounts
    left_in_place: list[LeftInPlace]
    remaining: list[Remaining]
    look_alikes: list[LookAlike]
