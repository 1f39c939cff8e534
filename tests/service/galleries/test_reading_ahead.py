"""Pages of images are decoded while the caller works on the page before."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from service.galleries.encoding import GalleryEncoder, read_ahead
from service.settings import Settings
from tests.reid_core.images import make_images


class Recorder:
    """Prepares images of any size, and keeps count of them."""

    def __init__(self) -> None:
        self.prepared = threading.Semaphore(0)

    def prepare(self, image: Image.Image) -> Tensor:
        self.prepared.release()
        return torch.zeros(3, image.height, image.width, dtype=torch.uint8)


def pages_of(paths: Sequence[Path | None], asked: list[int]) -> Iterator[tuple[list[int], Sequence[Path | None]]]:
    for number in range(3):
        asked.append(number)
        yield [number], paths


def test_the_next_page_is_read_and_decoded_while_this_one_is_worked_on(tmp_path: Path, settings: Settings) -> None:
    paths = [image.path for image in make_images(tmp_path / "crops", identities=1)]
    recorder, asked = Recorder(), list[int]()
    pages = read_ahead(pages_of(paths, asked), GalleryEncoder(recorder, None), settings)  # type: ignore[arg-type]
    rows, read = next(pages)
    assert (rows, len(read)) == ([0], len(paths))
    for _ in range(2 * len(paths)):  # this page's and the next one's, without asking for that
        assert recorder.prepared.acquire(timeout=60)
    assert [rows for rows, _ in pages] == [[1], [2]]
    assert asked == [0, 1, 2]


def test_whoever_stops_leaves_no_thread(tmp_path: Path, settings: Settings) -> None:
    paths = [image.path for image in make_images(tmp_path / "crops", identities=1)]
    pages = read_ahead(pages_of(paths, []), GalleryEncoder(Recorder(), None), settings)  # type: ignore[arg-type]
    next(pages)
    pages.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decoding")]


def test_what_cannot_be_read_is_none_and_an_error_of_the_pages_is_told(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "no.png").write_bytes(b"no image")
    paths = [tmp_path / "no.png", tmp_path / "gone.png", None]

    def broken() -> Iterator[tuple[list[int], Sequence[Path | None]]]:
        yield [0], paths
        raise RuntimeError("the database is gone")

    pages = read_ahead(broken(), GalleryEncoder(Recorder(), None), settings)  # type: ignore[arg-type]
    assert next(pages)[1] == [None, None, None]
    with pytest.raises(RuntimeError, match="the database is gone"):
        next(pages)
