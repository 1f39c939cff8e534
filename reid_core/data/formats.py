"""The formats that can be read, by name, and how to declare the layouts of some more.

A new layout is one more entry here; `reader.py` reads them all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from reid_core.data.declaration import DECLARED, Declaration, compile_pattern
from reid_core.data.examples import EXAMPLES
from reid_core.data.format import DISTRACTOR_NOTE, SUFFIX, Format, Layout, name_pattern
from reid_core.data.labels import JUNK
from reid_core.data.people import PROTOCOL
from reid_core.data.records import DISTRACTOR
from reid_core.data.special_sets import LTCC, PRCC, SYSU, VERI
from reid_core.data.still_sets import CUHK03, DUKE, MARKET, MSMT, RANDPERSON, VIPER
from reid_core.data.video_sets import ILIDS_VID, MARS, PRID2011
from reid_core.errors import DatasetError

_CAMERA_IN_NAME = r"(?:.*?(?<![0-9a-z])(?:camera|cam|c)[-_ ]?(?P<camera>\d+)(?=s\d|[^0-9a-z]))?.*"

MANIFEST = Format(
    name="manifest",
    title="A table that lists the images",
    layout="""\
<folder>/
  manifest.csv          or manifest.parquet, or one *.parquet with these columns
  ...                   images anywhere below the folder""",
    naming="columns path, identity, split (train, query, gallery); if known camera, captured_at (RFC 3339), frame",
    protocol="splits as listed; identity -1 dropped, 0000 kept as distractors",
    pattern=name_pattern(""),
    layouts=(),
    notes=(
        "Paths are relative to the manifest. The table itself may be registered instead of its folder.",
        'Other names of columns are declared: `columns`, e.g. {"path": "file", "identity": "person_id"}.',
        "Rows of identity -1 are dropped as in Market-1501; rows without identity are skipped and reported.",
        "Times without an offset are taken as UTC.",
        DISTRACTOR_NOTE,
    ),
    junk=frozenset({JUNK}),
    distractor=DISTRACTOR,
)

OML = Format(
    name="open-metric-learning",
    title="A table of open-metric-learning",
    layout="""\
<folder>/
  df.csv                or any table with the columns label, path, split, is_query, is_gallery
  ...                   images anywhere below the folder""",
    naming="columns label, path, split (train, validation), is_query, is_gallery",
    protocol="splits as listed; of validation rows that are both, the first of each identity is a query",
    pattern=name_pattern(""),
    layouts=(),
    notes=("Boxes (x_1, x_2, y_1, y_2) are not cut out: paths must name crops.", "The table itself may be registered."),
)

FOLDERS = Format(
    name="folders",
    title="Your own images, a folder for each split and in it one for each person",
    layout="""\
<folder>/
  train/      anna/first.jpg   anna/second.jpg   ben/cam2/0001.png
  query/      carl/door_c1.jpg
  gallery/    carl/hall_c2.jpg   dora/hall_c2.jpg""",
    naming="the first folder is the identity; c1, cam1 or camera1 in a sub-folder or file name is the camera",
    protocol="splits by folder",
    pattern=name_pattern(r"(?P<identity>[^/]+)/" + _CAMERA_IN_NAME + SUFFIX),
    layouts=(Layout({"train": "train", "query": "query", "gallery": "gallery"}),),
    notes=(
        "Any of the three may be missing: train alone is enough to train, query and gallery to evaluate.",
        "Without cameras every image counts as taken by a camera of its own.",
    ),
    deep=True,
    weight=0.7,
)

PEOPLE = Format(
    name="people",
    title="Your own images, a folder for each person",
    layout="""\
<folder>/
  anna/                 IMG_0001.jpg   door_c1.jpg
  ben/                  IMG_0002.jpg   cam2/0001.png""",
    naming="the first folder is the identity; c1, cam1 or camera1 in a sub-folder or file name is the camera",
    protocol=PROTOCOL,
    pattern=name_pattern(r"(?P<identity>[^/]+)/" + _CAMERA_IN_NAME + SUFFIX),
    layouts=(Layout({"train": "."}),),
    notes=(
        "The split is drawn once and kept; a person who trains goes on training when the folder is read again.",
        'To train on everybody, ask the job for {"id": ..., "split": "all"}.',
        "`auto` takes a folder for this only where no sub-folder has the name of a split or a camera.",
    ),
    deep=True,
    weight=0.5,
)

FORMATS: dict[str, Format] = {
    item.name: item
    for item in (
        *(MANIFEST, OML, MARKET, DUKE, MSMT, CUHK03, VERI, LTCC, PRCC, SYSU, RANDPERSON),
        *(MARS, PRID2011, ILIDS_VID, VIPER, FOLDERS, PEOPLE),
    )
}

FORMAT_NAMES = ("auto", *FORMATS, DECLARED)
"""The values of a data set's `format`."""


def describe_formats() -> list[dict[str, Any]]:
    """Every format for a person, those without a reader with the declaration (`example`) that reads them."""
    return [item.describe() for item in FORMATS.values()] + [example.describe() for example in EXAMPLES]


def check_declaration(format: str, declaration: Declaration) -> list[Format]:
    """The formats to try, one where it is named or declared.

    Raises:
        DatasetError: there is no such format, or the declaration means nothing for it.
    """
    if format not in FORMAT_NAMES:
        raise DatasetError(f"There is no data set format '{format}'.", hint=f"Known: {', '.join(FORMAT_NAMES)}.")
    if declaration.folders and format in ("auto", DECLARED):
        return [declaration.format]
    if format == DECLARED or declaration.folders:
        raise DatasetError(
            f"Folders of splits are declared for format '{DECLARED}' alone, and needed there; it is '{format}'.",
            hint='Send layout, e.g. {"train": "train", "query": "query", "gallery": "test", "pattern": "..."}.',
        )
    if declaration.columns and format not in ("auto", MANIFEST.name):
        raise DatasetError(f"Columns are declared for tables alone; the format is '{format}'.", hint="Leave it out.")
    if declaration.columns:
        return [MANIFEST]
    asked = list(FORMATS.values()) if format == "auto" else [FORMATS[format]]
    if not declaration.pattern:
        return asked
    if format not in ("folders", "people"):
        raise DatasetError(
            f"A pattern without folders is for the formats folders and people; the format is '{format}'.",
            hint="Name one of the two, or the folders of the splits beside the pattern.",
        )
    return [replace(asked[0], pattern=compile_pattern(declaration.pattern), loose=True)]
