"""Images of requests share one budget of memory."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from reid_core.data.preprocessing import decoding_bytes
from reid_core.errors import ImageError, ImageTooLarge
from service.decoding import Decoder
from service.errors import Problem
from service.settings import Settings


def image(width: int = 100) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, 100), "red").save(file, "PNG")
    return file.getvalue()


def test_an_image_waits_for_those_before_it_and_is_then_refused(settings: Settings) -> None:
    room_for_one = {"decode_memory_bytes": decoding_bytes(image()), "max_wait_seconds": 0.05}
    decoder = Decoder(settings.model_copy(update=room_for_one))
    with decoder.opened(image()) as first:
        assert first.image.getpixel((0, 0)) == (255, 0, 0)
        with pytest.raises(Problem, match="REID_DECODE_MEMORY_BYTES") as busy, decoder.opened(image(), "the second"):
            pass
    assert (busy.value.status, busy.value.headers["Retry-After"]) == (503, "2")
    with decoder.opened(image()) as again:
        assert again.image.size == (100, 100)


def test_an_image_that_never_fits_is_refused_at_once(settings: Settings) -> None:
    decoder = Decoder(settings.model_copy(update={"decode_memory_bytes": decoding_bytes(image())}))
    never = decoder.opened(image(101), "the photo")
    with pytest.raises(ImageTooLarge, match="REID_DECODE_MEMORY_BYTES allows") as refused, never:
        pass
    assert "raise REID_DECODE_MEMORY_BYTES" in refused.value.hint


def test_what_cannot_be_decoded_gives_its_memory_back(settings: Settings) -> None:
    decoder = Decoder(settings.model_copy(update={"decode_memory_bytes": decoding_bytes(image())}))
    for _ in range(2):
        with pytest.raises(ImageError, match="cannot be decoded"), decoder.opened(image()[:60]):
            pass
    with decoder.opened(image()) as good:
        assert good.image.mode == "RGB"


def test_a_png_or_jpeg_of_the_largest_size_allowed_fits_by_default(settings: Settings) -> None:
    assert settings.max_image_pixels * 16 <= settings.decode_memory_bytes
