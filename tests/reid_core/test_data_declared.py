"""Layouts, columns and encodings that whoever registers declares, and folders of people whose split is drawn."""

import codecs
from pathlib import Path

import pytest

from reid_core.data.contents import Contents
from reid_core.data.declaration import Declaration
from reid_core.data.people import draw_split
from reid_core.data.reader import read
from reid_core.data.records import SPLITS, ImageRecord
from reid_core.errors import DatasetError

COMPOSED, DECOMPOSED = "Jos\u00e9", "Jose\u0301"


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def labels(contents: Contents) -> dict[str, list[tuple[str, str]]]:
    return {
        split: [(image.identity, image.camera) for image in contents.images[split]]
        for split in SPLITS
        if contents.images[split]
    }


def test_a_declared_layout_is_read(tmp_path: Path) -> None:
    make(
        tmp_path,
        "data/tr/7_k3_c1_f12.jpg",
        "data/te/q/8_k1_c1_f1.png",
        "data/te/g/8_k2_c2_f2.png",
        "data/te/g/notes.txt",
    )
    declaration = Declaration(
        folders={"train": "data/tr", "query": "data/te/q", "gallery": "data/te/g"},
        pattern=r"(?P<identity>\d+)_k(?P<clothes>\d+)_c(?P<camera>\d+)_f(?P<frame>\d+)",
    )
    contents = read(tmp_path, "auto", declaration)
    assert contents.format == "declared"
    assert labels(contents) == {"train": [("7", "1")], "query": [("8", "1")], "gallery": [("8", "2")]}
    assert (contents.images["train"][0].frame, contents.images["train"][0].clothes) == (12, "3")
    assert contents.skipped["unmatched-names"].samples == ("g/notes.txt",)
    assert "train in data/tr" in contents.protocol["splits"]
    assert declaration.pattern in contents.protocol["splits"]


@pytest.mark.parametrize("pattern", [r"(?P<identity>\d+)/c(?P<camera>\d)", r".*?(?P<identity>\d{4})/c(?P<camera>\d)"])
def test_a_pattern_fits_the_beginning_of_the_path(tmp_path: Path, pattern: str) -> None:
    root = make(tmp_path, "all/0001/c1.jpg", "all/0002/c2.jpg")
    assert labels(read(root, "declared", Declaration({"train": "all"}, pattern)))["train"] == [
        ("0001", "1"),
        ("0002", "2"),
    ]


def test_a_pattern_may_fit_the_file_name_alone_or_be_left_out(tmp_path: Path) -> None:
    root = make(tmp_path, "all/monday/0001_c1.jpg", "all/friday/0002_c2.jpg")
    by_name = Declaration({"train": "all"}, r"(?P<identity>\d+)_c(?P<camera>\d)")
    assert labels(read(root, "declared", by_name))["train"] == [("0002", "2"), ("0001", "1")]
    assert labels(read(root, "declared", Declaration({"train": "all"})))["train"] == [("friday", ""), ("monday", "")]


@pytest.mark.parametrize(
    ("format", "declaration", "message"),
    [
        ("auto", Declaration({"train": "a"}, "("), "no regular expression"),
        ("auto", Declaration({"train": "a"}, r"\d+"), "named groups none"),
        ("auto", Declaration({"train": "a"}, r"(?P<identity>\d)(?P<colour>\d)"), "colour, identity"),
        ("market1501", Declaration({"train": "a"}), "it is 'market1501'"),
        ("declared", Declaration(), "needed there"),
        ("msmt17", Declaration(pattern=r"(?P<identity>\d)"), "the formats folders and people"),
        ("declared", Declaration({"train": "elsewhere"}), "does not hold declared; it holds a/"),
        ("declared", Declaration({"train": "a", "query": "elsewhere"}), "There is no folder elsewhere in"),
    ],
)
def test_a_declaration_that_means_nothing_says_so(
    tmp_path: Path, format: str, declaration: Declaration, message: str
) -> None:
    with pytest.raises(DatasetError, match=message) as raised:
        read(make(tmp_path, "a/1.jpg"), format, declaration)
    assert raised.value.hint


