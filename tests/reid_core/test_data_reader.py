"""Reading data sets: every known layout, and folders that are wrong, odd or hostile."""

import os
from collections import Counter
from pathlib import Path

import pytest

from reid_core.data.contents import Contents
from reid_core.data.formats import FORMATS, describe_formats
from reid_core.data.reader import detect, read
from reid_core.data.records import SPLITS
from reid_core.errors import DatasetError

MARKET = (
    "bounding_box_train/0002_c1s1_000451_03.jpg",
    "bounding_box_train/0007_c3s2_000012_01.jpg.jpg",
    "query/0001_c1s1_001051_00.png",
    "bounding_box_test/0001_c2s1_001051_03.jpg",
    "bounding_box_test/-1_c1s1_000401_03.jpg",
    "bounding_box_test/0000_c1s1_000151_01.jpg",
)
DUKE = (
    "bounding_box_train/0001_c2_f0046182.jpg",
    "query/0005_c2_f0046985.jpg",
    "bounding_box_test/0005_c5_f0044158.jpg",
)
CUHK03 = ("bounding_box_train/0001_c1_1.png", "query/0003_c1_21.png", "bounding_box_test/0003_c2_22.png")
MARS = (
    "bbox_train/0001/0001C1T0001F001.jpg",
    "bbox_test/0002/0002C1T0001F001.jpg",
    "bbox_test/0002/0002C1T0001F002.jpg",
    "bbox_test/0002/0002C2T0001F001.jpg",
    "bbox_test/00-1/00-1C1T0001F001.jpg",
    "bbox_test/0000/0000C1T0001F001.jpg",
)
RANDPERSON = ("randperson_subset/000000_c00_s03_f000264.jpg", "randperson_subset/000001_s03_c01_f000300.jpg")
VIPER = tuple(f"cam_{camera}/{identity}_45.bmp" for camera in "ab" for identity in ("001", "002", "005", "009"))
FOLDERS = (
    "train/anna/first.jpg",
    "train/ben/cam2/0001.png",
    "query/carl k/door_c1s2.jpg",
    "gallery/carl k/Camera-12 hall.JPG",
    "gallery/dora/c3po.jpg",
)


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def make_msmt(root: Path, train: str, test: str, *, val: bool = True) -> Path:
    make(root / train, "0000/0000_000_01_0303morning_0015_0.jpg", "0000/0000_001_02_0303noon_0015_1.jpg")
    make(root / test, "0000/0000_000_05_0303morning_0008_0.jpg", "0000/0000_001_14_0303evening_0008_1.jpg")
    lists = {
        "list_train.txt": "0000/0000_000_01_0303morning_0015_0.jpg 0",
        "list_query.txt": "0000/0000_000_05_0303morning_0008_0.jpg 0",
        "list_gallery.txt": "0000/0000_001_14_0303evening_0008_1.jpg 0\n../../etc/passwd 0\n",
    }
    if val:
        lists["list_val.txt"] = "0000/0000_001_02_0303noon_0015_1.jpg 0"
    for name, text in lists.items():
        (root / name).write_text(text + "\n")
    return root


def labels(contents: Contents) -> dict[str, list[tuple[str, str]]]:
    return {
        split: [(image.identity, image.camera) for image in contents.images[split]]
        for split in SPLITS
        if contents.images[split]
    }


def test_market1501_drops_junk_and_keeps_distractors(tmp_path: Path) -> None:
    contents = read(make(tmp_path, *MARKET))
    assert (contents.format, contents.confidence, contents.variant) == ("market1501", 1.0, "")
    assert labels(contents) == {
        "train": [("0002", "1"), ("0007", "3")],
        "query": [("0001", "1")],
        "gallery": [("0000", "1"), ("0001", "2")],
    }
    assert contents.skipped["junk-dropped"].samples == ("bounding_box_test/-1_c1s1_000401_03.jpg",)
    assert contents.images["train"][0].frame == 451
    assert contents.images["query"][0].path == tmp_path / "query/0001_c1s1_001051_00.png"


def test_dukemtmc_is_told_from_market_by_its_names(tmp_path: Path) -> None:
    contents = read(make(tmp_path, *DUKE))
    assert contents.format == "dukemtmc-reid"
    assert labels(contents) == {"train": [("0001", "2")], "query": [("0005", "2")], "gallery": [("0005", "5")]}


