"""Several data sets as one."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from reid_core.data.joining import join
from reid_core.data.records import Picture

SHOTS = [
    Picture(Path("a.png"), "0001", "1", datetime(2024, 1, 1), 7),
    Picture(Path("b.png"), "0001", ""),
    Picture(Path("c.png"), "0000", "1"),
]


def test_people_and_cameras_of_joined_data_sets_stay_apart_but_unknown_cameras_do_not() -> None:
    joined = join({"one": SHOTS, "two": SHOTS})

    assert [(picture.identity, picture.camera) for picture in joined] == [
        ("one/0001", "one/1"),
        ("one/0001", ""),
        ("one/0000", "one/1"),
        ("two/0001", "two/1"),
        ("two/0001", ""),
        ("two/0000", "two/1"),
    ]
    assert [(picture.path, picture.captured_at, picture.frame) for picture in joined] == 2 * [
        (picture.path, picture.captured_at, picture.frame) for picture in SHOTS
    ]


def test_a_data_set_alone_keeps_its_labels() -> None:
    assert join({"one": SHOTS}) == SHOTS