def test_columns_of_any_name_are_declared(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("File Name;Person;Set;Colour;path\n1.jpg;anna;train;red;x\n")
    declaration = Declaration(columns={"path": "File Name", "identity": "person", "split": "set"})
    for registered in (tmp_path, tmp_path / "people.csv"):
        contents = read(registered, "auto", declaration)
        assert labels(contents) == {"train": [("anna", "")]}
        assert contents.images["train"][0].path.name == "1.jpg"
        assert contents.skipped["unused-columns"].samples == ("colour", "path")
    with pytest.raises(DatasetError, match="no column when"):
        read(tmp_path / "people.csv", "manifest", Declaration(columns={**declaration.columns, "captured_at": "when"}))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    ("encoding", "said"), [("utf-8-sig", ""), ("utf-16", ""), ("cp1252", "cp1252"), ("utf-8", "utf-8")]
)
def test_tables_are_read_as_programs_write_them(tmp_path: Path, separator: str, encoding: str, said: str) -> None:
    rows = [["path", "identity", "camera", "split"], ["1.jpg", COMPOSED, "1", "train"], ["2.jpg", "Zoë", "2", "train"]]
    text = "".join(separator.join(row) + "\r\n" for row in rows)
    (tmp_path / "manifest.csv").write_bytes(codecs.encode(text, encoding))
    assert labels(read(tmp_path, "auto", Declaration(encoding=said)))["train"] == [(COMPOSED, "1"), ("Zoë", "2")]


def test_words_for_nothing_are_unknown_and_said(tmp_path: Path) -> None:
    words = ["None", "<NA>", "null", "NULL", "N/A", "#N/A", "none", "nan", "-", "NaT"]
    rows = [f"{number}.jpg,{word},1,train" for number, word in enumerate(words)]
    rows += ["a.jpg,Null,NULL,train", "b.jpg,Na,-,train"]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,identity,camera,split", *rows]))
    contents = read(tmp_path)
    assert labels(contents) == {"train": [("Null", ""), ("Na", "")]}
    assert contents.skipped["incomplete-rows"].count == len(words)
    assert contents.skipped["unknown-words"].count == len(words) + 2
    assert "<NA> as identity: 1 times" in contents.skipped["unknown-words"].samples


