"""Decoding the images of requests within one budget of memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reid_core.data.preprocessing import Decoded, decode, decoding_bytes
from reid_core.errors import ImageTooLarge
from service.budget import Budget
from service.errors import Problem
from service.settings import Settings


class Decoder:
    """Decodes images for requests, at a time no more than REID_DECODE_MEMORY_BYTES allows. Threads share it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._memory = Budget(settings.decode_memory_bytes)

    @contextmanager
    def opened(self, source: bytes | Path, name: str = "the image") -> Iterator[Decoded]:
        """The decoded image, gone at the end; `name` stands in messages.

        Raises:
            Problem: `too-large` for an upload of too many bytes, `unavailable` where others keep the memory too long.
            ImageError: it has too many pixels, is no image that we read, or is damaged.
        """
        if isinstance(source, bytes):
            self._refuse_heavy(source, name)
        max_pixels = self._settings.max_image_pixels
        needed = decoding_bytes(source, max_pixels=max_pixels, name=name)
        self._reserve(needed, name)
        try:
            image = decode(source, max_pixels=max_pixels, name=name)
            try:
                yield image
            finally:
                image.image.close()
        finally:
            self._memory.give_back(needed)

    def _refuse_heavy(self, content: bytes, name: str) -> None:
        if len(content) > self._settings.max_picture_bytes:
            raise Problem(
                "too-large",
                f"{name} has more than {self._settings.max_picture_bytes:,} bytes.",
                hint="Send a crop of one person, or raise REID_MAX_PICTURE_BYTES.",
            )

    def _reserve(self, needed: int, name: str) -> None:
        if needed > self._memory.total:
            raise ImageTooLarge(
                f"{name} may need {needed:,} bytes while it is decoded; "
                f"REID_DECODE_MEMORY_BYTES allows {self._memory.total:,}.",
                hint="Send a crop of one person, or raise REID_DECODE_MEMORY_BYTES.",
            )
        if not self._memory.take(needed, seconds=self._settings.max_wait_seconds):
            raise Problem(
                "unavailable",
                f"Other images take all of REID_DECODE_MEMORY_BYTES = {self._memory.total:,}; "
                f"{name} had to wait longer than {self._settings.max_wait_seconds:g} s.",
                hint="Try again, with smaller images if you can.",
                headers={"Retry-After": "2"},
            )
