"""Findings: small functions that look for what is wrong or remarkable in a data set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from reid_core.data.contents import Contents
from reid_core.data.formats import FORMATS
from reid_core.data.labels import look_alikes, shown_label
from reid_core.data.meanings import MEANINGS, Severity
from reid_core.data.records import SPLITS, ImageRecord, Split


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding as reported: `count` cases, the first of them in `samples`."""

    code: str
    severity: Severity
    count: int
    samples: tuple[str, ...]
    detail: str
    fix: str


def find_all(
    contents: Contents,
    unreadable: Mapping[Path, str],
    remarks: Mapping[str, Sequence[Path]],
    hashes: Mapping[Path, str],
    images_per_identity: int,
) -> tuple[Finding, ...]:
    """Every finding, errors first.

    Args:
        contents: the readable images.
        unreadable: file -> why it cannot be decoded.
        remarks: finding code -> the readable images that it is about.
        hashes: file -> hash of its bytes, for every readable image.
        images_per_identity: images that a training batch wants of each identity.
    """
    cases: dict[str, Sequence[str | Path]] = {
        "unusable": _lacks(contents),
        "queries-without-cross-camera-positive": [reason for _, reason in unmatched_queries(contents)],
        "single-camera": _only_camera(contents),
        "no-camera-labels": [image.path for image in _images(contents) if not image.camera],
        "single-camera-identities": _seen_by_one_camera(contents),
        "identities-below-k": _below(images_per_identity, contents),
        "identity-overlap": _in_train_and_test(contents),
        "duplicate-pictures": _copies(contents, hashes, across=False),
        "duplicates-across-splits": _copies(contents, hashes, across=True),
        "unreadable-pictures": [f"{contents.relative(path)}: {why}" for path, why in unreadable.items()],
        **remarks,
        "look-alike-labels": _look_alikes(contents),
        "withdrawn": [contents.format] if contents.format in FORMATS and FORMATS[contents.format].withdrawn else [],
        "empty-split": [split for split in SPLITS if not contents.images[split]],
        "distractors": [image.path for image in distractors(contents)],
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


def unmatched_queries(contents: Contents) -> list[tuple[ImageRecord, str]]:
    """The queries without a gallery image of the same identity from another camera, each with the reason.

    An unknown camera ("") counts as another camera than every other, unknown ones too.
    """
    cameras: dict[str, set[str]] = defaultdict(set)
    for image in contents.images["gallery"]:
        cameras[image.identity].add(image.camera)
    unmatched = []
    for query in contents.images["query"]:
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


def distractors(contents: Contents) -> list[ImageRecord]:
    """The gallery images that the data set marks as showing nobody in query."""
    if not contents.distractor:
        return []
    return [image for image in contents.images["gallery"] if image.identity == contents.distractor]


def _images(contents: Contents) -> Iterator[ImageRecord]:
    for split in SPLITS:
        yield from contents.images[split]


def _lacks(contents: Contents) -> list[str]:
    """Names what training and evaluation lack, if both are impossible; a gallery alone can be searched."""
    people = len({image.identity for image in contents.images["train"]})
    queries, gallery = contents.images["query"], contents.images["gallery"]
    matched = len(queries) - len(unmatched_queries(contents))
    if people >= 2 or matched or (gallery and not queries):
        return []
    return [f"train: {people} people", f"query: {len(queries)} images, {matched} with a match in gallery"]


def _only_camera(contents: Contents) -> list[str]:
    cameras = {image.camera for image in _images(contents)}
    return [f"camera {camera}" for camera in cameras if camera] if len(cameras) == 1 else []


def _seen_by_one_camera(contents: Contents) -> list[str]:
    if _only_camera(contents):
        return []
    cameras = defaultdict(set)
    for image in contents.images["train"]:
        cameras[image.identity].add(image.camera)
    return sorted(identity for identity, seen in cameras.items() if len(seen) == 1 and seen != {""})


def _below(images_per_identity: int, contents: Contents) -> list[str]:
    counts = Counter(image.identity for image in contents.images["train"])
    return [f"{identity}: {count}" for identity, count in sorted(counts.items()) if count < images_per_identity]


def _in_train_and_test(contents: Contents) -> list[str]:
    people = {split: {image.identity for image in contents.images[split]} for split in SPLITS}
    return sorted(people["train"] & (people["query"] | people["gallery"]))


def _look_alikes(contents: Contents) -> list[str]:
    """Lists look-alike labels of identities and of cameras, each group in one line."""
    groups = []
    for kind in ("identity", "camera"):
        for group in look_alikes({getattr(image, kind) for image in _images(contents)}):
            groups.append(f"{kind} " + " ~ ".join(f"'{shown_label(label)}'" for label in group))
    return groups


def _copies(contents: Contents, hashes: Mapping[Path, str], *, across: bool) -> list[str]:
    """Neighbours among files of equal content, in different splits or else in the same one."""
    alike: dict[str, list[tuple[Split, Path]]] = defaultdict(list)
    for split in SPLITS:
        for image in contents.images[split]:
            alike[hashes[image.path]].append((split, image.path))
    return [
        f"{contents.relative(first)} = {contents.relative(second)}"
        for group in alike.values()
        for (one_split, first), (other_split, second) in pairwise(group)
        if (one_split != other_split) == across
    ]
