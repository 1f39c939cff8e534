"""Preprocessing: turns an image into a network's input; part of every model's manifest and written nowhere else.

This is the half that needs no PyTorch: registrations open images too. The other half is `reid_core.data.tensors`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image, ImageOps, UnidentifiedImageError

from reid_core.data.colours import to_rgb
from reid_core.data.file_types import READ_TYPES, name_unread
from reid_core.errors import ImageError, ImageTooLarge

if TYPE_CHECKING:
    from reid_core.settings import TrainingSettings

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NO_NORMALISATION = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""Mean and standard deviation of a network that sees plain values."""

Colour = Literal["RGB", "BGR"]
ValueRange = tuple[Literal[0], Literal[1, 255]]
"""The values of black and white, before mean and standard deviation."""

MAX_PIXELS = 64_000_000
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")
"""The types that are decoded. Not all that Pillow knows: an EPS file, say, would start an interpreter."""

_PEAK_BYTES_PER_PIXEL = dict.fromkeys(IMAGE_FORMATS, 16) | {"MPO": 16, "TIFF": 20, "WEBP": 28, "AVIF": 28}
"""Measured with Pillow 13 over all modes: the decoder's own buffers, and the copies by a conversion and a turn."""

_JPEG = b"\xff\xd8\xff"
_END_OF_JPEG = b"\xff\xd9"
_MOST_BYTES_PER_PIXEL = 16
"""The most bytes per pixel of a file that is read into memory before anything is known of it."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Resize to height x width, channels in the order of `colour`, scale to `range`, subtract mean and divide by std.

    `mean` and `std` are in the order of `colour` and the unit of `range`. With `flip_average` an image's embedding is
    the mean of its own and its mirror image's: see `Encoder`.
    """

    height: int
    width: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"
    flip_average: bool = False
    colour: Colour = "RGB"
    range: ValueRange = (0, 1)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"range": list(self.range), "layout": "NCHW"}


def preprocessing_of(settings: TrainingSettings) -> Preprocessing:
    """The preprocessing that a network of these settings is trained with."""
    mean, std = NO_NORMALISATION if settings.normalisation == "none" else (IMAGENET_MEAN, IMAGENET_STD)
    size, interpolation, flip_average = settings.image, settings.interpolation, settings.flip_average
    return Preprocessing(size.height, size.width, mean, std, interpolation, flip_average)


def settings_of(preprocessing: Preprocessing) -> dict[str, Any]:
    """The settings by which `preprocessing_of` comes as close to it as any of ours can."""
    plain = (preprocessing.mean, preprocessing.std) == NO_NORMALISATION
    return {
        "image": {"height": preprocessing.height, "width": preprocessing.width},
        "normalisation": "none" if plain else "imagenet",
        "interpolation": preprocessing.interpolation,
    }


