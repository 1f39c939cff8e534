"""The artifacts folder: files appear whole or not at all, folders are switched by one rename, paths stay inside.

All that touches `$REID_HOME` on disk goes through here, so that another store can take its place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from service.errors import Problem

_LOCK = ".lock"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def open_for_publishing(path: Path, *, mode: int = 0o600) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `path` at the end, on disk and complete; on an error nothing changes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            yield file
            file.flush()
            os.fsync(handle)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write `content` to `path`, whole or not at all."""
    with open_for_publishing(path, mode=mode) as file:
        file.write(content)


def publish_folder(temporary: Path, final: Path) -> None:
    """Rename a finished folder to its name, having flushed its files; `final` must not exist (FileExistsError).

    Both must lie on the same disk.
    """
    if final.exists():
        raise FileExistsError(f"{final} exists already; a published folder is never replaced")
    for folder, _, names in os.walk(temporary):
        for name in names:
            flush_file(Path(folder) / name)
        _sync_folder(Path(folder))
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary.rename(final)
    _sync_folder(final.parent)


def replace_file(finished: Path, final: Path) -> None:
    """Rename a finished file, which `flush_file` has flushed, to its name; an earlier file of that name is gone."""
    finished.replace(final)
    _sync_folder(final.parent)


def link_files(folder: Path, names: Iterable[str], into: Path) -> None:
    """Give those files of `folder`, which are on disk, a place in `into` as well; on the same disk."""
    into.mkdir(parents=True, exist_ok=True)
    for name in names:
        (into / name).hardlink_to(folder / name)
    _sync_folder(into)


def flush_file(path: Path) -> None:
    """Return when what was written to the file is on disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def delete_tree(folder: Path) -> None:
    """Remove the folder and all in it; nothing happens if it is not there. Links inside are removed, not followed."""
    if folder.is_symlink():
        folder.unlink()
    while folder.exists():
        with suppress(FileNotFoundError):  # another deletes it at the same time
            shutil.rmtree(folder)


def delete_file(path: Path) -> bool:
    """Remove the file; False if it was not there."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


@contextmanager
def held_file(path: Path) -> Iterator[BinaryIO]:
    """A new file at `path` that `try_lock` refuses to others until the block ends; an error in the block deletes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, path):  # a sweep took it for lost before it was locked
                continue
            try:
                yield file
            except BaseException:
                delete_file(path)
                raise
            return


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Makes and claims `folder` until the block ends, and deletes it then; gives False where somebody else has it.

    An error in the block, like the death of the process, gives it back but leaves it as it is, for whoever claims it
    next to clear up after us.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Under a lock of their parent, so that none is deleted between being made and being locked.
    with _locked(folder.parent):
        folder.mkdir(exist_ok=True)
        file = (folder / _LOCK).open("w")
        free = try_lock(file)
    with file:
        yield free
        if free:
            with _locked(folder.parent):
                delete_tree(folder)


def try_lock(file: IO[Any]) -> bool:
    """Locks the file until it is closed or this process dies; False where somebody else has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_full(error: OSError) -> bool:
    """True if the disk, or a quota on it, has no room."""
    return error.errno in _FULL


def ensure_free_space(folder: Path, *, needed_bytes: int, min_free_bytes: int) -> None:
    """Raise the 507 problem unless `min_free_bytes` stay free on the disk of `folder` after writing `needed_bytes`."""
    free = shutil.disk_usage(_nearest_existing(folder)).free
    if free - needed_bytes < min_free_bytes:
        raise Problem(
            "disk-full",
            f"{needed_bytes:,} bytes are to be written and {min_free_bytes:,} must stay free, but {free:,} are free.",
            hint="Delete data sets, models or galleries that nobody needs, or lower REID_MIN_FREE_BYTES.",
        )


def resolve_data_path(path: str, roots: Iterable[Path]) -> Path:
    """The real folder or file that `path` names, absolute or relative to a root; judged after links are followed.

    Raises:
        Problem: `path-outside-data-roots` unless the real path lies under one of `roots`, with the roots named;
            `invalid-dataset` if nothing is there.
    """
    roots = tuple(roots)
    if "\0" in path or ".." in Path(path).parts:
        raise _outside(path, roots)
    candidates = _real_candidates(path, roots)
    inside = [real for real in candidates if real is not None and _is_under_any(real, roots)]
    for real in inside:
        if _exists(real):
            return real
    if "\\" in path:  # as Windows writes it
        return resolve_data_path(path.replace("\\", "/"), roots)
    if len(inside) < len(candidates):
        raise _outside(path, roots, next((real for real in candidates if real is not None and _exists(real)), None))
    hint = "~ stands for no folder here. " if path.startswith("~") else ""
    raise Problem(
        "invalid-dataset", f"There is nothing at {path!r}.", hint=f"{hint}The data roots are {_listed(roots)}."
    )


def stored_path(path: Path, bases: Iterable[Path]) -> str:
    """A real path as rows keep it: relative to one of `bases`, so that these can move; absolute outside of them, and
    where another folder of that relative name would be found first."""
    bases = tuple(bases)
    for base in bases:
        if path.is_relative_to(base.resolve()):
            relative = path.relative_to(base.resolve()).as_posix()
            if find_stored(relative, bases) == path:
                return relative
    return str(path)


def find_stored(stored: str, bases: Iterable[Path]) -> Path:
    """The path that `stored_path` gave: under the first of `bases` that has it, or under the first one if none has."""
    candidates = [base.resolve() / stored for base in bases]
    return next((candidate for candidate in candidates if _exists(candidate)), candidates[0])


def resolve_inside(folder: Path, relative: str) -> Path:
    """The real path of `relative` under `folder`; raises the 404 problem if it would leave it, also by a link."""
    if "\0" not in relative and ".." not in Path(relative).parts:
        real = (folder / relative).resolve()
        if real.is_relative_to(folder.resolve()):
            return real
    raise Problem("not-found", f"There is no file {relative!r} here.")


def _real_candidates(path: str, roots: tuple[Path, ...]) -> list[Path | None]:
    candidates = [Path(path)] if Path(path).is_absolute() else [root / path for root in roots]
    return [_resolved(candidate) for candidate in candidates]


def _resolved(path: Path) -> Path | None:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # links that lead in a circle
        return None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name longer than the file system takes
        return False


def _is_under_any(real: Path, roots: tuple[Path, ...]) -> bool:
    return any(real.is_relative_to(root.resolve()) for root in roots)


def _outside(path: str, roots: tuple[Path, ...], real: Path | None = None) -> Problem:
    """The problem of a path that leads out; `real` is where it leads, if by a link."""
    leads = f" leads to {real}, which" if real is not None and str(real) != path.rstrip("/") else ""
    return Problem(
        "path-outside-data-roots",
        f"{path!r}{leads} is not under a data root; the roots are {_listed(roots)}.",
        hint="Move or mount the folder under a root, or add its parent to REID_DATA_ROOTS.",
    )


def _listed(roots: tuple[Path, ...]) -> str:
    return ", ".join(str(root) for root in roots)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / _LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_at(file: IO[Any], path: Path) -> bool:
    return path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))


def _nearest_existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
