"""Records of searches, kept for a while so that their explanations can be drawn: `searches/<search id>/`.

A record holds ids, scores and the images that the searcher sent; vectors, maps and images of galleries stay where
erasing finds them. Only searches with `explain` leave one, for REID_EXPLANATION_MINUTES.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from service.auth import Caller
from service.clock import utc_now
from service.errors import Problem
from service.settings import Settings
from service.storage import delete_tree, ensure_free_space, write_file

_RECORD = "record.json"
_SEARCH_ID = re.compile(r"search_[0-9a-z]{26}")


@dataclass(frozen=True, slots=True)
class KeptMatch:
    """A result as it was answered; `picture` is which of the query's images explains it, from 0.

    `probability` is None without a calibration, and in records of earlier versions.
    """

    image_id: str
    score: float
    picture: int
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class KeptSearch:
    """A search that was answered. `image_id` is the stored image that it asked by; without it files were sent."""

    gallery: str
    key_id: str | None
    image_id: str | None
    results: tuple[KeptMatch, ...]


def keep_record(settings: Settings, search_id: str, record: KeptSearch, images: Sequence[bytes]) -> None:
    """Writes the record, and of the files that were sent those that explain a result; raises 507 for want of room."""
    folder = _folder(settings, search_id)
    needed = {match.picture: images[match.picture] for match in record.results if images}
    size = sum(map(len, needed.values()))
    ensure_free_space(settings.home, needed_bytes=size, min_free_bytes=settings.min_free_bytes)
    # First, so that no image lies there of which nobody knows what gallery it was shown.
    write_file(folder / _RECORD, json.dumps(asdict(record)).encode(), mode=0o600)
    for number, content in needed.items():
        write_file(folder / f"picture-{number}", content, mode=0o600)


def read_record(settings: Settings, search_id: str, caller: Caller) -> KeptSearch:
    """The record of that search, for who searched and for admins; raises 404, also once its time is over."""
    folder = _folder(settings, search_id) if _SEARCH_ID.fullmatch(search_id) else None
    if folder is not None and _age_seconds(folder) >= _seconds(settings):
        _delete(folder)
    record = _read(folder) if folder is not None else None
    if record is None or (record.key_id != caller.key_id and not caller.may("admin")):
        raise _no_record(search_id)
    return record


def read_image(settings: Settings, search_id: str, number: int) -> bytes:
    """The file that was sent as the query's image `number`, from 0; raises 404 once it is gone."""
    try:
        return (_folder(settings, search_id) / f"picture-{number}").read_bytes()
    except FileNotFoundError:
        raise _no_record(search_id) from None


def erase_records(settings: Settings, image_ids: Set[str]) -> None:
    """Deletes the records of searches that asked by one of these images or found one."""
    for folder, record in _records(settings):
        if not image_ids.isdisjoint({record.image_id, *(match.image_id for match in record.results)}):
            _delete(folder)


def records_of(settings: Settings, gallery_id: str) -> list[Path]:
    """The folders of all records of that gallery."""
    return [folder for folder, record in _records(settings) if record.gallery == gallery_id]


def last_end(settings: Settings, gallery_id: str) -> datetime | None:
    """The time at which the last record with an image sent to that gallery will be deleted; None without any."""
    ages = [_age_seconds(folder) for folder in records_of(settings, gallery_id) if any(folder.glob("picture-*"))]
    return utc_now() + timedelta(seconds=_seconds(settings) - min(ages)) if ages else None


def sweep_records(settings: Settings) -> None:
    """Deletes the records whose time is over."""
    for folder in settings.searches_dir.glob("*"):
        if _age_seconds(folder) >= _seconds(settings):
            _delete(folder)


def _records(settings: Settings) -> Iterator[tuple[Path, KeptSearch]]:
    for folder in settings.searches_dir.glob("*"):
        if record := _read(folder):
            yield folder, record


def _read(folder: Path) -> KeptSearch | None:
    try:
        values = json.loads((folder / _RECORD).read_text())
    except FileNotFoundError:
        return None
    return KeptSearch(**{**values, "results": tuple(KeptMatch(**result) for result in values["results"])})


def _folder(settings: Settings, search_id: str) -> Path:
    return settings.searches_dir / search_id


def _no_record(search_id: str) -> Problem:
    return Problem(
        "not-found",
        f"There is no explanation of a search {search_id!r}.",
        hint="Searches with explain=true are kept for REID_EXPLANATION_MINUTES and explained to who asked them.",
    )


def _seconds(settings: Settings) -> float:
    return 60 * settings.explanation_minutes


def _age_seconds(folder: Path) -> float:
    """Since something was last written to it; 0 where it is gone."""
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _delete(folder: Path) -> None:
    with suppress(FileNotFoundError):  # another process sweeps at the same time
        delete_tree(folder)
