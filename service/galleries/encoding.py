"""Picture files to embeddings, as every way into a gallery does it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from reid_core.data.preprocessing import open_picture
from reid_core.errors import PictureError
from service.settings import Settings

BATCH_SIZE = 32
_DECODERS = 4


class PictureEncoder(Protocol):
    """What embeds pictures: a `reid_core` Encoder, or one that shares its batches with other requests."""

    def prepare(self, image: Image.Image) -> Tensor:
        """(3, H, W) uint8."""
        ...

    def embed_prepared(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 to (N, D) float32 of unit length."""
        ...


EncoderFor = Callable[[str], PictureEncoder]
"""The encoder of the model with that id."""


@dataclass(frozen=True, slots=True)
class ReadPicture:
    """A picture from a file: ready to be embedded, the file's hash, width and height in pixels."""

    prepared: Tensor
    sha256: str
    width: int
    height: int


def read_pictures(
    paths: Sequence[Path | None], encoder: PictureEncoder, settings: Settings
) -> list[ReadPicture | None]:
    """The pictures of `paths` in their order; None for one that cannot be read."""

    def read(path: Path | None) -> ReadPicture | None:
        try:
            return None if path is None else _read(path.read_bytes(), encoder, settings)
        except (PictureError, OSError):
            return None

    with ThreadPoolExecutor(_DECODERS) as pool:
        return list(pool.map(read, paths))


def embed_all(encoder: PictureEncoder, prepared: Sequence[Tensor]) -> NDArray[np.float32]:
    """Embeddings (N, D) of at least one prepared picture, a batch at a time."""
    batches = [torch.stack(list(prepared[start : start + BATCH_SIZE])) for start in range(0, len(prepared), BATCH_SIZE)]
    embeddings: NDArray[np.float32] = torch.cat([encoder.embed_prepared(batch) for batch in batches]).numpy()
    return embeddings


def _read(content: bytes, encoder: PictureEncoder, settings: Settings) -> ReadPicture:
    picture = open_picture(content, max_pixels=settings.max_image_pixels)
    digest = hashlib.sha256(content).hexdigest()
    return ReadPicture(encoder.prepare(picture), digest, picture.width, picture.height)
