"""The declaration of a data set by its registrar: folders of splits, meaning of names and columns, encoding."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reid_core.data.format import Format, Layout
from reid_core.data.records import SPLITS, Split
from reid_core.errors import DatasetError

DECLARED = "declared"
"""The format of a data set whose layout was declared."""

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
"""The suffixes of tables that may be registered themselves."""

GROUPS = ("identity", "camera", "frame", "clothes")
"""The named groups that a declared pattern may have."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """A declaration; each part may be left out.

    Attributes:
        folders: where the splits lie, below the data set's folder; "." is that folder itself.
        pattern: a regular expression with named groups, at the beginning of an image's path below its split's folder,
            or of its file name.
        columns: our column of a table -> how the table calls it.
        encoding: of a table's text and of the names in an archive; "" to find it out.
        trained: people of format `people` who were drawn for training when it was read before.
    """

    folders: Mapping[Split, str] = field(default_factory=dict)
    pattern: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    encoding: str = ""
    trained: frozenset[str] = frozenset()

    @property
    def format(self) -> Format:
        """The format that the declared folders and pattern make."""
        folders = ", ".join(f"{split} in {self.folders[split]}" for split in SPLITS if split in self.folders)
        return Format(
            name=DECLARED,
            title="Declared when it was registered",
            layout=folders,
            naming=self.pattern or _BY_FOLDER,
            protocol=f"splits as declared: {folders}; names {self.pattern or _BY_FOLDER}",
            pattern=compile_pattern(self.pattern or _BY_FOLDER),
            layouts=(Layout(self.folders),),
            loose=True,
            deep=True,
        )


def compile_pattern(text: str) -> re.Pattern[str]:
    """The declared pattern.

    Raises:
        DatasetError: it is no regular expression, lacks the group `identity`, or has groups that mean nothing.
    """
    try:
        pattern = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise DatasetError(f"The pattern {text!r} is no regular expression: {error}.", hint=_HINT) from error
    groups = set(pattern.groupindex)
    if "identity" not in groups or groups - set(GROUPS):
        named = ", ".join(sorted(groups)) or "none"
        raise DatasetError(f"The pattern {text!r} has the named groups {named}.", hint=_HINT)
    return pattern


def declaration_from_json(value: Mapping[str, Any] | None) -> Declaration:
    """The declaration that a row holds."""
    value = value or {}
    layout = value.get("layout") or {}
    return Declaration(
        folders={split: layout[split] for split in SPLITS if layout.get(split)},
        pattern=layout.get("pattern") or "",
        columns=value.get("columns") or {},
        encoding=value.get("encoding") or "",
        trained=frozenset(value.get("trained") or ()),
    )


_BY_FOLDER = "(?P<identity>[^/]+)/"
_HINT = r"Write e.g. (?P<identity>\d+)_c(?P<camera>\d+); the groups are identity, and if known camera, frame, clothes."
