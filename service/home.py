"""The home folder: for its owner's eyes only, and in the hands of one `reid up` at a time."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.settings import Settings

_LOCK = "up.lock"
_PRIVATE = 0o077


class HomeTaken(Exception):
    """Another `reid up` has the home folder; the text says which."""


def keep_private() -> None:
    """Has this process and those it starts create folders with mode 0700 and files with mode 0600."""
    os.umask(_PRIVATE)


def prepare_home(settings: Settings) -> None:
    """Makes the home and the folders in it that people put things into; closes a home that is open to others."""
    for folder in (settings.home, settings.weights_dir, *settings.data_roots):
        if folder.is_relative_to(settings.home):
            folder.mkdir(parents=True, exist_ok=True)
    mode = stat.S_IMODE(settings.home.stat().st_mode)
    if mode & _PRIVATE and settings.home.stat().st_uid == os.geteuid():
        settings.home.chmod(mode & ~_PRIVATE)


@contextmanager
def hold_home(home: Path, holder: str) -> Iterator[None]:
    """Keeps the home for this process, which others are told is `holder`; the system gives it back when it ends.

    Raises:
        HomeTaken: another process holds it.
    """
    with (home / _LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise HomeTaken(file.read().strip() or "another process") from None
        file.truncate(0)
        file.write(holder)
        file.flush()
        yield


def holder_of(home: Path) -> str | None:
    """The words that the process which has the home now gave `hold_home`; None where none has it."""
    try:
        with (home / _LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given back when the file is closed
    except BlockingIOError:
        return (home / _LOCK).read_text().strip()
    except FileNotFoundError:
        pass
    return None
