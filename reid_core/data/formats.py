"""The folder layouts that can be read, as data: where each split lies and what a picture's name tells.

A new layout is one more entry in `FORMATS`; `reader.py` reads them all. Sources: the data sets' own papers and README
files (Zheng 2015 Market-1501, Zheng 2017 DukeMTMC-reID, Wei 2018 MSMT17, Zhong 2017 CUHK03-NP, Wang 2020 RandPerson,
Gray 2007 VIPeR, Zheng 2016 MARS).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reid_core.data.arrangement import halve_identities, pick_queries, tell_apart
from reid_core.data.contents import Pictures
from reid_core.data.records import Split

# Copies of Market-1501 hold files named `.jpg.jpg`.
_SUFFIX = r"(?:\.(?:jpe?g|png|bmp|webp|tiff?))+"


@dataclass(frozen=True, slots=True)
class Layout:
    """One arrangement of folders. Where `lists` names files for a split, these say which pictures it has."""

    folders: Mapping[Split, str]
    lists: Mapping[Split, tuple[str, ...]] = field(default_factory=dict)
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Format:
    """How one format looks and reads.

    Attributes:
        layout, naming, notes: for a person.
        layouts: the arrangement with most splits present is taken, the first among equals.
        pattern: matches a picture's path below its split's folder, or a line of a list file; groups `identity` and,
            where there are such, `camera`, `scene`, `frame`, `path`.
        deep: pictures lie in sub-folders.
        junk: identities whose pictures are dropped.
        cameras: the camera of a whole split, where a folder tells it.
        variant_folders: folders that hold one variant each; folder name -> variant.
        arrange: makes the splits where folders do not.
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
    deep: bool = False
    junk: frozenset[str] = frozenset()
    cameras: Mapping[Split, str] = field(default_factory=dict)
    variant_folders: Mapping[str, str] = field(default_factory=dict)
    arrange: Callable[[Pictures], Pictures] | None = None
    weight: float = 1.0
    withdrawn: str = ""


def describe_formats() -> list[dict[str, Any]]:
    """Every format for a person: name, title, layout (several lines), naming, protocol, notes."""
    return [
        {
            "name": item.name,
            "title": item.title,
            "layout": item.layout,
            "naming": item.naming,
            "protocol": item.protocol,
            "notes": list(item.notes) + ([item.withdrawn] if item.withdrawn else []),
        }
        for item in FORMATS.values()
    ]


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(name, re.ASCII | re.IGNORECASE)


_MARKET_FOLDERS = Layout({"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"})
_DISTRACTORS = "Identity 0000 marks distractors: kept in the gallery, a match for no query."

_MANIFEST = Format(
    name="manifest",
    title="A table that lists the pictures",
    layout="""\
<folder>/
  manifest.csv          or manifest.parquet, or one *.parquet with these columns
  ...                   pictures anywhere below the folder""",
    naming="columns path, identity, split (train, query, gallery); if known camera, captured_at (RFC 3339), frame",
    protocol="splits as listed; identity -1 dropped, 0000 kept as distractors",
    pattern=_pattern(""),
    layouts=(),
    notes=(
        "Paths are relative to the manifest. The table itself may be registered instead of its folder.",
        "Rows of identity -1 are dropped as in Market-1501; rows without identity are skipped and reported.",
        "Times without an offset are taken as UTC.",
        _DISTRACTORS,
    ),
    junk=frozenset({"-1"}),
)

_MARKET = Format(
    name="market1501",
    title="Market-1501",
    layout="""\
<folder>/
  bounding_box_train/   0002_c1s1_000451_03.jpg
  query/                0001_c1s1_001051_00.jpg
  bounding_box_test/    0001_c1s1_001051_03.jpg   -1_c1s1_000401_03.jpg   0000_c1s1_000151_01.jpg""",
    naming="identity _c camera s sequence _ frame _ box; sequence and box may be left out",
    protocol="splits by folder; junk (-1) dropped, distractors (0000) kept",
    pattern=_pattern(r"(?P<identity>-1|\d+)_c(?P<camera>\d+)(?:s\d+)?_(?P<frame>\d{1,9})(?:_\d+)?" + _SUFFIX),
    layouts=(_MARKET_FOLDERS,),
    notes=("Identity -1 marks junk: dropped.", _DISTRACTORS),
    junk=frozenset({"-1"}),
)

_DUKE = Format(
    name="dukemtmc-reid",
    title="DukeMTMC-reID",
    layout="""\
<folder>/
  bounding_box_train/   0001_c2_f0046182.jpg
  query/                0005_c2_f0046985.jpg
  bounding_box_test/    0002_c1_f0044158.jpg""",
    naming="identity _c camera _f frame",
    protocol="splits by folder",
    pattern=_pattern(r"(?P<identity>-1|\d+)_c(?P<camera>\d+)_f(?P<frame>\d{1,9})" + _SUFFIX),
    layouts=(_MARKET_FOLDERS,),
    junk=frozenset({"-1"}),
    withdrawn="Withdrawn by its authors in 2019: the people in it had not agreed to be filmed.",
)

