"""One reader for every format: finds out what a folder holds and gives its images by split.

Only names, list files and manifests are read here; `report.examine` opens the images.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from reid_core.data.contents import SAMPLES, Contents, Gathered, Images, Skipped
from reid_core.data.debris import is_debris
from reid_core.data.declaration import DECLARED, Declaration
from reid_core.data.format import Format, name_pattern
from reid_core.data.formats import FORMATS, MANIFEST, OML, PEOPLE, check_declaration
from reid_core.data.gathering import ListFolder, folders_of, gather, splits_present
from reid_core.data.listing import count_unread, is_inside, list_files, printable, real_path, subfolders
from reid_core.data.manifest import find_manifests, find_oml_tables, is_oml_table, read_dataset_manifest, read_oml_table
from reid_core.data.people import draw_split
from reid_core.data.records import ImageRecord, Split
from reid_core.errors import DatasetError

LEAST_CONFIDENCE = 0.25
"""Below this, `auto` does not take a folder for a format."""

_UNSURE = 0.8
"""Factor on the confidence where a split is absent, or the variant is not told."""

_MAX_WRAPPING_FOLDERS = 8
_MISFITS = ("unmatched-names", "escaping-links", "incomplete-rows")
_NOBODY = name_pattern(
    r"(?:.*[_-])?(?:train|test|val|valid|validation|query|probe|gallery|images?|rgb|thermal|visible|infrared|detected"
    r"|labell?ed|sequences|single_shot|multi_shot|exp|info)(?:[_-].*)?|(?:cam|camera|c)[-_ ]?(?:\d+|[ab])"
)
"""Names of folders that hold a split or a camera, and so no person."""

_TABLES = (MANIFEST.name, OML.name)


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
        for contents in _read_all(folder, FORMATS.values(), Declaration(), LEAST_CONFIDENCE)
    ]


def read(folder: Path, format: str = "auto", declaration: Declaration | None = None) -> Contents:
    """The data set in a folder (or a table), in the format named, as declared, or in the format that fits best.

    Raises:
        DatasetError: no such format, nothing recognised, the named format does not fit, several variants are there, or
            the declaration means nothing for the format.
    """
    declaration = declaration or Declaration()
    asked = check_declaration(format, declaration)
    least = LEAST_CONFIDENCE if len(asked) > 1 else 0.0
    found = _read_all(folder, asked, declaration, least)
    if not found:
        raise _nothing_found(folder, format, asked)
    rivals = [contents.variant for contents in found if contents.format == found[0].format]
    if len(rivals) > 1:
        raise DatasetError(
            f"'{folder.name}' holds several variants of {found[0].format}: {', '.join(rivals)}.",
            hint="Register the folder or file of one variant, each as a data set of its own.",
        )
    return _with_unread_folders(found[0])


def _with_unread_folders(contents: Contents) -> Contents:
    counts = count_unread(contents.root, contents.read_folders)
    if not counts:
        return contents
    samples = tuple(f"{printable(name)}: {count} files" for name, count in counts.items())
    return replace(contents, skipped={**contents.skipped, "unread-folders": Skipped(len(samples), samples)})


def _read_all(folder: Path, formats: Collection[Format], declaration: Declaration, least: float) -> list[Contents]:
    try:
        return _read_levels(real_path(folder), formats, declaration, least)
    except OSError as error:
        raise DatasetError(
            f"'{printable(Path(error.filename or folder).name)}' cannot be read: {error.strerror}.",
            hint="Give a folder that exists and that the service's account may read.",
        ) from error


def _read_levels(boundary: Path, formats: Collection[Format], declaration: Declaration, least: float) -> list[Contents]:
    """Reads the formats that fit at the highest level where any does, best first."""
    if boundary.is_file():
        item = OML if is_oml_table(boundary, declaration) else MANIFEST
        return [_read_table(item, boundary, boundary.parent, declaration)] if item in formats else []
    # Formats share folders, and large ones take long to list.
    list_folder: ListFolder = cache(partial(list_files, boundary=boundary))
    for level in _levels(boundary):
        fitting: list[Contents] = []
        for item in formats:
            if item.name == PEOPLE.name and fitting:  # which reads all that lies there
                break
            found = _read_format(item, level, boundary, declaration, list_folder)
            fitting += [contents for contents in found if _fits(contents, least)]
        if fitting:
            # Between equals the one that tells its variant says more; then the order of FORMATS decides.
            return sorted(fitting, key=lambda contents: (-contents.confidence, not contents.variant))
    return []


def _fits(contents: Contents, least: float) -> bool:
    # A table was written for us: if all its rows are wrong, that is what to tell.
    if contents.format in _TABLES:
        return True
    if contents.format == PEOPLE.name and not _are_people(contents, sure=bool(least)):
        return False
    return contents.confidence >= least and any(contents.images.values())


def _are_people(contents: Contents, *, sure: bool) -> bool:
    """True where each folder holds a person: two at least, and to be `sure` several images of each, near the top."""
    paths = [image.path.relative_to(contents.root).parts for split in contents.images.values() for image in split]
    people = {parts[0] for parts in paths}
    if len(people) < 2 or not sure:
        return len(people) >= 2
    direct = sum(len(parts) == 2 for parts in paths)
    return len(paths) >= 2 * len(people) and 2 * direct >= len(paths) and not any(map(_NOBODY.fullmatch, people))


def _levels(folder: Path) -> Iterator[Path]:
    """The folder and, as long as it holds just one folder, that one."""
    for _ in range(_MAX_WRAPPING_FOLDERS):
        yield folder
        below = subfolders(folder)
        if len(below) != 1:
            return
        folder = below[0]


def _read_format(
    item: Format, level: Path, boundary: Path, declaration: Declaration, list_folder: ListFolder
) -> Iterator[Contents]:
    if item.name in _TABLES:
        files = (find_oml_tables if item is OML else find_manifests)(level, declaration)
        yield from (_read_table(item, file, boundary, declaration) for file in files if is_inside(file, boundary))
        return
    variants = [level / name for name in item.variant_folders if (level / name).is_dir()]
    for root in variants or [level]:
        layout = max(item.layouts, key=lambda layout: len(splits_present(layout, root, boundary)))
        splits = splits_present(layout, root, boundary)
        if splits and item.name == DECLARED and len(splits) < len(layout.folders):
            missing = ", ".join(folder for split, folder in layout.folders.items() if split not in splits)
            raise DatasetError(f"There is no folder {missing} in '{root.name}'.", hint="Correct the declared layout.")
        if splits:
            variant = item.variant_folders.get(root.name, layout.variant)
            sure = len(splits) == len(layout.folders) and bool(variant or not item.variant_folders)
            gathered = gather(item, layout, splits, root, boundary, list_folder)
            if item.name == PEOPLE.name:
                gathered.images = _drawn(gathered, declaration)
            contents = _contents(item, variant, root, gathered, item.weight if sure else item.weight * _UNSURE)
            yield replace(contents, read_folders=folders_of(layout, splits, root))


def _drawn(gathered: Gathered, declaration: Declaration) -> dict[Split, list[ImageRecord]]:
    found = sorted(gathered.images["train"], key=lambda image: str(image.path))
    return {split: list(chosen) for split, chosen in draw_split(found, declaration.trained).items()}


def _read_table(item: Format, file: Path, boundary: Path, declaration: Declaration) -> Contents:
    gathered = (read_oml_table if item is OML else read_dataset_manifest)(file, boundary, declaration)
    contents = _contents(item, file.name, file.parent, gathered, item.weight)
    parents = {image.path.parent for split in contents.images.values() for image in split}
    return replace(contents, read_folders=frozenset(parents))


def _contents(item: Format, variant: str, root: Path, gathered: Gathered, weight: float) -> Contents:
    summary = gathered.summary()
    found = [image for split in gathered.images.values() for image in split]
    taken = len(found) + len(gathered.skipped.get("junk-dropped", ()))
    misfits = sum(summary[code].count for code in _MISFITS if code in summary)
    images: Images = {
        split: tuple(sorted(of_split, key=lambda image: str(image.path))) for split, of_split in gathered.images.items()
    }
    contents = Contents(
        format=item.name,
        variant=variant,
        confidence=round(weight * taken / max(1, taken + misfits), 2),
        root=root,
        images=item.arrange(images, root) if item.arrange else images,
        skipped=summary,
        protocol={"format": item.name, "variant": variant, "splits": item.protocol},
    )
    people = {image.identity for split in ("train", "query") for image in contents.images[split]}
    left_out = _left_out(contents, found)
    return replace(
        contents,
        skipped={**summary, **left_out},
        distractor="" if item.distractor in people else item.distractor,
    )


def _left_out(contents: Contents, found: Collection[ImageRecord]) -> dict[str, Skipped]:
    """Counts what was found and is in no split."""
    used = {image.path for split in contents.images.values() for image in split}
    names = [contents.relative(image.path) for image in found if image.path not in used]
    return {"left-out": Skipped(len(names), tuple(names[:SAMPLES]))} if names else {}


def _nothing_found(folder: Path, format: str, asked: Collection[Format]) -> DatasetError:
    """Tells what was looked for and what is there, so that the user can rename a folder or choose another format."""
    if folder.is_file():
        return DatasetError(
            f"'{folder.name}' is a file.", hint=f"Register a folder for {format}; only manifests are files."
        )
    entries = [path for path in sorted(real_path(folder).iterdir()) if not is_debris(path.name)]
    names = [printable(path.name) + ("/" if path.is_dir() else "") for path in entries[:8]]
    holds = ", ".join(names) + (f" and {len(entries) - 8} more" if len(entries) > 8 else "") or "nothing"
    if len(asked) > 1:
        return DatasetError(
            f"No known layout in '{folder.name}'; it holds {holds}.",
            hint=f"Known layouts: {', '.join(FORMATS)}. Your own images go into train/<person>/, query/<person>/ and "
            "gallery/<person>/, or into <person>/ alone (format people), or are listed in manifest.csv; for any other "
            "arrangement declare its `layout`.",
        )
    item = next(iter(asked))
    return DatasetError(
        f"'{folder.name}' does not hold {item.name}; it holds {holds}.",
        hint=f"Expected:\n{item.layout}\nNames: {item.naming}",
    )