@pytest.mark.parametrize(
    ("train", "test", "val", "variant"),
    [
        ("train", "test", True, "v1+val"),
        ("train", "test", False, "v1"),
        ("mask_train_v2", "mask_test_v2", True, "v2+val"),
        ("mask_train_v2", "mask_test_v2", False, "v2"),
    ],
)
def test_msmt17_takes_its_lists_and_tells_its_variant(
    tmp_path: Path, train: str, test: str, val: bool, variant: str
) -> None:
    contents = read(make_msmt(tmp_path, train, test, val=val))
    assert (contents.format, contents.variant) == ("msmt17", variant)
    assert contents.protocol["variant"] == variant
    assert labels(contents) == {
        "train": [("train-0", "01")] + [("train-0", "02")] * val,
        "query": [("0", "05")],
        "gallery": [("0", "14")],
    }
    assert contents.skipped["unmatched-names"].count == 1


def test_msmt17_v2_is_taken_where_both_versions_are_there(tmp_path: Path) -> None:
    make_msmt(tmp_path, "train", "test")
    contents = read(make_msmt(tmp_path, "mask_train_v2", "mask_test_v2"))
    assert contents.variant == "v2+val"
    assert contents.images["query"][0].path.parts[-3] == "mask_test_v2"


def test_market_names_without_a_sequence_are_not_taken_for_cuhk03(tmp_path: Path) -> None:
    contents = read(make(tmp_path, *CUHK03))
    assert (contents.format, labels(contents)["query"]) == ("market1501", [("0003", "1")])


@pytest.mark.parametrize(("folder", "variant"), [("detected", "detected"), ("labelled", "labeled")])
def test_cuhk03_is_found_in_its_variant_folder(tmp_path: Path, folder: str, variant: str) -> None:
    make(tmp_path / folder, *CUHK03)
    for registered in (tmp_path, tmp_path / folder):
        contents = read(registered)
        assert (contents.format, contents.variant, contents.root) == ("cuhk03-np", variant, tmp_path / folder)
    assert labels(contents) == {"train": [("0001", "1")], "query": [("0003", "1")], "gallery": [("0003", "2")]}


def test_cuhk03_with_both_variants_asks_for_one(tmp_path: Path) -> None:
    make(tmp_path / "detected", *CUHK03)
    make(tmp_path / "labeled", *CUHK03)
    with pytest.raises(DatasetError, match="detected, labeled") as raised:
        read(tmp_path)
    assert "Register the folder" in raised.value.hint
    assert read(tmp_path / "labeled").variant == "labeled"


def test_randperson_cameras_are_told_apart_by_scene(tmp_path: Path) -> None:
    contents = read(make(tmp_path, *RANDPERSON))
    assert contents.format == "randperson"
    assert labels(contents) == {"train": [("000000", "s03c00"), ("000001", "s03c01")]}
    assert labels(read(tmp_path / "randperson_subset")) == labels(contents)


def test_viper_is_halved_by_identity(tmp_path: Path) -> None:
    contents = read(make(tmp_path, *VIPER))
    assert contents.format == "viper"
    assert labels(contents) == {
        "train": [("001", "a"), ("005", "a"), ("001", "b"), ("005", "b")],
        "query": [("002", "a"), ("009", "a")],
        "gallery": [("002", "b"), ("009", "b")],
    }


def test_mars_queries_are_the_first_image_of_each_identity_and_camera(tmp_path: Path) -> None:
    contents = read(make(tmp_path, *MARS))
    assert contents.format == "mars"
    assert [image.path.name for image in contents.images["query"]] == [
        "0002C1T0001F001.jpg",
        "0002C2T0001F001.jpg",
    ]
    assert labels(contents)["gallery"] == [("0000", "1"), ("0002", "1")]
    assert contents.skipped["junk-dropped"].count == 1


def test_own_folders_take_any_label_and_find_cameras_in_names(tmp_path: Path) -> None:
    contents = read(make(tmp_path, *FOLDERS))
    assert contents.format == "folders"
    assert labels(contents) == {
        "train": [("anna", ""), ("ben", "2")],
        "query": [("carl k", "1")],
        "gallery": [("carl k", "12"), ("dora", "")],
    }


def test_own_folders_need_not_have_every_split(tmp_path: Path) -> None:
    assert labels(read(make(tmp_path, "train/anna/1.jpg"))) == {"train": [("anna", "")]}


@pytest.mark.parametrize("debris", ["__MACOSX/x.jpg", "._query", ".DS_Store", "query/Thumbs.db", "query/._0001.jpg"])
def test_debris_of_operating_systems_is_not_seen(tmp_path: Path, debris: str) -> None:
    contents = read(make(tmp_path / "wrapped", *MARKET, debris).parent)
    assert contents.confidence == 1.0
    assert set(contents.skipped) == {"junk-dropped"}


def test_folders_that_only_wrap_the_data_set_are_seen_through(tmp_path: Path) -> None:
    make(tmp_path / "upload/Market-1501-v15.09.15", *MARKET)
    make(tmp_path, "upload/__MACOSX/x.jpg", "upload/readme.txt")
    assert read(tmp_path).root == tmp_path / "upload/Market-1501-v15.09.15"
    assert detect(tmp_path)[0].root == tmp_path / "upload/Market-1501-v15.09.15"


