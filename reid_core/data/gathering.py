"""The images of one layout: names and lists that match become images, the others are counted.

Nothing is opened here but list files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from reid_core.data.contents import Gathered
from reid_core.data.format import Format, Layout
from reid_core.data.labels import JUNK, UNKNOWN_WORDS, label_fault, normal_label
from reid_core.data.listing import Listing, fence, is_inside, locator, printable
from reid_core.data.records import ImageRecord, Split

ListFolder = Callable[..., Listing]

_LONGEST_FRAME = 18
"""Digits that fit into a column."""


def splits_present(layout: Layout, root: Path, boundary: Path) -> list[Split]:
    """The splits whose folder and lists are there, and in no link's other end."""

    def is_present(split: Split) -> bool:
        lists = [root / name for name in layout.lists.get(split, ())]
        needed = [root / layout.folders[split], *lists, *(root / name for name in layout.needs)]
        return (
            needed[0].is_dir()
            and all(path.is_file() for path in needed[1:])
            and all(is_inside(path, boundary) for path in needed)
        )

    return [split for split in layout.folders if is_present(split)]


def gather(
    item: Format, layout: Layout, splits: list[Split], root: Path, boundary: Path, list_folder: ListFolder
) -> Gathered:
    """The images of the splits, and what was passed over."""
    gathered = Gathered()
    gathered.skip("escaping-links", [name for name in layout.folders.values() if not is_inside(root / name, boundary)])
    for split in splits:
        folder = root / layout.folders[split]
        if split in layout.lists:
            lines = [line for name in layout.lists[split] for line in _lines(root / name)]
            _take(item, split, folder, lines, gathered, fence(boundary))
        else:
            listing = list_folder(folder, deep=item.deep)
            names = [name for name in listing.names if not name.startswith(layout.aside)]
            _take(item, split, folder, names, gathered)
            for code, names in listing.skipped.items():
                gathered.skip(code, [f"{layout.folders[split]}/{name}" for name in names])
    return gathered


def folders_of(layout: Layout, splits: Collection[Split], root: Path) -> frozenset[Path]:
    """The folders that are looked into for images, lists and whatever the layout needs."""
    listed = [name for split in splits for name in layout.lists.get(split, ())]
    files = (root / name for name in (*listed, *layout.needs))
    return frozenset([root / layout.folders[split] for split in splits] + [file.parent for file in files])


def _take(
    item: Format,
    split: Split,
    folder: Path,
    names: Collection[str],
    gathered: Gathered,
    stays_inside: Callable[[Path], bool] | None = None,
) -> None:
    """Names that match become images; the others are counted under what is wrong with them."""
    skipped, locate = gathered.skipped, locator(folder)
    for name in names:
        match = item.match(name)
        if not match:
            skipped["unmatched-names"].append(f"{folder.name}/{name}")
            continue
        groups = match.groupdict()
        image = _image(locate(groups.get("path") or name), groups, item.cameras.get(split, ""))
        if image.identity in item.junk or image.identity == JUNK:
            skipped["junk-dropped"].append(f"{folder.name}/{name}")
        elif fault := label_fault(image.identity) or (image.camera and label_fault(image.camera)):
            skipped["refused-labels"].append(f"{folder.name}/{printable(name)}: {fault}")
        elif stays_inside and not stays_inside(image.path):
            skipped["escaping-links"].append(f"{folder.name}/{name}")
        else:
            gathered.images[split].append(image)


def _image(path: Path, groups: dict[str, str | None], camera: str) -> ImageRecord:
    camera = normal_label(groups.get("camera") or camera)
    scene, frame = groups.get("scene"), groups.get("frame") or ""
    return ImageRecord(
        path=path,
        identity=normal_label(groups["identity"] or ""),
        camera="" if camera in UNKNOWN_WORDS else f"s{scene}c{camera}" if scene else camera,
        frame=int(frame) if frame.isdecimal() and len(frame) <= _LONGEST_FRAME else None,
        clothes=normal_label(groups.get("clothes") or ""),
    )


def _lines(file: Path) -> list[str]:
    text = file.read_text(encoding="utf-8", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]