def preprocessing_from_json(value: dict[str, Any]) -> Preprocessing:
    """The preprocessing that a manifest holds."""
    return Preprocessing(
        height=value["height"],
        width=value["width"],
        mean=tuple(value["mean"]),
        std=tuple(value["std"]),
        interpolation=value["interpolation"],
        flip_average=value.get("flip_average", False),  # manifests of earlier versions do not say
        colour=value.get("colour", "RGB"),
        range=(0, 255) if value.get("range") == [0, 255] else (0, 1),
    )


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded image and what a person should know of its file.

    Attributes:
        image: 8-bit RGB, upright.
        format: Pillow's word for the file's type, e.g. "JPEG".
        animated: the file holds several images; the first is taken.
        cut_off: the end of a JPEG file is missing; what is missing is grey, as browsers show it.
    """

    image: Image.Image
    format: str
    animated: bool = False
    cut_off: bool = False


def open_image(source: Path | bytes, *, max_pixels: int = MAX_PIXELS, name: str = "the image") -> Image.Image:
    """The image as every network sees it: see `decode`, whose arguments and errors it has."""
    return decode(source, max_pixels=max_pixels, name=name).image


def decode(source: Path | bytes, *, max_pixels: int = MAX_PIXELS, name: str = "the image") -> Decoded:
    """The 8-bit RGB image (`to_rgb`), turned upright as its EXIF orientation says; of several in a file the first.

    `name` is what messages call it; a file goes by its own.

    Raises:
        ImageTooLarge: it has more than `max_pixels`.
        ImageError: the file cannot be read, is no image, of a type that is not read, or damaged.
    """
    content, name = _content(source, max_pixels, name)
    try:
        return _decode(content, max_pixels, name)
    except ImageError as error:
        if not content.startswith(_JPEG) or isinstance(error, ImageTooLarge):
            raise
        try:
            return replace(_decode(content + _END_OF_JPEG, max_pixels, name), cut_off=True)
        except ImageError:
            raise error from None


def read_image_file(path: Path, *, max_pixels: int = MAX_PIXELS) -> bytes:
    """The file's bytes.

    Raises:
        ImageTooLarge: it has more bytes than any image of `max_pixels`.
        ImageError: it is not there, or may not be read.
    """
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES_PER_PIXEL * max_pixels:
            raise ImageTooLarge(f"{path.name} has {size:,} bytes.", hint="Send a crop of one person.")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path.name} cannot be read: {error.strerror}.", hint="Put the file back.") from error


def decoding_bytes(source: Path | bytes, *, max_pixels: int = MAX_PIXELS, name: str = "the image") -> int:
    """The memory that `decode` takes at its peak, at most, by the file's header; raises as it does where that shows."""
    content, name = _content(source, max_pixels, name)
    with _opened(content, max_pixels, name) as image:
        return image.width * image.height * _PEAK_BYTES_PER_PIXEL[image.format or ""]


def _content(source: Path | bytes, max_pixels: int, name: str) -> tuple[bytes, str]:
    """The file's bytes, and what messages call it."""
    if isinstance(source, Path):
        return read_image_file(source, max_pixels=max_pixels), source.name
    return source, name


def _decode(content: bytes, max_pixels: int, name: str) -> Decoded:
    with _opened(content, max_pixels, name) as image:
        # A phone's MPO is one image with another of its depth.
        animated = image.format != "MPO" and getattr(image, "is_animated", False)
        image.load()
        # No copy that is not needed: each takes four bytes a pixel.
        ImageOps.exif_transpose(image, in_place=True)
        return Decoded(to_rgb(image), image.format or "", animated)


@contextmanager
def _opened(content: bytes, max_pixels: int, name: str) -> Iterator[Image.Image]:
    """The image with its header read; what goes wrong with it inside is told in our words."""
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise _too_large(f"{name} has {image.width} x {image.height} pixels", max_pixels)
            yield image
    except UnidentifiedImageError as error:
        raise _unread(content, name) from error
    except Image.DecompressionBombError as error:
        raise _too_large(f"{name} has more pixels than any image may have", max_pixels) from error
    except ImageError as error:
        raise type(error)(
            error.detail if name in error.detail else f"{name}: {error.detail}", hint=error.hint
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise ImageError(f"{name} cannot be decoded: {error}.", hint="Save it again as JPEG or PNG.") from error


def _unread(content: bytes, name: str) -> ImageError:
    if not content:
        return ImageError(f"{name} is empty.", hint="Copy or download it again.")
    known = name_unread(content[:32])
    if known is None:
        return ImageError(f"{name} is not an image.", hint=READ_TYPES)
    return ImageError(f"{name} is {known[0]}, which is not read.", hint=f"{known[1]} {READ_TYPES}")


def _too_large(what: str, max_pixels: int) -> ImageTooLarge:
    return ImageTooLarge(
        f"{what}; at most {max_pixels:,} are decoded.",
        hint="Send a crop of one person, or raise REID_MAX_IMAGE_PIXELS.",
    )
