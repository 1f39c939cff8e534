"""The files below a folder by name: sorted, without debris, and none that a link leads out of the data set."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from reid_core.data.debris import is_debris
from reid_core.data.labels import normal_label


@dataclass(frozen=True, slots=True)
class Listing:
    """`names` are relative to the folder, with forward slashes; `skipped` maps a finding code to names not taken."""

    names: tuple[str, ...]
    skipped: dict[str, list[str]]


def list_files(folder: Path, boundary: Path, *, deep: bool) -> Listing:
    """The files of a folder, with those of its sub-folders where `deep`.

    `boundary` is the resolved folder that no link may lead out of. Nothing is opened, and an entry is not asked for
    more than the folder itself tells, so 100,000 names take well under a second.

    Raises:
        OSError: a folder cannot be read.
    """
    names: list[str] = []
    skipped: dict[str, list[str]] = defaultdict(list)
    waiting: list[tuple[Path, str, tuple[Path, ...]]] = [(folder, "", (real_path(folder),))]
    while waiting:
        current, prefix, ancestors = waiting.pop()
        for entry in _entries(current):
            name = prefix + entry.name
            kind = _kind(entry, boundary, ancestors)
            if kind == "file":
                names.append(name)
            elif kind == "folder" and deep:
                below = Path(entry.path)
                waiting.append((below, name + "/", (*ancestors, real_path(below))))
            else:
                skipped["unmatched-names" if kind == "folder" else kind].append(printable(name))
    return Listing(tuple(sorted(names)), {code: sorted(found) for code, found in skipped.items()})


def is_inside(path: Path, boundary: Path) -> bool:
    """True where the path, its links and `..` followed, lies in the boundary (itself already resolved)."""
    return real_path(path).is_relative_to(boundary)


def fence(boundary: Path) -> Callable[[Path], bool]:
    """`is_inside` for many paths in few folders."""
    folders: dict[Path, bool] = {}

    def stays_inside(path: Path) -> bool:
        if path.name == ".." or os.path.islink(path):  # noqa: PTH114 - Path.is_symlink raises on over-long names
            return is_inside(path, boundary)
        # Resolving costs a system call per part of the path, and most images share their folder.
        if path.parent not in folders:
            folders[path.parent] = is_inside(path.parent, boundary)
        return folders[path.parent]

    return stays_inside


def locator(root: Path) -> Callable[[str], Path]:
    """Finds a list's relative name below `root`, however its letters are composed there; unchanged if nowhere.

    A name typed on a keyboard (NFC) then finds the file that a Mac wrote (NFD), and the other way round.
    """
    known: dict[Path, dict[str, str]] = {}

    def locate(name: str) -> Path:
        path = root / name
        if name.isascii() or Path(name).is_absolute() or os.path.lexists(path):
            return path
        found = root
        for part in Path(name).parts:
            if not os.path.lexists(found / part):
                if found not in known:
                    known[found] = {normal_label(other): other for other in _names_in(found)}
                part = known[found].get(normal_label(part), part)
            found /= part
        return found

    return locate


def count_unread(root: Path, read: Collection[Path]) -> dict[str, int]:
    """The folders below `root` that hold files and are neither among `read`, nor above nor below one: file counts.

    The highest of each is named, relative to `root`.
    """
    on_the_way = {folder for path in read for folder in path.parents if folder.is_relative_to(root)} | {root}
    counts: dict[str, int] = {}
    waiting = [folder for folder in on_the_way if folder not in read and folder.is_dir()]
    for folder in waiting:
        for below in subfolders(folder):
            if below not in on_the_way and below not in read and (count := _count_files(below)):
                counts[below.relative_to(root).as_posix()] = count
    return dict(sorted(counts.items()))


def subfolders(folder: Path) -> list[Path]:
    """The folders directly below, no links and no debris, sorted."""
    return sorted(Path(entry.path) for entry in _entries(folder) if entry.is_dir(follow_symlinks=False))


def real_path(path: Path) -> Path:
    """The path with every link followed. A link that ends nowhere or in a circle gives a path where no file is."""
    return Path(os.path.realpath(path))  # Path.resolve raises RuntimeError on circles


def printable(name: str) -> str:
    """The name with bytes that are no UTF-8 written out, so that it can be shown, sent and stored."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _names_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except OSError:  # no folder, or none that may be read
        return []


def _count_files(folder: Path) -> int:
    below = subfolders(folder)
    with os.scandir(folder) as entries:
        own = sum(not is_debris(entry.name) and entry.is_file(follow_symlinks=False) for entry in entries)
    return own + sum(map(_count_files, below))


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not is_debris(entry.name))


def _kind(entry: os.DirEntry[str], boundary: Path, ancestors: tuple[Path, ...]) -> str:
    """`file`, `folder`, or the finding code under which the entry is skipped."""
    target: os.DirEntry[str] | Path = entry
    if entry.is_symlink():
        target = real_path(Path(entry.path))
        if not target.is_relative_to(boundary):
            return "escaping-links"
        if target in ancestors:  # else a link to a folder above it would be followed for ever
            return "unmatched-names"
    if printable(entry.name) == entry.name:
        if target.is_dir():
            return "folder"
        if target.is_file():
            return "file"
    return "unmatched-names"