_MSMT = Format(
    name="msmt17",
    title="MSMT17, V1 and V2",
    layout="""\
<folder>/
  train/  test/                     V1, or mask_train_v2/  mask_test_v2/  V2
    0000/0000_000_01_0303morning_0015_0.jpg
  list_train.txt  list_val.txt  list_query.txt  list_gallery.txt""",
    naming="lines `path identity`; the third field of the file name is the camera",
    protocol="splits by list files; list_val joins the training pictures where it is present (variant +val)",
    pattern=_pattern(
        r"(?P<path>[^/\s\0]+/[^/\s\0_]+_[^/\s\0_]+_(?P<camera>\d+)_[^/\s\0]+" + _SUFFIX + r")\s+(?P<identity>\d+)"
    ),
    layouts=tuple(
        Layout(
            {"train": train, "query": test, "gallery": test},
            {"train": lists, "query": ("list_query.txt",), "gallery": ("list_gallery.txt",)},
            variant,
        )
        for variant, train, test, lists in (
            ("v2+val", "mask_train_v2", "mask_test_v2", ("list_train.txt", "list_val.txt")),
            ("v2", "mask_train_v2", "mask_test_v2", ("list_train.txt",)),
            ("v1+val", "train", "test", ("list_train.txt", "list_val.txt")),
            ("v1", "train", "test", ("list_train.txt",)),
        )
    ),
    notes=(
        "With list_val.txt the training split is the paper's (1,041 people, 32,621 pictures); leave it out to train on "
        "list_train.txt alone.",
        "Training and test identities are both counted from 0; training labels get the prefix `train-` here.",
        "V2 is taken where both versions are present.",
    ),
    arrange=tell_apart,
)

_CUHK03 = Format(
    name="cuhk03-np",
    title="CUHK03, new protocol",
    layout="""\
<folder>/
  detected/  or  labeled/
    bounding_box_train/   0001_c1_1.png
    query/                0003_c1_21.png
    bounding_box_test/    0003_c1_22.png""",
    naming="identity _c camera _ number",
    protocol="new protocol (767 people train, 700 test), not comparable with the old one (1,367 / 100)",
    pattern=_pattern(r"(?P<identity>-1|\d+)_c(?P<camera>\d+)_\d+" + _SUFFIX),
    layouts=(_MARKET_FOLDERS,),
    notes=("Where both `detected` and `labeled` are present, register one of these two folders.",),
    junk=frozenset({"-1"}),
    variant_folders={"detected": "detected", "labeled": "labeled", "labelled": "labeled"},
)

_RANDPERSON = Format(
    name="randperson",
    title="RandPerson (synthetic, training only)",
    layout="""\
<folder>/
  randperson_subset/    000000_c00_s00_f000264.jpg""",
    naming="identity _c camera _s scene _f frame (or scene first); camera 00 of scene 03 becomes s03c00",
    protocol="training only; scene and camera together make the camera",
    pattern=_pattern(
        r"(?P<identity>\d+)_(?=(?:c\d+_)?s(?P<scene>\d+)_)(?=(?:s\d+_)?c(?P<camera>\d+)_)[cs]\d+_[cs]\d+_f(?P<frame>\d{1,9})"
        + _SUFFIX
    ),
    layouts=(Layout({"train": "randperson_subset"}), Layout({"train": "."})),
)

_MARS = Format(
    name="mars",
    title="MARS (video, read as pictures)",
    layout="""\
<folder>/
  bbox_train/   0001/0001C1T0001F001.jpg
  bbox_test/    0002/0002C1T0001F001.jpg   00-1/00-1C1T0001F001.jpg   0000/0000C1T0001F001.jpg""",
    naming="identity C camera T tracklet F frame",
    protocol="query: first picture of every identity and camera of bbox_test, not the official tracklets",
    pattern=_pattern(r"[^/]+/(?P<identity>00-1|\d{4})C(?P<camera>\d)T\d+F(?P<frame>\d{1,9})" + _SUFFIX),
    layouts=(Layout({"train": "bbox_train", "gallery": "bbox_test"}),),
    notes=(
        "The official query tracklets (info/query_IDX.mat) are not read, whether present or not.",
        "Identity 00-1 marks junk: dropped.",
        _DISTRACTORS,
    ),
    deep=True,
    junk=frozenset({"00-1"}),
    arrange=pick_queries,
)

_VIPER = Format(
    name="viper",
    title="VIPeR",
    layout="""\
<folder>/
  cam_a/    001_45.bmp
  cam_b/    001_90.bmp""",
    naming="identity _ angle; the folder is the camera",
    protocol="every second identity trains, the others: cam_a query, cam_b gallery; not a published split",
    pattern=_pattern(r"(?P<identity>\d+)_\d+" + _SUFFIX),
    layouts=(Layout({"query": "cam_a", "gallery": "cam_b"}),),
    notes=("VIPeR has no split of its own; papers average over ten random halves, here it is one fixed half.",),
    cameras={"query": "a", "gallery": "b"},
    arrange=halve_identities,
)

_FOLDERS = Format(
    name="folders",
    title="Your own pictures, a folder for each person",
    layout="""\
<folder>/
  train/      anna/first.jpg   anna/second.jpg   ben/cam2/0001.png
  query/      carl/door_c1.jpg
  gallery/    carl/hall_c2.jpg   dora/hall_c2.jpg""",
    naming="the first folder is the identity; c1, cam1 or camera1 in a sub-folder or file name is the camera",
    protocol="splits by folder",
    pattern=_pattern(
        r"(?P<identity>[^/]+)/(?:.*?(?<![0-9a-z])(?:camera|cam|c)[-_ ]?(?P<camera>\d+)(?=s\d|[^0-9a-z]))?.*" + _SUFFIX
    ),
    layouts=(Layout({"train": "train", "query": "query", "gallery": "gallery"}),),
    notes=(
        "Any of the three may be missing: train alone is enough to train, query and gallery to evaluate.",
        "Without cameras every picture counts as taken by a camera of its own.",
        _DISTRACTORS,
    ),
    deep=True,
    weight=0.7,
)

FORMATS: dict[str, Format] = {
    item.name: item for item in (_MANIFEST, _MARKET, _DUKE, _MSMT, _CUHK03, _RANDPERSON, _MARS, _VIPER, _FOLDERS)
}
