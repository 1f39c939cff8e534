"""Image files to what a gallery keeps of them, as every way into it does it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from PIL import Image

from reid_core.data.preprocessing import open_image
from reid_core.errors import ImageError
from service.db.tables import Gallery
from service.galleries.files import Features, join_features
from service.settings import Settings

if TYPE_CHECKING:  # the API answers before PyTorch is loaded
    from torch import Tensor

    from reid_core.retrieval.encoder import Encoding

BATCH_SIZE = 32
_DECODERS = 4

Prepared = tuple["Tensor", ...]
"""An image in the size of every network that is to see it, each (3, H, W) uint8."""


class ImageEncoder(Protocol):
    """An encoder of images: `reid_core`'s, or one that shares its batches with other requests."""

    def prepare(self, image: Image.Image) -> Tensor:
        """(3, H, W) uint8."""
        ...

    def encode_prepared(self, images: Tensor, *, with_maps: bool = False) -> Encoding:
        """Encodes images (N, 3, H, W) uint8."""
        ...


EncoderFor = Callable[[str], ImageEncoder]
"""The encoder of the model with that id."""


@dataclass(frozen=True, slots=True)
class GalleryEncoder:
    """Images to what a gallery keeps of them: vectors by `embedder`, maps by `matcher` where it keeps those.

    One pass gives both where the two are the same object.
    """

    embedder: ImageEncoder
    matcher: ImageEncoder | None

    def prepare(self, image: Image.Image) -> Prepared:
        """The decoded image, to be encoded."""
        return tuple(network.prepare(image) for network in self._networks)

    def encode(self, images: Sequence[Prepared]) -> Features:
        """Encodes at least one image, a batch at a time, to the features that the gallery keeps."""
        batches = [images[start : start + BATCH_SIZE] for start in range(0, len(images), BATCH_SIZE)]
        return join_features([self._encode_batch(batch) for batch in batches])

    @property
    def _networks(self) -> tuple[ImageEncoder, ...]:
        if self.matcher is None or self.matcher is self.embedder:
            return (self.embedder,)
        return (self.embedder, self.matcher)

    def _encode_batch(self, images: Sequence[Prepared]) -> Features:
        import torch

        encodings = [
            network.encode_prepared(torch.stack(inputs), with_maps=network is self.matcher)
            for network, inputs in zip(self._networks, zip(*images, strict=True), strict=True)
        ]
        vectors, maps = encodings[0].embeddings.numpy(), encodings[-1].maps
        return (vectors,) if maps is None else (vectors, maps.flatten(1, 2).numpy())


def gallery_encoder(gallery: Gallery, encoder_for: EncoderFor) -> GalleryEncoder:
    """The encoder of images for `gallery`."""
    embedder, matcher = encoder_for(gallery.model_id), None
    if gallery.reranker_id is not None:
        matcher = embedder if gallery.reranker_id == gallery.model_id else encoder_for(gallery.reranker_id)
    return GalleryEncoder(embedder, matcher)


@dataclass(frozen=True, slots=True)
class ReadImage:
    """An image from a file: ready to be encoded, the file's hash, width and height in pixels."""

    prepared: Prepared
    sha256: str
    width: int
    height: int


Row = TypeVar("Row")


def read_ahead(
    pages: Iterable[tuple[Sequence[Row], Sequence[Path | None]]], encoder: GalleryEncoder, settings: Settings
) -> Generator[tuple[Sequence[Row], list[ReadImage | None]], None, None]:
    """Rows of each page with the images of their paths; None for one that cannot be read.

    The next page is read and decoded while the caller works on one, as it may while the network runs.
    """

    def read(path: Path | None) -> ReadImage | None:
        try:
            return None if path is None else _read(path.read_bytes(), encoder, settings)
        except (ImageError, OSError):
            return None

    with ThreadPoolExecutor(_DECODERS, "decoding") as pool:
        started = ((rows, [pool.submit(read, path) for path in paths]) for rows, paths in pages)
        following = pool.submit(next, started, None)
        try:
            while (current := following.result()) is not None:
                following = pool.submit(next, started, None)
                rows, reading = current
                yield rows, [image.result() for image in reading]
        finally:
            pool.shutdown(cancel_futures=True)


def _read(content: bytes, encoder: GalleryEncoder, settings: Settings) -> ReadImage:
    image = open_image(content, max_pixels=settings.max_image_pixels)
    digest = hashlib.sha256(content).hexdigest()
    return ReadImage(encoder.prepare(image), digest, image.width, image.height)
