"""Examining data sets: what is counted, what is found, and that no file can stop it."""

import json
import random
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from reid_core.data.findings import Finding
from reid_core.data.formats import FORMATS
from reid_core.data.meanings import MEANINGS
from reid_core.data.reader import read
from reid_core.data.report import Examination, Report, examine

DOCUMENT = Path(__file__).parents[2] / "docs/datasets.md"

GOOD = (
    "train/anna/1_c1.png",
    "train/anna/2_c2.png",
    "train/ben/1_c1.png",
    "train/ben/2_c2.png",
    "query/carl/1_c1.png",
    "query/dora/1_c2.png",
    "gallery/carl/2_c2.png",
    "gallery/dora/2_c1.png",
)


def paint(root: Path, *names: str) -> Path:
    """Images of 8 x 16 pixels, every one different."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = random.Random(name).randbytes(8 * 16 * 3)
        Image.frombytes("RGB", (8, 16), noise).save(path)
    return root


def look(root: Path, images_per_identity: int = 2) -> Examination:
    examination = examine(read(root), images_per_identity=images_per_identity)
    assert examination is not None
    return examination


def findings(report: Report) -> dict[str, Finding]:
    return {finding.code: finding for finding in report.findings}


def test_a_good_data_set_has_counts_and_no_findings(tmp_path: Path) -> None:
    report = look(paint(tmp_path, *GOOD)).report
    assert report.findings == ()
    assert (report.format, report.evaluable_queries, report.unevaluable_identities) == ("folders", 2, ())
    answer = json.loads(json.dumps(report.as_json()))
    assert answer["splits"]["train"] == {"images": 4, "identities": 2, "cameras": 2}
    assert answer["cameras"] == {
        "1": {"train": 2, "query": 1, "gallery": 1},
        "2": {"train": 2, "query": 1, "gallery": 1},
    }
    assert answer["identities"]["train"] == {"min": 2, "median": 2.0, "max": 2, "counts": {"anna": 2, "ben": 2}}
    assert answer["protocol"]["splits"] == FORMATS["folders"].protocol


def test_every_readable_image_has_a_hash_and_a_size(tmp_path: Path) -> None:
    examination = look(paint(tmp_path, *GOOD))
    assert {(file.width, file.height) for file in examination.files.values()} == {(8, 16)}
    assert len({file.sha256 for file in examination.files.values()}) == len(GOOD) == len(examination.files)
    assert all(file.num_bytes == path.stat().st_size for path, file in examination.files.items())


def test_the_fingerprint_changes_with_label_split_and_content_but_not_with_the_place(tmp_path: Path) -> None:
    def fingerprint(folder: str, *names: str) -> str:
        return look(paint(tmp_path / folder, *names)).report.fingerprint

    original = fingerprint("a", *GOOD)
    assert original == fingerprint("b/wrapped", *reversed(GOOD))
    assert original != fingerprint("c", *GOOD[1:])
    relabelled = paint(tmp_path / "d", *GOOD)
    (relabelled / "gallery/carl").rename(relabelled / "gallery/karl")
    repainted = paint(tmp_path / "e", *GOOD)
    paint(repainted / "x", "y.png").joinpath("y.png").replace(repainted / GOOD[0])
    prints = {original, *(look(root).report.fingerprint for root in (relabelled, repainted))}
    assert len(prints) == 3
    assert all(value.startswith("sha256:") and len(value) == 71 for value in prints)


def test_queries_that_cannot_be_answered_are_named_at_once(tmp_path: Path) -> None:
    report = look(paint(tmp_path, *GOOD, "query/carl/3_c2.png", "query/emil/1_c1.png", "query/emil/2_c1.png")).report
    finding = findings(report)["queries-without-cross-camera-positive"]
    assert (finding.severity, finding.count) == ("warning", 3)
    assert finding.samples == ("carl: in gallery by the query's camera 2 only", "emil: not in gallery")
    assert report.evaluable_queries == 2
    assert report.unevaluable_identities == ("carl", "emil")


MARKET = (
    "bounding_box_train/0002_c1s1_000451_03.jpg",
    "bounding_box_train/0007_c3s2_000012_01.jpg",
    "query/0001_c1s1_001051_00.jpg",
    "bounding_box_test/0001_c2s1_001051_03.jpg",
    "bounding_box_test/0000_c1s1_000151_01.jpg",
)


def test_distractors_are_no_identity_and_match_no_query(tmp_path: Path) -> None:
    report = look(paint(tmp_path, *MARKET)).report
    assert (report.splits["gallery"].identities, report.splits["gallery"].images) == (1, 2)
    assert report.evaluable_queries == 1
    assert findings(report)["distractors"].samples == ("bounding_box_test/0000_c1s1_000151_01.jpg",)


@pytest.mark.parametrize("name", ["query/0000_c3s1_000001_00.jpg", "bounding_box_train/0000_c3s1_000001_00.jpg"])
def test_0000_is_a_person_where_people_are_counted_from_it(tmp_path: Path, name: str) -> None:
    report = look(paint(tmp_path, *MARKET, name)).report
    assert report.splits["gallery"].identities == 2
    assert report.evaluable_queries == 1 + name.startswith("query")
    assert "distractors" not in findings(report)


def test_in_own_folders_0000_is_a_person(tmp_path: Path) -> None:
    report = look(paint(tmp_path, *GOOD, "gallery/0000/1_c1.png", "query/0000/1_c2.png")).report
    assert report.splits["gallery"].identities == 3
    assert report.evaluable_queries == 3


def test_without_cameras_every_image_counts_as_another_camera_and_the_finding_says_so(tmp_path: Path) -> None:
    names = [name.replace("_c1", "").replace("_c2", "") for name in GOOD]
    report = look(paint(tmp_path, *names)).report
    assert report.evaluable_queries == 2
    assert findings(report)["no-camera-labels"].count == len(GOOD)
    assert "a camera of its own" in findings(report)["no-camera-labels"].detail
    assert "single-camera" not in findings(report)
    assert report.cameras == {"": {"train": 4, "query": 2, "gallery": 2}}


def test_one_camera_only_is_said_and_leaves_no_evaluable_query(tmp_path: Path) -> None:
    report = look(paint(tmp_path, *(name.replace("_c2", "_c1") for name in GOOD))).report
    assert findings(report)["single-camera"].samples == ("camera 1",)
    assert findings(report)["queries-without-cross-camera-positive"].count == 2
    assert report.evaluable_queries == 0
    assert "single-camera-identities" not in findings(report)
    assert all(finding.severity != "error" for finding in report.findings)


def test_identities_seen_by_one_camera_or_short_of_images_are_named(tmp_path: Path) -> None:
    found = findings(look(paint(tmp_path, *GOOD, "train/carla/1_c1.png"), images_per_identity=2).report)
    assert found["single-camera-identities"].samples == ("carla",)
    assert found["identities-below-k"].samples == ("carla: 1",)
    assert "fewer than 2 images" in found["identities-below-k"].detail


def test_people_in_train_and_test_are_named(tmp_path: Path) -> None:
    found = findings(look(paint(tmp_path, *GOOD, "train/carl/8_c1.png", "train/carl/9_c2.png")).report)
    assert (found["identity-overlap"].severity, found["identity-overlap"].samples) == ("warning", ("carl",))


def test_copies_within_a_split_and_across_splits_are_told_apart(tmp_path: Path) -> None:
    root = paint(tmp_path, *GOOD)
    (root / "train/anna/3_c1.png").write_bytes((root / "train/anna/1_c1.png").read_bytes())
    (root / "gallery/carl/3_c1.png").write_bytes((root / "query/carl/1_c1.png").read_bytes())
    found = findings(look(root).report)
    assert found["duplicate-pictures"].samples == ("train/anna/1_c1.png = train/anna/3_c1.png",)
    assert found["duplicates-across-splits"].samples == ("query/carl/1_c1.png = gallery/carl/3_c1.png",)


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims this size."""
    header = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def test_files_that_are_no_images_are_left_out_and_named(tmp_path: Path) -> None:
    root = paint(tmp_path, *GOOD, "train/anna/whole_c1.jpg")
    whole = (root / "train/anna/whole_c1.jpg").read_bytes()
    bad = {
        "a_text.jpg": b"I am no image",
        "b_empty.jpg": b"",
        "c_truncated.jpg": whole[: len(whole) // 2],
        "d_too_many_pixels.png": bomb(9_000, 8_000),
        "e_bomb.png": bomb(60_000, 60_000),
        "f_page.jpg": b"<html><body>404</body></html>",
    }
    for name, content in bad.items():
        (root / "train/anna" / name).write_bytes(content)
    (root / "train/anna/g_broken_link.jpg").symlink_to("nowhere.jpg")
    examination = look(root)
    found = findings(examination.report)["unreadable-pictures"]
    assert found.count == len(bad)
    assert [sample.split(":")[0].split("/")[-1] for sample in found.samples] == sorted(bad)
    assert str(tmp_path) not in "".join(found.samples)
    assert len(examination.contents.images["train"]) == 5
    assert not {path.name for path in examination.files} & set(bad)


def test_files_a_manifest_lists_but_that_are_not_there_are_unreadable(tmp_path: Path) -> None:
    paint(tmp_path, "1.png", "2.png")
    rows = ["path,identity,split", "1.png,a,train", "2.png,b,train", "gone.png,b,train", f"{'x' * 300}.png,b,train"]
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    found = findings(look(tmp_path).report)["unreadable-pictures"]
    assert found.count == 2
    assert found.samples[0] == "gone.png: no such file"


@pytest.mark.parametrize(
    ("names", "is_error"),
    [
        (["train/anna/1_c1.png", "train/anna/2_c2.png"], True),
        (["query/anna/1_c1.png", "gallery/anna/2_c1.png"], True),
        (["train/anna/1_c1.png", "train/ben/1_c1.png"], False),
        (["query/anna/1_c1.png", "gallery/anna/2_c2.png"], False),
        (["gallery/anna/1_c1.png"], False),
    ],
)
def test_only_what_can_neither_be_trained_on_nor_evaluated_is_an_error(
    tmp_path: Path, names: list[str], is_error: bool
) -> None:
    report = look(paint(tmp_path, *names)).report
    assert [finding.code for finding in report.findings if finding.severity == "error"] == ["unusable"] * is_error
    assert "empty-split" in findings(report)


def test_a_data_set_without_any_readable_image_is_an_error_and_has_a_report(tmp_path: Path) -> None:
    (tmp_path / "train/anna").mkdir(parents=True)
    (tmp_path / "train/anna/1.jpg").write_text("no image")
    report = look(tmp_path).report
    assert report.findings[0].code == "unusable"
    assert report.splits["train"].images == 0
    assert report.identities["train"].counts == {}


def test_what_reading_passed_over_is_in_the_report(tmp_path: Path) -> None:
    paint(tmp_path, "query/0001_c1s1_000001_00.png", "bounding_box_test/0001_c2s1_000001_00.png")
    paint(tmp_path, "bounding_box_test/-1_c2s1_000002_00.png", "query/me.png")
    (tmp_path / "query/0001_c1s1_000009_00.png").symlink_to("/etc/passwd")
    found = findings(look(tmp_path).report)
    assert found["junk-dropped"].severity == "info"
    assert found["unmatched-names"].samples == ("query/me.png",)
    assert found["escaping-links"].severity == "warning"


def test_a_withdrawn_data_set_says_so(tmp_path: Path) -> None:
    paint(tmp_path, "query/0005_c2_f0046985.jpg", "bounding_box_test/0005_c5_f0044158.jpg")
    assert findings(look(tmp_path).report)["withdrawn"].severity == "warning"


def test_findings_come_errors_first(tmp_path: Path) -> None:
    severities = [finding.severity for finding in look(paint(tmp_path, "query/anna/1_c1.png")).report.findings]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    assert len(set(severities)) == 3


def test_progress_reaches_the_end_and_stopping_gives_nothing(tmp_path: Path) -> None:
    contents = read(paint(tmp_path, *(f"train/anna/{number}.png" for number in range(70))))
    heard: list[tuple[int, int]] = []
    examine(contents, on_progress=lambda done, total: heard.append((done, total)))
    assert heard == [(64, 70), (70, 70)]
    assert examine(contents, should_stop=lambda: True) is None


def test_every_finding_and_format_is_documented() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [code for code in MEANINGS if f"`{code}`" not in text] == []
    assert [name for name in FORMATS if f"`{name}`" not in text] == []
