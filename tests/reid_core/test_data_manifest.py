"""Data sets listed in a table: labels, times and frames come through, and a wrong table says where."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reid_core.data.contents import Contents
from reid_core.data.reader import detect, read
from reid_core.data.records import SPLITS
from reid_core.errors import DatasetError


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def labels(contents: Contents) -> dict[str, list[tuple[str, str]]]:
    return {
        split: [(image.identity, image.camera) for image in contents.images[split]]
        for split in SPLITS
        if contents.images[split]
    }


def write_manifest(root: Path, *lines: str, header: str = "path,identity,camera,split,captured_at,frame") -> Path:
    (root / "manifest.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8-sig")
    return root


def test_a_csv_manifest_gives_labels_times_and_frames(tmp_path: Path) -> None:
    root = write_manifest(
        tmp_path,
        "a/1.jpg,Anna Ü,door,Train,2024-05-01T13:45:00+02:00,12.0",
        '"b, c.jpg",7,,query,2024-05-01 13:45,',
        "",
        "d\\2.jpg,-1,,gallery,,",
        "a/../e.jpg,0000,,gallery,,",
    )
    contents = read(root)
    assert (contents.format, contents.variant) == ("manifest", "manifest.csv")
    assert labels(contents) == {"train": [("Anna Ü", "door")], "query": [("7", "")], "gallery": [("0000", "")]}
    train, query = contents.images["train"][0], contents.images["query"][0]
    assert (train.captured_at, train.frame) == (datetime(2024, 5, 1, 11, 45, tzinfo=UTC), 12)
    assert (query.captured_at, query.frame) == (datetime(2024, 5, 1, 13, 45, tzinfo=UTC), None)
    assert contents.images["gallery"][0].path == tmp_path / "e.jpg"
    assert contents.skipped["junk-dropped"].count == 1


def test_a_parquet_manifest_reads_like_a_csv(tmp_path: Path) -> None:
    table = pa.table(
        {
            "path": ["1.jpg", "2.jpg", "3.jpg"],
            "identity": pa.array([7.0, 8.0, None]),
            "camera": pa.array(["a", None, "b"]).dictionary_encode(),
            "split": ["train"] * 3,
            "captured_at": pa.array([datetime(2024, 5, 1, 12, tzinfo=UTC), None, None]),
            "embedding": [[1.0], [2.0], [3.0]],
        }
    )
    pq.write_table(table, tmp_path / "people.parquet")
    contents = read(tmp_path)
    assert (contents.format, contents.variant) == ("manifest", "people.parquet")
    assert labels(contents) == {"train": [("7", "a"), ("8", "")]}
    assert contents.images["train"][0].captured_at == datetime(2024, 5, 1, 12, tzinfo=UTC)
    assert contents.skipped["incomplete-rows"].samples == ("row 3: 3.jpg",)
    assert contents.skipped["unused-columns"].samples == ("embedding",)


def test_a_manifest_may_be_registered_itself(tmp_path: Path) -> None:
    write_manifest(tmp_path, "1.jpg,anna,,train,,").joinpath("manifest.csv").rename(tmp_path / "people.csv")
    assert labels(read(tmp_path / "people.csv")) == {"train": [("anna", "")]}
    with pytest.raises(DatasetError, match=r"'people\.csv' is a file"):
        read(tmp_path / "people.csv", "market1501")


def test_a_manifest_without_cameras_or_times_is_enough(tmp_path: Path) -> None:
    write_manifest(tmp_path, "1.jpg,anna,train", header="path, Identity ,SPLIT")
    assert labels(read(tmp_path)) == {"train": [("anna", "")]}


@pytest.mark.parametrize("empty", ["", "nan", "NaN", "  "])
def test_rows_without_identity_are_skipped_not_joined_into_one_person(tmp_path: Path, empty: str) -> None:
    write_manifest(tmp_path, "1.jpg,anna,nan,train,,", f"2.jpg,{empty},,train,,", f"3.jpg,{empty},,train,,")
    contents = read(tmp_path)
    assert labels(contents) == {"train": [("anna", "")]}
    assert contents.skipped["incomplete-rows"].count == 2


def test_manifest_paths_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "set"
    make(root, "ok.jpg", "sub/x.jpg")
    make(tmp_path, "secret.jpg", "other/y.jpg")
    (root / "link").symlink_to(tmp_path / "other")
    outside = ("../secret.jpg", "sub/../../secret.jpg", str(tmp_path / "secret.jpg"), "link/y.jpg", "sub/..\\..\\..\\x")
    write_manifest(root, "ok.jpg,anna,,train,,", *(f"{path},anna,,train,," for path in outside))
    contents = read(root)
    assert [image.path for image in contents.images["train"]] == [root / "ok.jpg"]
    assert contents.skipped["escaping-links"].count == len(outside)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,identity,split\na.jpg,Jos\xe9,train\n", "not UTF-8: byte 29 is 0xe9"),
        (b"file:who\na.jpg:anna\n", "no column path, identity, split; its first line gives file:who"),
        (b"path,identity,camera\na.jpg,anna,1\n", "no column split"),
        (b"path,identity,split,path\na,b,train,c\n", "names a column twice"),
        (b"path,identity,split\na.jpg,anna\n", "row 1 has 2 fields, the first line 3"),
        (b"path,identity,split\na.jpg,anna,val\n", "row 1 has the split 'val'"),
        (b"path,identity,split,frame\na.jpg,anna,train,-3\n", "row 1 has the frame '-3'"),
        (b"path,identity,split,captured_at\na.jpg,anna,train,May\n", "row 1 has the time 'May'"),
        (b"path,identity,split\na.jpg,an\0na,train\n", "NUL"),
        (b"", "no column path, identity, split; its first line gives nothing"),
    ],
)
def test_a_wrong_manifest_says_where_and_what(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read(tmp_path)


def test_a_damaged_parquet_manifest_is_a_dataset_error(tmp_path: Path) -> None:
    (tmp_path / "manifest.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(DatasetError, match=r"manifest\.parquet cannot be read as Parquet"):
        read(tmp_path)


def test_a_manifest_comes_before_the_folders_it_describes(tmp_path: Path) -> None:
    make(tmp_path, "query/0001_c1s1_001051_00.png", "bounding_box_test/0001_c2s1_001051_03.jpg")
    write_manifest(tmp_path, "query/0001_c1s1_001051_00.png,anna,,train,,")
    assert [found.format for found in detect(tmp_path)][:2] == ["manifest", "market1501"]


def test_a_manifest_of_which_every_row_is_wrong_is_still_read(tmp_path: Path) -> None:
    write_manifest(tmp_path, "../1.jpg,anna,,train,,", "2.jpg,,,train,,")
    contents = read(tmp_path)
    assert labels(contents) == {}
    assert set(contents.skipped) == {"escaping-links", "incomplete-rows"}
