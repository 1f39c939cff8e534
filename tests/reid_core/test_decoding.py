"""Images as a person sees them: every mode of Pillow, every type that is read, and words for those that are not."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reid_core.data.colours import PADDING_COLOUR, scale_grey, to_rgb
from reid_core.data.preprocessing import IMAGE_FORMATS, IMAGENET_MEAN, decode, open_image, preprocessing_of
from reid_core.errors import ImageError, ImageTooLarge
from reid_core.methods import METHODS
from reid_core.retrieval.encoder import Encoder, torch_encoder
from reid_core.settings import override

SIZE = (32, 64)
GREY = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
XYZ_D50_TO_SRGB = [
    [3.1338561, -1.6168667, -0.4906146],
    [-0.9787684, 1.9161415, 0.0334540],
    [0.0719453, -0.2289914, 1.4052427],
]
DOCUMENT = Path(__file__).parents[2] / "docs/images.md"


def colourful(seed: int = 0) -> Image.Image:
    """Coloured stripes from dark to bright."""
    colours = np.random.default_rng(seed).integers(0, 256, (8, 1, 3), dtype=np.uint8)
    return Image.fromarray(np.repeat(colours, SIZE[1] // 8, axis=0).repeat(SIZE[0], axis=1))


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """The RGB image in that mode, as Pillow converts it; in two steps where it does not in one."""
    if mode in ("La", "RGBa"):
        return image.convert("LA" if mode == "La" else "RGBA").convert(mode)
    if mode in ("P", "PA"):
        return image.convert("P", palette=Image.Palette.ADAPTIVE).convert(mode)
    if mode.startswith("I;16"):
        return image.convert("L").convert("I;16") if mode == "I;16" else of_bytes(image, mode)
    return image.convert(mode)


def lab_by_formula(lab: np.ndarray) -> np.ndarray:
    """CIELAB (D50) to sRGB in levels of 8 bits, by the formulas of CIE 15 and IEC 61966-2-1."""
    lightness, a, b = lab[..., 0] / 2.55, lab[..., 1].view(np.int8) / 500, lab[..., 2].view(np.int8) / 200
    middle = (lightness + 16) / 116
    roots = np.stack([middle + a, middle, middle - b], axis=-1)
    xyz = np.where(roots > 6 / 29, roots**3, 3 * (6 / 29) ** 2 * (roots - 4 / 29)) * (0.96422, 1, 0.82521)
    linear = (xyz @ np.array(XYZ_D50_TO_SRGB).T).clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def of_bytes(image: Image.Image, mode: str) -> Image.Image:
    order = {"I;16B": ">u2", "I;16L": "<u2", "I;16N": "=u2"}[mode]
    return Image.frombytes(mode, image.size, np.asarray(image.convert("L")).astype(order).tobytes())


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    method = METHODS["bnneck"]
    chosen = override(method.recipe, {"backbone": "resnet18", "image": {"height": 64, "width": 32}})
    torch.manual_seed(0)
    return torch_encoder(method.build_network(chosen, 4), preprocessing_of(chosen), torch.device("cpu"), torch.float32)


def cosine(encoder: Encoder, one: Image.Image, other: Image.Image) -> float:
    first, second = encoder.embed([one, other])
    return float(first @ second)


@pytest.mark.parametrize("mode", Image.MODES)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_an_image_in_any_mode_is_the_same_image(mode: str, encoder: Encoder, seed: int) -> None:
    image = colourful(seed)
    expected = image.convert("L").convert("RGB") if mode in GREY else image
    expected = image.convert("1").convert("RGB") if mode == "1" else expected
    shown = to_rgb(in_mode(image, mode))
    assert np.abs(np.asarray(shown, np.int16) - np.asarray(expected, np.int16)).mean() < 3
    assert cosine(encoder, shown, expected) > 0.98


@given(seed=st.integers(0, 2**32 - 1))
def test_lab_is_converted_as_the_cie_defines_it(seed: int) -> None:
    lab = in_mode(colourful(seed), "LAB")
    assert np.abs(np.asarray(to_rgb(lab), np.float64) - lab_by_formula(np.asarray(lab))).max() <= 2


def test_every_mode_is_documented() -> None:
    modes = set(re.findall(r"`([^`]+)`", DOCUMENT.read_text(encoding="utf-8")))
    assert [mode for mode in Image.MODES if mode not in modes] == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 128, 255]], np.uint16), [0, 128, 255]),
        (np.array([[0, 2056, 4095]], np.uint16), [0, 128, 255]),
        (np.array([[0, 32896, 65535]], np.uint16), [0, 128, 255]),
        (np.array([[0, 257, 32896]], np.uint16), [0, 1, 128]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 127.6, 255.0]], np.float32), [0, 128, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[-5, 0, 100_000]], np.int32), [0, 0, 255]),
        (np.array([[70_000, 70_000]], np.int32), [0, 0]),
        (np.zeros((1, 2), np.float32), [0, 0]),
    ],
)
def test_grey_values_are_scaled_by_their_range(values: np.ndarray, expected: list[int]) -> None:
    assert scale_grey(values).tolist() == [expected]


def test_different_people_in_sixteen_bits_stay_different(encoder: Encoder) -> None:
    people = [np.asarray(colourful(seed).convert("L")).astype(np.uint16) * 257 for seed in range(4)]
    files = [encoded(Image.fromarray(person), "PNG") for person in people]
    first, *others = encoder.embed([open_image(file) for file in files])
    assert all(float(first @ other) < 0.999 for other in others)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused_by_name(value: float) -> None:
    file = encoded(Image.fromarray(np.full((4, 2), value, np.float32)), "TIFF")
    with pytest.raises(ImageError, match=r"depth\.tif: It holds values that are no numbers"):
        decode(file, name="depth.tif")


def test_nothing_shows_through_transparent_pixels() -> None:
    for mode, hidden in (("RGBA", (0, 0, 0, 0)), ("RGBA", (255, 255, 255, 0)), ("LA", (255, 0))):
        shown = open_image(encoded(Image.new(mode, (4, 8), hidden), "PNG"))
        assert np.array_equal(np.asarray(shown), np.full((8, 4, 3), PADDING_COLOUR))
    half = open_image(encoded(Image.new("RGBA", (1, 1), (224, 16, 104, 128)), "PNG")).getpixel((0, 0))
    assert np.allclose(half, (174, 66, 104), atol=1)
    keyed = encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert open_image(keyed).getpixel((0, 0)) == PADDING_COLOUR
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([9, 9, 9])
    assert open_image(encoded(palette, "PNG", transparency=0)).getpixel((0, 0)) == PADDING_COLOUR


def test_transparent_pixels_take_the_colour_that_networks_see_as_zero() -> None:
    assert tuple(round(255 * mean) for mean in IMAGENET_MEAN) == PADDING_COLOUR


@pytest.mark.parametrize("format", IMAGE_FORMATS)
def test_every_type_is_read_as_what_it_is(format: str, encoder: Encoder) -> None:
    image = decode(encoded(colourful(), format))
    assert (image.format, image.animated, image.cut_off) == (format, False, False)
    assert (image.image.mode, image.image.size) == ("RGB", SIZE)
    assert cosine(encoder, image.image, colourful()) > 0.98


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_of_several_images_the_first_is_taken_and_that_is_told(format: str) -> None:
    first, second = Image.new("RGB", SIZE, (200, 0, 0)), Image.new("RGB", SIZE, (0, 0, 200))
    image = decode(encoded(first, format, save_all=True, append_images=[second]))
    assert image.animated
    red, _, blue = image.image.getpixel((5, 5))
    assert red > 150 > 50 > blue


def test_a_jpeg_without_its_end_is_read_and_told() -> None:
    noise = Image.effect_noise(SIZE, 80).convert("RGB")
    whole = encoded(noise, "JPEG")
    no_mark = decode(whole[:-2])
    assert no_mark.cut_off
    assert np.array_equal(np.asarray(no_mark.image), np.asarray(open_image(whole)))
    shorter = decode(whole[: len(whole) * 3 // 4])
    assert shorter.cut_off
    assert np.array_equal(np.asarray(shorter.image)[:16], np.asarray(open_image(whole))[:16])
    assert not decode(whole + b"what a phone puts behind it").cut_off
    for broken in (whole[:100], whole[:3]):
        with pytest.raises(ImageError):
            decode(broken)


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x18ftypmif1", "HEIC"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"8BPS", "PSD"),
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe", "PostScript"),
        (b"<svg xmlns=", "SVG"),
        (b"<!DOCTYPE html>", "web page"),
        (b"\0\0\0\x20ftypisom", "video"),
        (b"PK\x03\x04", "archive"),
    ],
)
def test_types_that_are_not_read_are_called_by_their_name(start: bytes, name: str) -> None:
    with pytest.raises(ImageError, match=rf"holiday\.x is .*{name}.*, which is not read") as raised:
        decode(start + bytes(200), name="holiday.x")
    assert "JPEG, PNG, WebP, AVIF" in raised.value.hint


def test_files_that_are_nothing_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="note is not an image"):
        decode(b"just text", name="note")
    with pytest.raises(ImageError, match="note is empty"):
        decode(b"", name="note")
    with pytest.raises(ImageError, match=r"^gone\.jpg cannot be read: No such file or directory\.$"):
        open_image(tmp_path / "gone.jpg")
    with pytest.raises(ImageTooLarge, match=r"\d+ x \d+ pixels"):
        decode(encoded(colourful(), "PNG"), max_pixels=100)


def test_an_image_is_turned_upright_whatever_its_mode() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for image, format in ((colourful(), "JPEG"), (colourful().convert("RGBA"), "PNG"), (colourful(), "WEBP")):
        assert open_image(encoded(image, format, exif=exif)).size == SIZE[::-1]
    deep = Image.fromarray(np.asarray(colourful().convert("L")).astype(np.uint16) * 257)
    assert open_image(encoded(deep, "PNG", exif=exif)).size == SIZE[::-1]
