"""Names in archives that do not say how they are encoded: what the bytes most likely mean, and a note of that.

A zip without the UTF-8 flag should hold names in code page 437, yet Windows writes that of its country. Which one is
found out by how much of the names are letters of the scripts that it is for; where that does not tell, one must say.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from reid_core.data.contents import SAMPLES, Contents, Skipped
from reid_core.errors import DatasetError

NOTE = ".archive-names.json"
"""The note beside the unpacked files; hidden names are no part of a data set."""

_SCRIPTS = {
    "gb2312": ("CJK",),
    "cp932": ("CJK", "HIRAGANA", "KATAKANA"),
    "euc-kr": ("HANGUL",),
    "big5": ("CJK",),
    "cp437": ("LATIN",),
    "cp850": ("LATIN",),
    "cp1252": ("LATIN",),
    "cp1250": ("LATIN",),
    "cp866": ("CYRILLIC",),
    "cp1251": ("CYRILLIC",),
}
"""Encodings that archives are written in, the likelier first, and the scripts of the letters that each is for."""

_SURE = 0.99
_MANY = 12
"""Characters that tell Hangul."""


@dataclass(frozen=True, slots=True)
class NameEncoding:
    """The encoding that names were read by: how many names beyond ASCII there were, and some of them as read."""

    encoding: str
    count: int
    samples: tuple[str, ...]


class Names:
    """Reads the names of one archive, all by the same encoding: what is asked for, or what the first of them tell."""

    def __init__(self, asked: str = "") -> None:
        self._asked = asked
        self.read_as: NameEncoding | None = None

    def settle(self, names: Collection[bytes]) -> None:
        """Decides on the encoding by these names, unless that is done; raises as `settle_encoding`."""
        self.read_as = self.read_as or settle_encoding(names, self._asked)

    def read(self, name: bytes) -> str:
        """The name as text; raises DatasetError where the encoding that was settled on does not fit."""
        self.settle([name])
        encoding = self.read_as.encoding if self.read_as else "ascii"
        try:
            return name.decode(encoding)
        except UnicodeError as error:
            raise DatasetError(f"Not all names in the archive are {encoding}.", hint=_ways([name])) from error


def settle_encoding(names: Collection[bytes], asked: str = "") -> NameEncoding | None:
    """Chooses the encoding of the names, of which only those beyond ASCII count; None where there are none.

    Raises:
        DatasetError: they cannot be read as `asked`, or, where nothing was asked, no encoding is the likely one.
    """
    foreign = [name for name in names if not name.isascii()]
    if not foreign:
        return None
    if asked:
        if (read := _decoded(foreign, asked)) is None:
            raise DatasetError(f"Names in the archive are not {asked}.", hint=_ways(foreign))
        return _settled(asked, read)
    if (read := _decoded(foreign, "utf-8")) is not None:
        return _settled("utf-8", read)
    likely = [encoding for encoding in _SCRIPTS if _likeness(foreign, encoding) >= _SURE]
    if "euc-kr" in likely and sum(len(name) for name in _decoded(foreign, "euc-kr") or []) >= _MANY:
        likely = ["euc-kr"]  # other writing would not keep to the part of the table that has Hangul
    scripts = {_SCRIPTS[encoding] for encoding in likely}
    if len(scripts) != 1:
        raise DatasetError("It is not clear how the names in the archive are encoded.", hint=_ways(foreign))
    return _settled(likely[0], _decoded(foreign, likely[0]) or [])


def write_note(folder: Path, names: NameEncoding) -> None:
    """Leaves the note in the folder of unpacked files."""
    (folder / NOTE).write_text(json.dumps(asdict(names)))


def with_archive_names(contents: Contents, folder: Path) -> Contents:
    """The contents with what is noted in `folder` among what was remarked at reading."""
    note = folder / NOTE
    if not note.is_file():
        return contents
    names = json.loads(note.read_text())
    samples = (f"read as {names['encoding']}", *names["samples"])
    return replace(contents, skipped={**contents.skipped, "archive-names": Skipped(names["count"], samples)})


def _settled(encoding: str, names: Sequence[str]) -> NameEncoding:
    return NameEncoding(encoding, len(names), tuple(names[: SAMPLES - 1]))


def _decoded(names: Collection[bytes], encoding: str) -> list[str] | None:
    try:
        return [name.decode(encoding) for name in names]
    except (UnicodeError, LookupError):
        return None


def _likeness(names: Collection[bytes], encoding: str) -> float:
    """The share of characters beyond ASCII that are letters of the encoding's scripts; 0 where it cannot read them."""
    read = _decoded(names, encoding)
    if read is None:
        return 0.0
    beyond = sum(not character.isascii() for name in read for character in name)
    fitting = sum(_fits(name, place, _SCRIPTS[encoding]) for name in read for place in range(len(name)))
    return fitting / max(1, beyond)


def _fits(name: str, place: int, scripts: tuple[str, ...]) -> bool:
    """True where the character is a letter of the scripts, in the company that it keeps in names.

    Letters of Latin with marks stand among plain ones, letters of other scripts among their like; capitals begin words.
    """
    character, before = name[place], name[place - 1 : place]
    if character.isascii() or not unicodedata.name(character, "").startswith(scripts):
        return False
    if before.islower() and character.isupper():
        return False
    if "LATIN" in scripts:
        return before.isascii()
    return not any(other.isascii() and other.isalpha() for other in (before, name[place + 1 : place + 2]))


def _ways(names: Sequence[bytes]) -> str:
    readings = {encoding: _decoded(names[:1], encoding) for encoding in _SCRIPTS}
    examples = ", ".join(f"{encoding}: {read[0]!r}" for encoding, read in readings.items() if read)
    return f"Say `encoding` when uploading, or pack it with names in UTF-8. The first such name reads as {examples}."
