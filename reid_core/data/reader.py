"""One reader for every format: finds out what a folder holds and gives its pictures by split.

Only names, list files and manifests are read here; `report.examine` opens the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from reid_core.data.contents import Contents, Gathered
from reid_core.data.formats import FORMATS, Format, Layout
from reid_core.data.listing import Listing, fence, is_debris, is_inside, list_files, printable, real_path, subfolders
from reid_core.data.manifest import find_manifests, read_manifest
from reid_core.data.records import Picture, Split
from reid_core.errors import DatasetError

LEAST_CONFIDENCE = 0.25
"""Below this, `auto` does not take a folder for a format."""

_UNSURE = 0.8
"""Factor on the confidence where a split is absent, or the variant is not told."""

_MAX_WRAPPING_FOLDERS = 8
_MISFITS = ("unmatched-names", "escaping-links", "incomplete-rows")

ListFolder = Callable[..., Listing]


@dataclass(frozen=True, slots=True)
class Detection:
    """A format that a folder may have; `root` is the folder below it that holds the layout."""

    format: str
    confidence: float
    variant: str
    root: Path


def detect(folder: Path) -> list[Detection]:
    """The formats that fit, best first; empty if none does. Folders that only wrap another one are seen through.

    Raises:
        DatasetError: the folder, or a manifest in it, cannot be read.
    """
    return [
        Detection(contents.format, contents.confidence, contents.variant, contents.root)
        for contents in _read_all(folder, FORMATS.values(), LEAST_CONFIDENCE)
    ]


def read(folder: Path, format: str = "auto") -> Contents:
    """The data set in a folder (or a manifest file), in the format named or in the one that fits best.

    Raises:
        DatasetError: no such format, nothing recognised, the named format does not fit, or several variants are there.
    """
    if format not in FORMATS and format != "auto":
        raise DatasetError(f"There is no data set format '{format}'.", hint=f"Known: auto, {', '.join(FORMATS)}.")
    asked = FORMATS.values() if format == "auto" else [FORMATS[format]]
    found = _read_all(folder, asked, LEAST_CONFIDENCE if format == "auto" else 0.0)
    if not found:
        raise _nothing_found(folder, format)
    rivals = [contents.variant for contents in found if contents.format == found[0].format]
    if len(rivals) > 1:
        raise DatasetError(
            f"'{folder.name}' holds several variants of {found[0].format}: {', '.join(rivals)}.",
            hint="Register the folder or file of one variant, each as a data set of its own.",
        )
    return found[0]


def _read_all(folder: Path, formats: Collection[Format], least: float) -> list[Contents]:
    try:
        return _read_levels(real_path(folder), formats, least)
    except OSError as error:
        raise DatasetError(
            f"'{printable(Path(error.filename or folder).name)}' cannot be read: {error.strerror}.",
            hint="Give a folder that exists and that the service's account may read.",
        ) from error


def _read_levels(boundary: Path, formats: Collection[Format], least: float) -> list[Contents]:
    """What fits at the highest level where anything does, best first."""
    if boundary.is_file():
        return [_read_manifest(boundary, boundary.parent)] if FORMATS["manifest"] in formats else []
    # Formats share folders, and large ones take long to list.
    list_folder: ListFolder = cache(partial(list_files, boundary=boundary))
    for level in _levels(boundary):
        found = [contents for item in formats for contents in _read_format(item, level, boundary, list_folder)]
        fitting = [contents for contents in found if _fits(contents, least)]
        if fitting:
            # Between equals the one that tells its variant says more; then the order of FORMATS decides.
            return sorted(fitting, key=lambda contents: (-contents.confidence, not contents.variant))
    return []


def _fits(contents: Contents, least: float) -> bool:
    # A manifest was written for us: if all its rows are wrong, that is what to tell.
    return contents.format == "manifest" or (contents.confidence >= least and any(contents.pictures.values()))


def _levels(folder: Path) -> Iterator[Path]:
    """The folder and, as long as it holds just one folder, that one."""
    for _ in range(_MAX_WRAPPING_FOLDERS):
        yield folder
        below = subfolders(folder)
        if len(below) != 1:
            return
        folder = below[0]


def _read_format(item: Format, level: Path, boundary: Path, list_folder: ListFolder) -> Iterator[Contents]:
    if item.name == "manifest":
        yield from (_read_manifest(file, boundary) for file in find_manifests(level) if is_inside(file, boundary))
        return
    variants = [level / name for name in item.variant_folders if (level / name).is_dir()]
    for root in variants or [level]:
        layout = max(item.layouts, key=lambda layout: len(_splits_present(layout, root, boundary)))
        splits = _splits_present(layout, root, boundary)
        if splits:
            variant = item.variant_folders.get(root.name, layout.variant)
            sure = len(splits) == len(layout.folders) and bool(variant or not item.variant_folders)
            gathered = _gather(item, layout, splits, root, boundary, list_folder)
            yield _contents(item, variant, root, gathered, item.weight if sure else item.weight * _UNSURE)


def _splits_present(layout: Layout, root: Path, boundary: Path) -> list[Split]:
    def is_present(split: Split) -> bool:
        lists = [root / name for name in layout.lists.get(split, ())]
        needed = [root / layout.folders[split], *lists]
        return (
            needed[0].is_dir()
            and all(path.is_file() for path in lists)
            and all(is_inside(path, boundary) for path in needed)
        )

    return [split for split in layout.folders if is_present(split)]


def _gather(
    item: Format, layout: Layout, splits: list[Split], root: Path, boundary: Path, list_folder: ListFolder
) -> Gathered:
    gathered = Gathered()
    gathered.skip("escaping-links", [name for name in layout.folders.values() if not is_inside(root / name, boundary)])
    for split in splits:
        folder = root / layout.folders[split]
        if split in layout.lists:
            lines = [line for name in layout.lists[split] for line in _lines(root / name)]
            _take(item, split, folder, lines, gathered, fence(boundary))
        else:
            listing = list_folder(folder, deep=item.deep)
            _take(item, split, folder, listing.names, gathered)
            for code, names in listing.skipped.items():
                gathered.skip(code, [f"{layout.folders[split]}/{name}" for name in names])
    return gathered


def _take(
    item: Format,
    split: Split,
    folder: Path,
    names: Collection[str],
    gathered: Gathered,
    stays_inside: Callable[[Path], bool] | None = None,
) -> None:
    """Names that match become pictures; the others are counted under what is wrong with them."""
    skipped = gathered.skipped
    for name in names:
        match = item.pattern.fullmatch(name)
        if not match:
            skipped["unmatched-names"].append(f"{folder.name}/{name}")
            continue
        picture = _picture(folder, name, match.groupdict(), item.cameras.get(split, ""))
        if picture.identity in item.junk:
            skipped["junk-dropped"].append(f"{folder.name}/{name}")
        elif stays_inside and not stays_inside(picture.path):
            skipped["escaping-links"].append(f"{folder.name}/{name}")
        else:
            gathered.pictures[split].append(picture)


def _picture(folder: Path, name: str, groups: dict[str, str | None], camera: str) -> Picture:
    camera = groups.get("camera") or camera
    scene, frame = groups.get("scene"), groups.get("frame")
    return Picture(
        path=folder / (groups.get("path") or name),
        identity=groups["identity"] or "",
        camera=f"s{scene}c{camera}" if scene else camera,
        frame=int(frame) if frame else None,
    )


def _read_manifest(file: Path, boundary: Path) -> Contents:
    item = FORMATS["manifest"]
    return _contents(item, file.name, file.parent, read_manifest(file, boundary, item.junk), item.weight)


def _contents(item: Format, variant: str, root: Path, gathered: Gathered, weight: float) -> Contents:
    summary = gathered.summary()
    taken = sum(map(len, gathered.pictures.values())) + len(gathered.skipped.get("junk-dropped", ()))
    misfits = sum(summary[code].count for code in _MISFITS if code in summary)
    pictures = {
        split: tuple(sorted(found, key=lambda picture: str(picture.path))) for split, found in gathered.pictures.items()
    }
    return Contents(
        format=item.name,
        variant=variant,
        confidence=round(weight * taken / max(1, taken + misfits), 2),
        root=root,
        pictures=item.arrange(pictures) if item.arrange else pictures,
        skipped=summary,
        protocol={"format": item.name, "variant": variant, "splits": item.protocol},
    )


def _lines(file: Path) -> list[str]:
    text = file.read_text(encoding="utf-8", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _nothing_found(folder: Path, format: str) -> DatasetError:
    """What was looked for and what is there, so that the reader can rename a folder or choose another format."""
    if folder.is_file():
        return DatasetError(
            f"'{folder.name}' is a file.", hint=f"Register a folder for {format}; only manifests are files."
        )
    entries = [path for path in sorted(real_path(folder).iterdir()) if not is_debris(path.name)]
    shown = [printable(path.name) + ("/" if path.is_dir() else "") for path in entries[:8]]
    holds = ", ".join(shown) + (f" and {len(entries) - 8} more" if len(entries) > 8 else "") or "nothing"
    if format == "auto":
        return DatasetError(
            f"No known layout in '{folder.name}'; it holds {holds}.",
            hint=f"Known layouts: {', '.join(FORMATS)}. Your own pictures go into train/<person>/, query/<person>/ and "
            "gallery/<person>/, or are listed in manifest.csv.",
        )
    return DatasetError(
        f"'{folder.name}' does not hold {format}; it holds {holds}.",
        hint=f"Expected:\n{FORMATS[format].layout}\nNames: {FORMATS[format].naming}",
    )