@pytest.mark.parametrize(("typed", "on_disk"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_a_table_finds_files_however_their_names_are_composed(tmp_path: Path, typed: str, on_disk: str) -> None:
    make(tmp_path, f"{on_disk}/{on_disk}.jpg")
    (tmp_path / "manifest.csv").write_text(
        f"path,identity,split\n{typed}/{typed}.jpg,{typed},train\n", encoding="utf-8"
    )
    (image,) = read(tmp_path).images["train"]
    assert (image.identity, image.path.is_file()) == (COMPOSED, True)


def test_both_spellings_of_a_folder_are_one_person(tmp_path: Path) -> None:
    root = make(tmp_path, f"train/{COMPOSED}/1.jpg", f"train/{DECOMPOSED}/2.jpg", "train/ ben /1.jpg")
    assert labels(read(root))["train"] == [("ben", ""), (COMPOSED, ""), (COMPOSED, "")]


def test_folders_with_names_that_are_no_labels_are_left_out_and_named(tmp_path: Path) -> None:
    contents = read(make(tmp_path, "train/anna/1.jpg", "train/None/1.jpg", "train/a\\b/1.jpg", "train/a\nb/1.jpg"))
    assert labels(contents) == {"train": [("anna", "")]}
    assert contents.skipped["refused-labels"].count == 3


OML = """label,path,split,is_query,is_gallery
0,k0.jpg,train,,
1,v0.jpg,validation,True,False
1,v1.jpg,validation,False,True
2,v2.jpg,validation,1,1
2,v3.jpg,validation,1,1
3,v4.jpg,validation,,
"""


def test_a_table_of_open_metric_learning_is_read_by_folder_and_by_itself(tmp_path: Path) -> None:
    (tmp_path / "df.csv").write_text(OML)
    for registered in (tmp_path, tmp_path / "df.csv"):
        contents = read(registered)
        assert contents.format == "open-metric-learning"
        assert {split: [image.path.name for image in contents.images[split]] for split in SPLITS} == {
            "train": ["k0.jpg"],
            "query": ["v0.jpg", "v2.jpg"],
            "gallery": ["v1.jpg", "v3.jpg"],
        }
        assert contents.skipped["left-out"].samples == ("v4.jpg",)


PEOPLE = tuple(f"{person}/IMG_{number} c{camera}.jpg" for person in "abcdef" for camera in (1, 2) for number in (1, 2))


def test_one_folder_for_each_person_gets_a_split(tmp_path: Path) -> None:
    contents = read(make(tmp_path / "wrapped", *PEOPLE, "a/notes.txt", "g/alone.jpg").parent)
    people = {split: {image.identity for image in contents.images[split]} for split in SPLITS}
    assert contents.format == "people"
    assert len(people["train"]) == 4
    assert people["train"] & (people["query"] | people["gallery"]) == set()
    assert people["query"] <= people["gallery"]
    assert "g" in people["gallery"]
    assert len(contents.images["query"]) == 2 * len(people["query"])
    assert "seed 0" in contents.protocol["splits"]
    assert read(tmp_path, "people").images == contents.images


def test_people_who_train_go_on_training_when_others_come(tmp_path: Path) -> None:
    before = {image.identity for image in read(make(tmp_path, *PEOPLE)).images["train"]}
    make(tmp_path, *(f"{person}/{number}.jpg" for person in "nopqrst" for number in (1, 2)))
    after = read(tmp_path, "people", Declaration(trained=frozenset(before)))
    trained = {image.identity for image in after.images["train"]}
    assert before < trained
    assert len(trained) == 7


@pytest.mark.parametrize(
    "names",
    [
        ("people/a.jpg", "x/y.jpg"),
        ("cam1/a.jpg", "cam1/b.jpg", "cam2/a.jpg", "cam2/b.jpg"),
        ("market/bounding_box/a.jpg", "market/bounding_box/b.jpg", "duke/x/a.jpg", "duke/x/b.jpg"),
        ("my_train/a.jpg", "my_train/b.jpg", "my_test/a.jpg", "my_test/b.jpg"),
    ],
)
def test_folders_that_may_be_something_else_are_not_taken_for_people_unasked(tmp_path: Path, names: tuple[str]) -> None:
    with pytest.raises(DatasetError, match="No known layout") as raised:
        read(make(tmp_path, *names))
    assert "format people" in raised.value.hint
    assert read(tmp_path, "people").format == "people"


def images(identity: str, *cameras: str) -> list[ImageRecord]:
    return [ImageRecord(Path(f"{identity}/{place}.jpg"), identity, camera) for place, camera in enumerate(cameras)]


@pytest.mark.parametrize(
    ("cameras", "queries"),
    [(("", ""), 1), (("",), 0), (("1", "1"), 0), (("1", "2"), 1), (("1", "1", "2"), 1), (("1", "1", "2", "2"), 2)],
)
def test_a_query_is_drawn_where_something_is_left_to_find(cameras: tuple[str, ...], queries: int) -> None:
    drawn = draw_split(images("a", *cameras) + images("b", "1"), trained=("b",))
    assert (len(drawn["query"]), len(drawn["gallery"])) == (queries, len(cameras) - queries)
    for query in drawn["query"]:
        assert any(not query.camera or query.camera != found.camera for found in drawn["gallery"])


def test_names_tell_the_camera_by_a_declared_pattern(tmp_path: Path) -> None:
    root = make(tmp_path, *(f"{person}/hall-{camera}-1.jpg" for person in "ab" for camera in "xy"))
    declaration = Declaration(pattern=r"(?P<identity>[^/]+)/hall-(?P<camera>.)-")
    found = read(root, "people", declaration).images
    assert {image.camera for split in SPLITS for image in found[split]} == {"x", "y"}