def test_images_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    names = [f"query/{number:04}_c1s1_000001_00.jpg" for number in (9, 2, 7, 1)]
    images = read(make(tmp_path, *names)).images["query"]
    assert [image.identity for image in images] == ["0001", "0002", "0007", "0009"]


def test_names_that_do_not_fit_are_counted_and_lower_the_confidence(tmp_path: Path) -> None:
    make(tmp_path, *MARKET, *(f"query/photo{number}.jpg" for number in range(6)), "query/more/0001_c1s1_000001_00.jpg")
    contents = read(tmp_path)
    assert contents.skipped["unmatched-names"].count == 7
    assert len(contents.skipped["unmatched-names"].samples) == 5
    assert contents.confidence == round(6 / 13, 2)


def test_a_folder_in_no_known_layout_says_what_is_there_and_what_is_known(tmp_path: Path) -> None:
    make(tmp_path, "people/a.jpg", "notes.txt", "x/y.jpg")
    assert detect(tmp_path) == []
    with pytest.raises(DatasetError, match=r"notes\.txt, people/, x/") as raised:
        read(tmp_path)
    assert all(name in raised.value.hint for name in FORMATS)


def test_an_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="'market'") as raised:
        read(tmp_path, "market")
    assert "auto" in raised.value.hint
    assert all(name in raised.value.hint for name in FORMATS)


def test_a_named_format_that_does_not_fit_says_what_it_expects(tmp_path: Path) -> None:
    make(tmp_path, *FOLDERS)
    with pytest.raises(DatasetError, match="does not hold msmt17; it holds gallery/, query/, train/") as raised:
        read(tmp_path, "msmt17")
    assert "list_train.txt" in raised.value.hint


def test_a_named_format_is_taken_even_where_few_names_fit(tmp_path: Path) -> None:
    make(tmp_path, MARKET[0], *(f"query/photo{number}.jpg" for number in range(9)))
    assert detect(tmp_path) == []
    assert len(read(tmp_path, "market1501").images["train"]) == 1


def test_a_missing_folder_is_a_dataset_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="'nowhere' cannot be read: No such file"):
        read(tmp_path / "nowhere")


def test_links_out_of_the_data_set_are_not_followed(tmp_path: Path) -> None:
    outside = make(tmp_path / "secret", "0009_c1s1_000001_00.jpg")
    root = make(tmp_path / "set", *MARKET)
    (root / "query/0009_c1s1_000001_00.jpg").symlink_to(outside / "0009_c1s1_000001_00.jpg")
    (root / "query/0001_c1s1_009999_00.jpg").symlink_to(root / "query/0001_c1s1_001051_00.png")
    contents = read(root)
    assert contents.skipped["escaping-links"].samples == ("query/0009_c1s1_000001_00.jpg",)
    assert labels(contents)["query"] == [("0001", "1"), ("0001", "1")]


def test_a_split_folder_or_list_that_is_a_link_outside_is_not_read(tmp_path: Path) -> None:
    market = make(tmp_path / "market", MARKET[0])
    (market / "query").symlink_to(make(tmp_path / "elsewhere", "0001_c1s1_001051_00.png"))
    assert read(market).skipped["escaping-links"].samples == ("query",)
    msmt = make_msmt(tmp_path / "msmt", "train", "test")
    (msmt / "list_query.txt").rename(tmp_path / "list_query.txt")
    (msmt / "list_query.txt").symlink_to(tmp_path / "list_query.txt")
    assert read(msmt).images["query"] == ()


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    root = make(tmp_path, *FOLDERS)
    (root / "train/anna/again").symlink_to(root / "train")
    (root / "train/ben/self").symlink_to("self")
    contents = read(root)
    assert Counter(identity for identity, _ in labels(contents)["train"]) == {"anna": 1, "ben": 1}
    assert contents.skipped["unmatched-names"].count == 2


def test_names_that_are_no_utf8_and_pipes_are_skipped_in_words(tmp_path: Path) -> None:
    root = make(tmp_path, *FOLDERS)
    os.mkfifo(root / "query/carl k/pipe.jpg")
    (root / "train" / os.fsdecode(b"caf\xe9")).mkdir()
    skipped = read(root).skipped["unmatched-names"]
    assert skipped.samples == ("train/caf\\xe9", "query/carl k/pipe.jpg")


def test_every_format_is_described_for_a_person() -> None:
    described = describe_formats()
    assert [item["name"] for item in described if item["reader"]] == list(FORMATS)
    assert all(item["title"] and "\n" in item["layout"] and item["naming"] and item["protocol"] for item in described)
