"""What is wrong or remarkable in a data set: a table of what each finding means, and small functions that look for it.

docs/datasets.md lists every code.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from reid_core.data.contents import SAMPLES, Contents
from reid_core.data.formats import FORMATS
from reid_core.data.labels import look_alikes, shown_label
from reid_core.data.records import SPLITS, Picture, Split

Severity = Literal["error", "warning", "info"]


MANY_SAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Meaning:
    """How bad a finding is, what follows from it, what to do about it, and how many of its cases are named."""

    severity: Severity
    detail: str
    fix: str
    samples: int = SAMPLES


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding as reported: `count` cases, the first of them in `samples`."""

    code: str
    severity: Severity
    count: int
    samples: tuple[str, ...]
    detail: str
    fix: str


MEANINGS: dict[str, Meaning] = {
    "unusable": Meaning(
        "error",
        "It can neither be trained on (that takes two people in train) nor evaluated (a query with a match).",
        "See the other findings; add pictures to train, or matches of the query identities to gallery.",
    ),
    "queries-without-cross-camera-positive": Meaning(
        "warning",
        "These queries have no gallery picture of the same identity from another camera, so no answer can be right. "
        "Evaluation leaves them out; with no other queries it is refused.",
        "Put a picture of each named identity from another camera into gallery, or take it out of query. If the camera "
        "labels are wrong or all the same, leave them empty.",
    ),
    "single-camera": Meaning(
        "warning",
        "Every picture has the same camera. Pictures by the query's own camera are left out of the scores, so nothing "
        "can be evaluated, and camera-aware training has nothing to learn from.",
        "Correct the camera labels. If there is really one camera only, leave them empty: every picture then counts as "
        "taken by a camera of its own.",
    ),
    "no-camera-labels": Meaning(
        "warning",
        "These pictures have no camera. Each counts as taken by a camera of its own: near-identical shots of the same "
        "moment are then matches, and scores look better than they are. Camera-aware training ignores them.",
        "Name the camera in the file name (_c1, _cam1), in a sub-folder, or in the manifest's column camera.",
    ),
    "single-camera-identities": Meaning(
        "info",
        "These training identities were seen by one camera only: they teach nothing about a change of camera.",
        "Add pictures of them from other cameras, if there are any.",
    ),
    "identities-below-k": Meaning(
        "info",
        "These training identities have fewer than {k} pictures: a batch that wants {k} of each shows some twice.",
        "Add pictures of them, or lower settings.batch.images_per_identity.",
    ),
    "identity-overlap": Meaning(
        "warning",
        "These identities are in train and also in query or gallery: scores will be better than on people never seen.",
        "Keep each person in train or in query and gallery. If these are different people, give them different labels.",
    ),
    "duplicate-pictures": Meaning(
        "warning",
        "The same file lies several times in one split: it counts several times in training or in the scores.",
        "Remove the copies; if they bear different identities, find the right one first.",
    ),
    "duplicates-across-splits": Meaning(
        "warning",
        "The same file lies in several splits: a query that finds itself, or was trained on, lifts the scores.",
        "Keep each picture in one split.",
    ),
    "unreadable-pictures": Meaning(
        "warning",
        "These files cannot be decoded and are left out.",
        "Save or download them again, or remove them; types that are not read are converted to JPEG or PNG.",
        MANY_SAMPLES,
    ),
    "cut-off-pictures": Meaning(
        "warning",
        "The end of these JPEG files is missing. They are read as browsers show them: what is missing is grey.",
        "Copy or download them again, or remove them.",
    ),
    "animated-pictures": Meaning(
        "info",
        "These files hold several pictures, of which the first is read.",
        "Save the others as files of their own.",
    ),
    "look-alike-labels": Meaning(
        "warning",
        "These labels differ by case, width or invisible characters alone, and count as different people or cameras.",
        "Give one person one label; if they are different, label them so that it can be seen.",
    ),
    "refused-labels": Meaning(
        "warning",
        "The labels of these pictures cannot be used: they mean that nothing is known, or no address can carry them. "
        "The pictures are left out.",
        "Rename them: any text but words like None, `.` and `..`, backslashes and control characters.",
    ),
    "unknown-words": Meaning(
        "info",
        "These words of the table were taken to mean that nothing is known.",
        "None, if that is what they mean.",
        MANY_SAMPLES,
    ),
    "archive-names": Meaning(
        "info",
        "The archive does not say how its names are encoded; they were read as told here.",
        "If names look wrong, upload it again and say `encoding`, or pack it with names in UTF-8.",
    ),
    "unread-folders": Meaning(
        "info",
        "These folders hold files that the format has no use for; nothing in them was read.",
        "None, if that is intended; else declare a `layout` that names them.",
        MANY_SAMPLES,
    ),
    "changed-files": Meaning(
        "warning",
        "These files are not what they were when the data set was read.",
        "Put them back, or POST /datasets/{id}/rescan to read them as they are.",
        MANY_SAMPLES,
    ),
    "left-out": Meaning("info", "The format's protocol has no use for these pictures.", "None needed."),
    "unmatched-names": Meaning(
        "warning",
        "These names do not fit the format and are left out.",
        "Rename or remove them, or name another format when registering.",
    ),
    "incomplete-rows": Meaning(
        "warning", "These rows of the manifest have no path or no identity and are left out.", "Fill them in."
    ),
    "escaping-links": Meaning(
        "warning",
        "These lead out of the data set's folder, by a link or by `..`, and are left out.",
        "Copy the files into the folder, or register the folder that holds them.",
    ),
    "withdrawn": Meaning(
        "warning",
        "The authors have withdrawn this data set: the people in it had not agreed to be filmed.",
        "Use another one, and publish nothing measured on this.",
    ),
    "empty-split": Meaning(
        "info",
        "These splits have no pictures. Training needs train; evaluation needs query and gallery.",
        "None, if that is intended.",
    ),
    "unused-columns": Meaning(
        "info",
        "These columns of the manifest are not used.",
        "Check their spelling: path, identity, split, camera, captured_at, frame; or declare `columns`.",
    ),
    "junk-dropped": Meaning("info", "The format marks these pictures as junk; they are left out.", "None needed."),
    "distractors": Meaning(
        "info", "Gallery pictures of identity 0000 match no query; they only make the search harder.", "None needed."
    ),
}


