"""The report of a data set: every image opened and counted, and whatever would spoil training or scores named."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from reid_core.data.contents import Contents
from reid_core.data.findings import Finding, find_all, unmatched_queries
from reid_core.data.preprocessing import MAX_PIXELS, decode, read_image_file
from reid_core.data.records import SPLITS, ImageRecord, Split
from reid_core.errors import ImageError

_REMARKS = ("cut-off-pictures", "animated-pictures")
_CHUNK = 64
"""Images between two reports of progress and two looks at `should_stop`."""


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """Distractors count as images, not as an identity; unknown cameras do not count."""

    images: int
    identities: int
    cameras: int


@dataclass(frozen=True, slots=True)
class IdentityCounts:
    """Images per identity of one split, distractors left out; `counts` maps each identity to its images."""

    min: int
    median: float
    max: int
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to "can I train and evaluate on this?".

    Attributes:
        cameras: camera label -> split -> images; "" is the unknown camera.
        evaluable_queries: queries with a gallery image of the same identity that another camera took.
        unevaluable_identities: the identities of all other queries, sorted.
        findings: errors first, then warnings, then infos.
        fingerprint: "sha256:..." over path, split, identity, camera and content of every readable image.
    """

    format: str
    confidence: float
    variant: str
    protocol: dict[str, str]
    splits: dict[Split, SplitCounts]
    cameras: dict[str, dict[Split, int]]
    identities: dict[Split, IdentityCounts]
    evaluable_queries: int
    unevaluable_identities: tuple[str, ...]
    findings: tuple[Finding, ...]
    fingerprint: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class File:
    """An image's file: hexadecimal SHA-256, size in bytes, width and height in pixels with the image upright."""

    sha256: str
    num_bytes: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Examination:
    """The report with what was learned on the way; `contents` and `files` have the readable images only."""

    report: Report
    contents: Contents
    files: dict[Path, File]


def examine(
    contents: Contents,
    *,
    images_per_identity: int = 4,
    max_pixels: int = MAX_PIXELS,
    threads: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Examination | None:
    """The report on a data set, or None where `should_stop` said so before the end.

    `images_per_identity` is the K that training will want of every person. `on_progress` hears of images done and
    in all. Images that cannot be decoded, or have more than `max_pixels`, are left out and reported, never fatal.
    """
    paths = list(dict.fromkeys(image.path for split in SPLITS for image in contents.images[split]))
    opened: dict[Path, _Opened | str] = {}
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(paths), _CHUNK):
            if should_stop():
                return None
            chunk = paths[start : start + _CHUNK]
            opened |= zip(chunk, pool.map(partial(_open, max_pixels=max_pixels), chunk), strict=True)
            if on_progress:
                on_progress(len(opened), len(paths))
    return _examination(contents, opened, images_per_identity)


@dataclass(frozen=True, slots=True)
class _Opened:
    sha256: str
    num_bytes: int
    size: tuple[int, int]
    remarks: tuple[str, ...]


def _open(path: Path, max_pixels: int) -> _Opened | str:
    """The file's hash and size, or why it cannot be used."""
    try:
        if not path.is_file():  # a pipe would block for ever
            return "no such file"
        content = read_image_file(path, max_pixels=max_pixels)
        decoded = decode(content, max_pixels=max_pixels, name=path.name)
    except ImageError as error:
        return error.detail
    except Exception as error:  # noqa: BLE001 - a hostile file can make a decoder raise anything
        return f"cannot be decoded: {error}"
    remarks = ("cut-off-pictures",) * decoded.cut_off + ("animated-pictures",) * decoded.animated
    return _Opened(hashlib.sha256(content).hexdigest(), len(content), decoded.image.size, remarks)


def _examination(contents: Contents, opened: Mapping[Path, _Opened | str], images_per_identity: int) -> Examination:
    good = {path: outcome for path, outcome in opened.items() if isinstance(outcome, _Opened)}
    bad = {path: outcome for path, outcome in opened.items() if isinstance(outcome, str)}
    readable = {
        split: tuple(image for image in images if image.path in good) for split, images in contents.images.items()
    }
    contents = replace(contents, images=readable)
    hashes = {path: outcome.sha256 for path, outcome in good.items()}
    remarks = {code: [path for path, outcome in good.items() if code in outcome.remarks] for code in _REMARKS}
    findings = find_all(contents, bad, remarks, hashes, images_per_identity)
    files = {path: File(outcome.sha256, outcome.num_bytes, *outcome.size) for path, outcome in good.items()}
    return Examination(_report(contents, findings, hashes), contents, files)


def _report(contents: Contents, findings: tuple[Finding, ...], hashes: Mapping[Path, str]) -> Report:
    unmatched = [query for query, _ in unmatched_queries(contents)]
    return Report(
        format=contents.format,
        confidence=contents.confidence,
        variant=contents.variant,
        protocol=dict(contents.protocol),
        splits={split: _split_counts(contents.images[split], contents.distractor) for split in SPLITS},
        cameras=_camera_counts(contents),
        identities={split: _identity_counts(contents.images[split], contents.distractor) for split in SPLITS},
        evaluable_queries=len(contents.images["query"]) - len(unmatched),
        unevaluable_identities=tuple(sorted({query.identity for query in unmatched})),
        findings=findings,
        fingerprint=_fingerprint(contents, hashes),
    )


def _split_counts(images: tuple[ImageRecord, ...], distractor: str) -> SplitCounts:
    return SplitCounts(
        images=len(images),
        identities=len({image.identity for image in images} - {distractor}),
        cameras=len({image.camera for image in images} - {""}),
    )


def _camera_counts(contents: Contents) -> dict[str, dict[Split, int]]:
    counts = {split: Counter(image.camera for image in contents.images[split]) for split in SPLITS}
    cameras = sorted(set().union(*counts.values()))
    return {camera: {split: counts[split][camera] for split in SPLITS} for camera in cameras}


def _identity_counts(images: tuple[ImageRecord, ...], distractor: str) -> IdentityCounts:
    counts = Counter(image.identity for image in images if image.identity != distractor)
    numbers = list(counts.values()) or [0]
    return IdentityCounts(min(numbers), float(median(numbers)), max(numbers), dict(sorted(counts.items())))


def _fingerprint(contents: Contents, hashes: Mapping[Path, str]) -> str:
    rows = sorted(
        json.dumps([contents.relative(image.path), split, image.identity, image.camera, hashes[image.path]])
        for split in SPLITS
        for image in contents.images[split]
    )
    return "sha256:" + hashlib.sha256("\n".join(rows).encode()).hexdigest()
