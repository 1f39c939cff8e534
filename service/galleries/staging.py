"""Marks of work that goes on in a gallery, by which a sweep finds the leftovers of a process that was killed.

`galleries/.arriving/<gallery id>-<random>/` holds the images of one upload until rows name them: they get their place
among the gallery's by a hard link in the transaction that adds the rows. `galleries/.indexing/<gallery id>/` is held by
the gallery's index job. Each is held by `storage.claim`; one that nobody holds was left by the dead.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from service.settings import Settings
from service.storage import delete_file

_ARRIVING = ".arriving"
_INDEXING = ".indexing"


def new_staging_folder(settings: Settings, gallery_id: str) -> Path:
    """A folder of its own for an upload; to be claimed."""
    return settings.galleries_dir / _ARRIVING / f"{gallery_id}-{secrets.token_hex(8)}"


def staging_folders(settings: Settings) -> Iterator[tuple[str, Path]]:
    """(gallery id, folder) of the uploads that are arriving, and of those that died."""
    for folder in (settings.galleries_dir / _ARRIVING).glob("gal_*"):
        yield folder.name.rpartition("-")[0], folder


def forget_staged(settings: Settings, gallery_id: str, names: Iterable[str]) -> None:
    """Deletes files that were given their place already but still lie with their upload as well."""
    folders = [folder for owner, folder in staging_folders(settings) if owner == gallery_id]
    for name in names if folders else ():
        for folder in folders:
            delete_file(folder / name)


def indexing_folder(settings: Settings, gallery_id: str) -> Path:
    """The folder that an index job of the gallery claims, one job at a time."""
    return settings.galleries_dir / _INDEXING / gallery_id


def indexing_folders(settings: Settings) -> Iterator[tuple[str, Path]]:
    """(gallery id, folder) of the index jobs that are running, and of those that died."""
    for folder in (settings.galleries_dir / _INDEXING).glob("gal_*"):
        yield folder.name, folder
