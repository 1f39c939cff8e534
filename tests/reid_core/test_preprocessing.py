"""Images come upright and in RGB whatever their file is like, and take no more memory than was said before."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from reid_core.data.preprocessing import Preprocessing, decode, decoding_bytes, open_image, preprocessing_from_json
from reid_core.data.tensors import normalise
from reid_core.errors import ImageError, ImageTooLarge

ORIENTATION = 274
OPAQUE_MODES = ("RGB", "L", "P", "1", "CMYK", "YCbCr")
"""The others have rules of their own: see tests of `to_rgb`."""
MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "I;16", "F")
SAVED_AS = {
    "PNG": {},
    "BMP": {},
    "JPEG": {},
    "progressive JPEG": {"format": "JPEG", "progressive": True, "subsampling": 0},
    "TIFF": {},
    "packed TIFF": {"format": "TIFF", "compression": "tiff_lzw"},
    "WEBP": {},
    "lossless WEBP": {"format": "WEBP", "lossless": True, "method": 0},
}


@pytest.mark.parametrize("kind", SAVED_AS)
def test_an_image_is_what_pillow_makes_of_it_upright_and_in_rgb(kind: str) -> None:
    checked = 0
    for mode in OPAQUE_MODES:
        for orientation in range(9):
            content = saved(make_image(mode, (53, 37)), kind, orientation)
            if content is None:
                continue
            with Image.open(io.BytesIO(content)) as image:
                expected = ImageOps.exif_transpose(image).convert("RGB")
            opened = open_image(content)
            assert (opened.mode, opened.size) == ("RGB", expected.size)
            assert opened.tobytes() == expected.tobytes(), f"{mode}, orientation {orientation}"
            checked += 1
    assert checked >= 18


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak of a process's memory")
@pytest.mark.parametrize("kind", SAVED_AS)
def test_decoding_takes_no_more_memory_than_said(kind: str) -> None:
    for mode in MODES:
        for orientation in (0, 6):
            content = saved(Image.new(mode, (2500, 2500)), kind, orientation)
            if content is None:
                continue
            said = decoding_bytes(content)
            before = forget_peak()
            opened = open_image(content)
            taken = memory("VmHWM") - before
            opened.close()
            assert taken <= said + 16 * 1024**2, f"{mode}, orientation {orientation}"


def test_the_header_tells_format_and_faults() -> None:
    content = saved(make_image("RGB", (20, 10)), "JPEG", 0)
    assert content is not None
    assert decode(content).format == "JPEG"
    for ask in (open_image, decoding_bytes):
        with pytest.raises(ImageTooLarge, match="the query has 20 x 10 pixels; at most 199"):
            ask(content, max_pixels=199, name="the query")
        with pytest.raises(ImageError, match="is not an image"):
            ask(b"nothing")


def make_image(mode: str, size: tuple[int, int]) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    grey = mode in ("I;16", "F")
    return Image.fromarray(noise).convert("L").convert(mode) if grey else Image.fromarray(noise).convert(mode)


def saved(image: Image.Image, kind: str, orientation: int) -> bytes | None:
    """The file; None where the format does not take the mode."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = io.BytesIO()
    options = {"format": kind, **SAVED_AS[kind], **({"exif": exif} if orientation and kind != "BMP" else {})}
    try:
        image.save(file, **options)
    except OSError:
        return None
    return file.getvalue()


def forget_peak() -> int:
    """Makes the process's memory now its peak: its bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


CAFFE = Preprocessing(4, 2, mean=(102.98, 115.95, 122.77), std=(1.0, 1.0, 2.0), colour="BGR", range=(0, 255))


def test_channels_and_values_come_in_the_order_and_range_that_a_network_was_trained_with() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(3, 4, 2) * 10
    expected = (image[::-1] - np.reshape(CAFFE.mean, (3, 1, 1))) / np.reshape(CAFFE.std, (3, 1, 1))
    assert normalise(torch.from_numpy(image), CAFFE).numpy() == pytest.approx(expected, rel=1e-6)


def test_a_stored_preprocessing_is_read_as_it_was_written_and_earlier_ones_as_they_were_meant() -> None:
    for written in (CAFFE, Preprocessing(4, 2)):
        assert preprocessing_from_json(written.as_json()) == written
    earlier = {"height": 4, "width": 2, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert preprocessing_from_json(earlier | {"interpolation": "bilinear"}) == Preprocessing(4, 2)
    assert Preprocessing(4, 2).as_json() | {"colour": "RGB", "range": [0, 1]} == Preprocessing(4, 2).as_json()
