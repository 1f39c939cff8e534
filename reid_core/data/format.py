"""The format of a data set, as data: the folder of each split, the meaning of an image's name, the making of splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reid_core.data.contents import Images
from reid_core.data.records import Split

READ_SUFFIXES = ("jpg", "jpeg", "jpe", "jfif", "png", "bmp", "webp", "gif", "avif", "tif", "tiff", "ppm", "pgm", "pnm")
UNREAD_SUFFIXES = ("heic", "heif", "hif", "jxl", "jp2", "j2k", "jpx", "psd", "dng", "cr2", "cr3", "nef", "arw", "tga")
"""Images by their names, but of types that are not decoded: they are opened, and refused by the name of the type."""

# Copies of Market-1501 hold files named `.jpg.jpg`.
SUFFIX = rf"(?:\.(?:{'|'.join(READ_SUFFIXES + UNREAD_SUFFIXES)}))+"


@dataclass(frozen=True, slots=True)
class Layout:
    """One arrangement of folders. Where `lists` names files for a split, these say which images it has.

    Attributes:
        needs: further files without which this is not the layout.
        aside: beginnings of names below a split's folder that are no images.
    """

    folders: Mapping[Split, str]
    lists: Mapping[Split, tuple[str, ...]] = field(default_factory=dict)
    variant: str = ""
    needs: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Format:
    """One format: its looks and its reader.

    Attributes:
        layout, naming, notes: for a person.
        layouts: the arrangement with most splits present is taken, the first among equals.
        pattern: matches an image's path below its split's folder, or a line of a list file; groups `identity` and,
            where there are such, `camera`, `scene`, `frame`, `clothes`, `path`.
        loose: the pattern need only match the beginning of an image's path, or of its file name.
        deep: images lie in sub-folders.
        junk: identities whose images are dropped.
        distractor: the identity of gallery images that match no query, where neither train nor query has it.
        cameras: the camera of a whole split, where a folder tells it.
        variant_folders: folders that hold one variant each; folder name -> variant.
        arrange: makes the splits where folders do not, of what was read and the folder that it lies in.
        weight: confidence when every name matches; below 1 where the names say little.
        withdrawn: why the data set should not be used any more.
    """

    name: str
    title: str
    layout: str
    naming: str
    protocol: str
    pattern: re.Pattern[str]
    layouts: tuple[Layout, ...]
    notes: tuple[str, ...] = ()
    loose: bool = False
    deep: bool = False
    junk: frozenset[str] = frozenset()
    distractor: str = ""
    cameras: Mapping[Split, str] = field(default_factory=dict)
    variant_folders: Mapping[str, str] = field(default_factory=dict)
    arrange: Callable[[Images, Path], Images] | None = None
    weight: float = 1.0
    withdrawn: str = ""

    def match(self, name: str) -> re.Match[str] | None:
        """Reads an image's path, or a line of a list, by the pattern; None where it does not fit."""
        if not self.loose:
            return self.pattern.fullmatch(name)
        if not _IMAGE.search(name):
            return None
        return self.pattern.match(name) or self.pattern.match(name.rpartition("/")[2])

    def describe(self) -> dict[str, Any]:
        """For a person: name, title, layout (several lines), naming, protocol, notes; `reader` says that it is read."""
        return {
            "name": self.name,
            "title": self.title,
            "reader": True,
            "layout": self.layout,
            "naming": self.naming,
            "protocol": self.protocol,
            "notes": list(self.notes) + ([self.withdrawn] if self.withdrawn else []),
        }


def name_pattern(text: str) -> re.Pattern[str]:
    """A pattern of names: digits are ASCII, letters either case."""
    return re.compile(text, re.ASCII | re.IGNORECASE)


_IMAGE = name_pattern(SUFFIX + r"\Z")

MARKET_FOLDERS = Layout({"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"})
DISTRACTOR_NOTE = "Identity 0000 marks distractors, unless train or query has it: kept in the gallery, no match."