def find_all(
    contents: Contents,
    unreadable: Mapping[Path, str],
    remarks: Mapping[str, Sequence[Path]],
    hashes: Mapping[Path, str],
    images_per_identity: int,
) -> tuple[Finding, ...]:
    """Every finding, errors first.

    Args:
        contents: the readable pictures.
        unreadable: file -> why it cannot be decoded.
        remarks: finding code -> the readable pictures that it is about.
        hashes: file -> hash of its bytes, for every readable picture.
        images_per_identity: pictures that a training batch wants of each identity.
    """
    cases: dict[str, Sequence[str | Path]] = {
        "unusable": _lacks(contents),
        "queries-without-cross-camera-positive": [reason for _, reason in unmatched_queries(contents)],
        "single-camera": _only_camera(contents),
        "no-camera-labels": [picture.path for picture in _pictures(contents) if not picture.camera],
        "single-camera-identities": _seen_by_one_camera(contents),
        "identities-below-k": _below(images_per_identity, contents),
        "identity-overlap": _in_train_and_test(contents),
        "duplicate-pictures": _copies(contents, hashes, across=False),
        "duplicates-across-splits": _copies(contents, hashes, across=True),
        "unreadable-pictures": [f"{contents.relative(path)}: {why}" for path, why in unreadable.items()],
        **remarks,
        "look-alike-labels": _look_alikes(contents),
        "withdrawn": [contents.format] if contents.format in FORMATS and FORMATS[contents.format].withdrawn else [],
        "empty-split": [split for split in SPLITS if not contents.pictures[split]],
        "distractors": [picture.path for picture in distractors(contents)],
    }
    found = [_finding(code, len(names), names, contents, images_per_identity) for code, names in cases.items() if names]
    found += [_finding(code, skipped.count, skipped.samples, contents) for code, skipped in contents.skipped.items()]
    return tuple(sorted(found, key=lambda finding: _ORDER.index(finding.severity)))


def finding_of(code: str, cases: Sequence[str]) -> Finding:
    """The finding of that code, which counts and names the cases."""
    meaning = MEANINGS[code]
    return Finding(code, meaning.severity, len(cases), tuple(cases[: meaning.samples]), meaning.detail, meaning.fix)


