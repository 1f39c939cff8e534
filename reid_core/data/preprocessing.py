"""How a picture becomes a network's input; part of every model's manifest and written nowhere else."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from reid_core.errors import PictureError, PictureTooLarge
from reid_core.settings import TrainingSettings

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_PIXELS = 64_000_000
PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""What is decoded. Not all that Pillow knows: an EPS file, say, would start an interpreter."""

_PEAK_BYTES_PER_PIXEL = {"PNG": 8, "BMP": 8, "JPEG": 12, "MPO": 12, "TIFF": 12, "WEBP": 16}
"""Measured with Pillow 13 over all modes: the decoder's own buffers and one copy, by a conversion or a turn."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Resize to height x width, scale to [0, 1], subtract mean and divide by std per RGB channel.

    With `flip_average` a picture's embedding is the mean of its own and its mirror image's: see `Encoder`.
    """

    height: int
    width: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"
    flip_average: bool = False

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"colour": "RGB", "range": [0, 1], "layout": "NCHW"}


def preprocessing_of(settings: TrainingSettings) -> Preprocessing:
    """The preprocessing that a network of these settings is trained with."""
    plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)} if settings.normalisation == "none" else {}
    size, interpolation, flip_average = settings.image, settings.interpolation, settings.flip_average
    return Preprocessing(size.height, size.width, interpolation=interpolation, flip_average=flip_average, **plain)


def preprocessing_from_json(value: dict[str, Any]) -> Preprocessing:
    """The preprocessing that a manifest holds."""
    return Preprocessing(
        height=value["height"],
        width=value["width"],
        mean=tuple(value["mean"]),
        std=tuple(value["std"]),
        interpolation=value["interpolation"],
        flip_average=value.get("flip_average", False),  # manifests of earlier versions do not say
    )


def open_picture(source: Path | bytes, *, max_pixels: int = MAX_PIXELS, name: str = "the picture") -> Image.Image:
    """The decoded RGB picture, turned upright as its EXIF orientation says.

    `name` is what messages call it; a file goes by its own.

    Raises:
        PictureTooLarge: it has more than `max_pixels`.
        PictureError: the file cannot be read, is no picture or is truncated.
    """
    with _opened(source, max_pixels, name) as image:
        image.load()
        # No copy that is not needed: each takes four bytes a pixel.
        ImageOps.exif_transpose(image, in_place=True)
        return image if image.mode == "RGB" else image.convert("RGB")


def picture_format(source: Path | bytes, *, max_pixels: int = MAX_PIXELS, name: str = "the picture") -> str:
    """Pillow's word for the file's format, by its header; raises as `open_picture` does, where the header shows it."""
    with _opened(source, max_pixels, name) as image:
        return image.format or ""


def decoding_bytes(source: Path | bytes, *, max_pixels: int = MAX_PIXELS, name: str = "the picture") -> int:
    """The memory that `open_picture` takes at its peak, at most, by the file's header; raises as `picture_format`."""
    with _opened(source, max_pixels, name) as image:
        return image.width * image.height * _PEAK_BYTES_PER_PIXEL[image.format or ""]


@contextmanager
def _opened(source: Path | bytes, max_pixels: int, name: str) -> Iterator[Image.Image]:
    """The picture with its header read; what goes wrong with it inside is told in our words."""
    name = source.name if isinstance(source, Path) else name
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=PICTURE_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise _too_large(f"{name} has {image.width} x {image.height} pixels", max_pixels)
            yield image
    except UnidentifiedImageError as error:
        raise PictureError(f"{name} is not a picture.", hint="JPEG, PNG, WebP, BMP and TIFF are read.") from error
    except Image.DecompressionBombError as error:
        raise _too_large(f"{name} has more pixels than any picture may have", max_pixels) from error
    except (OSError, ValueError, SyntaxError) as error:
        raise PictureError(f"{name} cannot be decoded: {error}.", hint="Save it again as JPEG or PNG.") from error


def _too_large(what: str, max_pixels: int) -> PictureTooLarge:
    return PictureTooLarge(
        f"{what}; at most {max_pixels:,} are decoded.",
        hint="Send a crop of one person, or raise REID_MAX_IMAGE_PIXELS.",
    )


def resize(image: Image.Image, preprocessing: Preprocessing) -> Tensor:
    """(3, H, W) uint8 RGB."""
    method = Image.Resampling[preprocessing.interpolation.upper()]
    resized = image.resize((preprocessing.width, preprocessing.height), method)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def normalise(pictures: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(..., 3, H, W) uint8 to float32: scaled to [0, 1], less the mean, over the standard deviation."""
    mean = torch.tensor(preprocessing.mean, device=pictures.device).view(3, 1, 1)
    std = torch.tensor(preprocessing.std, device=pictures.device).view(3, 1, 1)
    return (pictures.float() / 255 - mean) / std
