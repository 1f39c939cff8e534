"""A data set of drawn people in Market-1501's folders and file names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator, SeedSequence
from PIL import Image

from reid_core.errors import DatasetError
from reid_core.sample_data.cameras import Camera, install_cameras, photograph
from reid_core.sample_data.people import Person, invent_person, invent_wardrobe

LIMITS = {
    "identities": (2, 9999),
    "cameras": (1, 9),
    "pictures_per_camera": (2, 99),
    "seed": (0, 2**32 - 1),
    "height": (32, 1024),
    "width": (16, 512),
}
"""Smallest and largest value of every number that `write_sample_data` takes; names have four digits, cameras one."""

PEOPLE_PER_WARDROBE = 4
FIRST_STRANGER = 10_000
"""People from this number on are distractors."""

_CAMERAS, _WARDROBE, _PERSON, _WALK, _MOMENT = range(5)


@dataclass(frozen=True, slots=True)
class _Shot:
    person: int
    camera: int
    moment: int
    path: Path


def write_sample_data(
    folder: Path,
    *,
    identities: int = 60,
    cameras: int = 4,
    pictures_per_camera: int = 4,
    seed: int = 0,
    height: int = 128,
    width: int = 64,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Fills `folder` with JPEG crops of invented people: `bounding_box_train`, `query` and `bounding_box_test`.

    Every identity is seen `pictures_per_camera` times by every camera. Odd identities are for training; of the even
    ones each camera's first image is a query and the rest are the gallery, beside a few people seen nowhere else
    (identity `0000`). A seed is a world: its people, its cameras, its places. Same arguments, same bytes; a person or a
    camera does not depend on how many there are. `on_progress` gets (images written, images in all).

    Raises `DatasetError` if `folder` holds anything already or a number is outside `LIMITS`.
    """
    _check_numbers(
        identities=identities,
        cameras=cameras,
        pictures_per_camera=pictures_per_camera,
        seed=seed,
        height=height,
        width=width,
    )
    _check_folder(folder)
    installed = install_cameras(_generator(seed, _CAMERAS), cameras, (height, width))
    shots = [*_plan_people(identities, cameras, pictures_per_camera), *_plan_strangers(identities, cameras)]
    for name in ("bounding_box_train", "query", "bounding_box_test"):
        (folder / name).mkdir(parents=True)
    for done, shot in enumerate(shots, start=1):
        _take(shot, installed[shot.camera], seed, folder)
        if on_progress is not None:
            on_progress(done, len(shots))


def draw_people(count: int, *, seed: int = 0, height: int = 128, width: int = 64) -> list[Image.Image]:
    """Draws one crop each of `count` invented people, by two cameras in turn, as `write_sample_data` would see them."""
    cameras = install_cameras(_generator(seed, _CAMERAS), 2, (height, width))
    return [_photograph(_Shot(person, person % 2, 0, Path()), cameras[person % 2], seed) for person in range(count)]


def _check_numbers(**numbers: int) -> None:
    for name, value in numbers.items():
        smallest, largest = LIMITS[name]
        if not smallest <= value <= largest:
            raise DatasetError(
                f"{name} is {value}; sample data can have {smallest} to {largest}",
                hint=f"Choose {name} from {smallest} to {largest}.",
            )


def _check_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"{folder} exists and is not an empty folder", hint="Choose a new or empty folder.")


def _plan_people(identities: int, cameras: int, images: int) -> Iterator[_Shot]:
    for person in range(1, identities + 1):
        for camera in range(cameras):
            for moment in range(images):
                name = f"{person:04}_c{camera + 1}s1_{100 * person + moment:06}_00.jpg"
                yield _Shot(person, camera, moment, Path(_choose_split(person, moment)) / name)


def _choose_split(person: int, moment: int) -> str:
    if person % 2:
        return "bounding_box_train"
    return "query" if moment == 0 else "bounding_box_test"


def _plan_strangers(identities: int, cameras: int) -> Iterator[_Shot]:
    for number in range(cameras * max(1, identities // 20)):
        camera = number % cameras
        name = f"0000_c{camera + 1}s1_{number:06}_00.jpg"
        yield _Shot(FIRST_STRANGER + number, camera, 0, Path("bounding_box_test") / name)


def _take(shot: _Shot, camera: Camera, seed: int, folder: Path) -> None:
    _photograph(shot, camera, seed).save(folder / shot.path, quality=camera.look.quality)


def _photograph(shot: _Shot, camera: Camera, seed: int) -> Image.Image:
    walk = _generator(seed, _WALK, shot.person, shot.camera)
    moment = _generator(seed, _MOMENT, shot.person, shot.camera, shot.moment)
    return photograph(camera, _invent(seed, shot.person), walk, moment)


def _invent(seed: int, person: int) -> Person:
    wardrobe = invent_wardrobe(_generator(seed, _WARDROBE, person // PEOPLE_PER_WARDROBE))
    return invent_person(_generator(seed, _PERSON, person), wardrobe)


def _generator(seed: int, *key: int) -> Generator:
    return np.random.default_rng(SeedSequence(seed, spawn_key=key))