def replace_finding(report: Mapping[str, Any], finding: Mapping[str, Any]) -> dict[str, Any]:
    """A report as JSON with this finding, also as JSON, in the place of an earlier one of its code."""
    others = [other for other in report["findings"] if other["code"] != finding["code"]]
    findings = sorted([*others, finding], key=lambda each: _ORDER.index(each["severity"]))
    return {**report, "findings": findings}


def unmatched_queries(contents: Contents) -> list[tuple[Picture, str]]:
    """The queries without a gallery picture of the same identity from another camera, each with the reason.

    An unknown camera ("") counts as another camera than every other, unknown ones too.
    """
    cameras: dict[str, set[str]] = defaultdict(set)
    for picture in contents.pictures["gallery"]:
        cameras[picture.identity].add(picture.camera)
    unmatched = []
    for query in contents.pictures["query"]:
        seen = cameras.get(query.identity, set())
        if not seen:
            unmatched.append((query, f"{query.identity}: not in gallery"))
        elif query.camera and seen == {query.camera}:
            unmatched.append((query, f"{query.identity}: in gallery by the query's camera {query.camera} only"))
    return unmatched


_ORDER: tuple[Severity, ...] = ("error", "warning", "info")


def _finding(
    code: str, count: int, cases: Sequence[str | Path], contents: Contents, images_per_identity: int = 0
) -> Finding:
    meaning = MEANINGS[code]
    samples = [contents.relative(case) if isinstance(case, Path) else case for case in dict.fromkeys(cases)]
    detail = meaning.detail.format(k=images_per_identity)
    return Finding(code, meaning.severity, count, tuple(samples[: meaning.samples]), detail, meaning.fix)


def distractors(contents: Contents) -> list[Picture]:
    """The gallery pictures that the data set marks as showing nobody in query."""
    if not contents.distractor:
        return []
    return [picture for picture in contents.pictures["gallery"] if picture.identity == contents.distractor]


def _pictures(contents: Contents) -> Iterator[Picture]:
    for split in SPLITS:
        yield from contents.pictures[split]


def _lacks(contents: Contents) -> list[str]:
    """What is missing for training and for evaluation, if both are impossible; a gallery by itself can be searched."""
    people = len({picture.identity for picture in contents.pictures["train"]})
    queries, gallery = contents.pictures["query"], contents.pictures["gallery"]
    matched = len(queries) - len(unmatched_queries(contents))
    if people >= 2 or matched or (gallery and not queries):
        return []
    return [f"train: {people} people", f"query: {len(queries)} pictures, {matched} with a match in gallery"]


def _only_camera(contents: Contents) -> list[str]:
    cameras = {picture.camera for picture in _pictures(contents)}
    return [f"camera {camera}" for camera in cameras if camera] if len(cameras) == 1 else []


def _seen_by_one_camera(contents: Contents) -> list[str]:
    if _only_camera(contents):
        return []
    cameras = defaultdict(set)
    for picture in contents.pictures["train"]:
        cameras[picture.identity].add(picture.camera)
    return sorted(identity for identity, seen in cameras.items() if len(seen) == 1 and seen != {""})


def _below(images_per_identity: int, contents: Contents) -> list[str]:
    counts = Counter(picture.identity for picture in contents.pictures["train"])
    return [f"{identity}: {count}" for identity, count in sorted(counts.items()) if count < images_per_identity]


def _in_train_and_test(contents: Contents) -> list[str]:
    people = {split: {picture.identity for picture in contents.pictures[split]} for split in SPLITS}
    return sorted(people["train"] & (people["query"] | people["gallery"]))


def _look_alikes(contents: Contents) -> list[str]:
    """Of identities and of cameras, each group in one line."""
    told = []
    for kind in ("identity", "camera"):
        for group in look_alikes({getattr(picture, kind) for picture in _pictures(contents)}):
            told.append(f"{kind} " + " ~ ".join(f"'{shown_label(label)}'" for label in group))
    return told


def _copies(contents: Contents, hashes: Mapping[Path, str], *, across: bool) -> list[str]:
    """Neighbours among files of equal content, in different splits or else in the same one."""
    alike: dict[str, list[tuple[Split, Path]]] = defaultdict(list)
    for split in SPLITS:
        for picture in contents.pictures[split]:
            alike[hashes[picture.path]].append((split, picture.path))
    return [
        f"{contents.relative(first)} = {contents.relative(second)}"
        for group in alike.values()
        for (one_split, first), (other_split, second) in pairwise(group)
        if (one_split != other_split) == across
    ]
