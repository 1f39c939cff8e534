"""Several data sets as one."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from reid_core.data.joining import join_datasets
from reid_core.data.records import ImageRecord

SHOTS = [
    ImageRecord(Path("a.png"), "0001", "1", datetime(2024, 1, 1), 7),
    ImageRecord(Path("b.png"), "0001", ""),
    ImageRecord(Path("c.png"), "0000", "1"),
]


def test_people_and_cameras_of_joined_data_sets_stay_apart_but_unknown_cameras_do_not() -> None:
    joined = join_datasets({"one": SHOTS, "two": SHOTS})

    assert [(image.identity, image.camera) for image in joined] == [
        ("one/0001", "one/1"),
        ("one/0001", ""),
        ("one/0000", "one/1"),
        ("two/0001", "two/1"),
        ("two/0001", ""),
        ("two/0000", "two/1"),
    ]
    assert [(image.path, image.captured_at, image.frame) for image in joined] == 2 * [
        (image.path, image.captured_at, image.frame) for image in SHOTS
    ]


def test_a_data_set_alone_keeps_its_labels() -> None:
    assert join_datasets({"one": SHOTS}) == SHOTS
