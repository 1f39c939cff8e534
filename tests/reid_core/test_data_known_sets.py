"""Trees of known data sets, written from their public descriptions: counts, people, cameras and splits come out."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reid_core.data.contents import Contents
from reid_core.data.declaration import declaration_from_json
from reid_core.data.examples import EXAMPLES, Example
from reid_core.data.formats import FORMATS, describe_formats
from reid_core.data.reader import read
from reid_core.data.records import SPLITS


def make(root: Path, names: Iterator[str] | list[str]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def counts(contents: Contents) -> dict[str, tuple[int, int, int]]:
    """Images, people and cameras of each split."""
    return {
        split: (len(found), len({image.identity for image in found}), len({image.camera for image in found}))
        for split in SPLITS
        if (found := contents.images[split])
    }


def test_veri(tmp_path: Path) -> None:
    names = [f"image_train/{person:04}_c{camera:03}_00016450_0.jpg" for person in range(1, 5) for camera in (1, 12, 20)]
    names += [f"image_query/{person:04}_c001_00016450_0.jpg" for person in (5, 6)]
    names += [f"image_test/{person:04}_c{camera:03}_00016455_1.jpg" for person in (5, 6) for camera in (1, 2)]
    (tmp_path / "name_query.txt").write_text("0005_c001_00016450_0.jpg\n")
    contents = read(make(tmp_path, names))
    assert contents.format == "veri-776"
    assert counts(contents) == {"train": (12, 4, 3), "query": (2, 2, 1), "gallery": (4, 2, 2)}
    assert contents.images["train"][0].frame == 16450
    assert contents.skipped == {}


def test_ltcc_knows_its_clothes(tmp_path: Path) -> None:
    names = [f"train/{person:03}_{clothes}_c10_015833.png" for person in (0, 1) for clothes in (1, 2)]
    names += ["query/103_2_c2_015834.png", "test/103_1_c3_015838.png", "info/cloth-change_id_test.txt"]
    contents = read(make(tmp_path, names))
    assert contents.format == "ltcc"
    assert counts(contents) == {"train": (4, 2, 1), "query": (1, 1, 1), "gallery": (1, 1, 1)}
    assert [image.clothes for image in contents.images["train"]] == ["1", "2", "1", "2"]
    assert contents.skipped["unread-folders"].samples == ("info: 1 files",)


def test_prcc_asks_for_people_in_other_clothes(tmp_path: Path) -> None:
    names = [f"rgb/train/{person:03}/{camera}_cropped_rgb001.jpg" for person in (1, 2) for camera in "ABC"]
    names += [f"rgb/test/{camera}/301/cropped_rgb{number:03}.jpg" for camera in "ABC" for number in (1, 4)]
    names += ["rgb/val/001/A_cropped_rgb009.jpg", "sketch/train/001/x.jpg"]
    contents = read(make(tmp_path, names))
    assert contents.format == "prcc"
    assert counts(contents) == {"train": (6, 2, 3), "query": (2, 1, 1), "gallery": (2, 1, 1)}
    assert {contents.images[split][0].camera for split in ("query", "gallery")} == {"A", "C"}
    assert contents.skipped["unread-folders"].samples == (
        "rgb/test/B: 2 files",
        "rgb/val: 1 files",
        "sketch: 1 files",
    )


def test_sysu_asks_for_infrared_images_among_visible_ones(tmp_path: Path) -> None:
    names = [
        f"cam{camera}/{person:04}/{shot:04}.jpg" for camera in range(1, 7) for person in range(1, 6) for shot in (1, 2)
    ]
    root = make(tmp_path, names)
    (root / "exp").mkdir()
    for name, people in (("train_id", "1,2"), ("val_id", "3"), ("test_id", "4, 5"), ("available_id", "1,2,3,4,5")):
        (root / f"exp/{name}.txt").write_text(people)
    contents = read(root)
    assert contents.format == "sysu-mm01"
    assert counts(contents) == {"train": (36, 3, 6), "query": (8, 2, 2), "gallery": (16, 2, 4)}
    assert {image.camera for image in contents.images["query"]} == {"3", "6"}
    assert contents.skipped == {}


def prid(camera: str, *people: int) -> list[str]:
    return [f"single_shot/cam_{camera}/person_{person:04}.png" for person in people]


def test_prid2011_pairs_its_first_200_people_as_papers_do(tmp_path: Path) -> None:
    root = make(
        tmp_path, prid("a", *range(1, 386)) + prid("b", *range(1, 750)) + ["multi_shot/cam_a/person_0001/0001.png"]
    )
    contents = read(root)
    assert (contents.format, contents.variant) == ("prid2011", "single-shot")
    assert counts(contents) == {"train": (200, 100, 2), "query": (100, 100, 1), "gallery": (649, 649, 1)}
    assert contents.skipped["left-out"].count == 185
    assert contents.skipped["unread-folders"].samples == ("multi_shot: 1 files",)
    assert read(root / "multi_shot", "prid2011").variant == ""


def test_ilids_vid_is_halved(tmp_path: Path) -> None:
    names = [
        f"i-LIDS-VID/sequences/cam{camera}/person{person:03}/cam{camera}_person{person:03}_{frame:05}.png"
        for camera in (1, 2)
        for person in range(1, 301)
        for frame in (317, 318)
    ]
    contents = read(make(tmp_path, names))
    assert (contents.format, contents.variant) == ("ilids-vid", "sequences")
    assert counts(contents) == {"train": (600, 150, 2), "query": (300, 150, 1), "gallery": (300, 150, 1)}


def test_market_with_all_that_comes_with_it_says_what_is_not_read(tmp_path: Path) -> None:
    names = ["bounding_box_train/0002_c1s1_000451_03.jpg", "query/0001_c1s1_001051_00.jpg", "gt_query/0001.mat"]
    names += ["bounding_box_test/0001_c2s1_001051_03.jpg", "gt_bbox/0001_c1s1_001051_00.jpg", "query/Thumbs.db"]
    names += [f"images/{number:08}.jpg" for number in range(6)]
    contents = read(make(tmp_path / "Market-1501-v15.09.15", names).parent)
    assert contents.format == "market1501"
    assert contents.skipped["unread-folders"].samples == ("gt_bbox: 1 files", "gt_query: 1 files", "images: 6 files")


@pytest.mark.parametrize("folder", ["val", "test", "multi-query", "distractors/500k"])
def test_unread_folders_are_said_for_own_folders_and_tables_too(tmp_path: Path, folder: str) -> None:
    names = ["train/anna/1_c1.jpg", "train/ben/1_c1.jpg", f"{folder}/x/1.jpg", f"{folder}/x/2.jpg"]
    root = make(tmp_path, names)
    top = folder.partition("/")[0]
    assert read(root).skipped["unread-folders"].samples == (f"{top}: 2 files",)
    (root / "manifest.csv").write_text("path,identity,split\ntrain/anna/1_c1.jpg,anna,train\n")
    assert set(read(root).skipped["unread-folders"].samples) == {f"{top}: 2 files", "train/ben: 1 files"}


def test_junk_in_own_folders_with_market_names_is_nobody(tmp_path: Path) -> None:
    names = [f"gallery/{person}/{person}_c{camera}s1_000001_00.jpg" for person in ("-1", "0001") for camera in (1, 2)]
    contents = read(make(tmp_path, [*names, "query/0001/0001_c3s1_000001_00.jpg"]))
    assert {image.identity for image in contents.images["gallery"]} == {"0001"}
    assert contents.skipped["junk-dropped"].count == 2


def test_twenty_formats_are_described_and_each_is_read_or_has_an_example() -> None:
    described = describe_formats()
    assert len(described) >= 20
    assert len({item["name"] for item in described}) == len(described)
    assert [item for item in described if not item["reader"] and "example" not in item] == []
    assert [item["name"] for item in described if item["reader"]] == list(FORMATS)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_reads_the_names_that_it_is_for(tmp_path: Path, example: Example) -> None:
    declared = example.describe()["example"]
    folders = [folder for split, folder in example.layout.items() if split != "pattern"]
    make(tmp_path, [f"{folder}/{example.sample}" for folder in folders])
    contents = read(tmp_path, declared["format"], declaration_from_json(declared))
    assert sum(len(found) for found in contents.images.values()) == len(folders)
    assert contents.confidence == 1.0
