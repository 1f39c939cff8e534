"""Data sets of single images, as their authors give them out.

Sources: the data sets' own papers and README files (Zheng 2015 Market-1501, Zheng 2017 DukeMTMC-reID, Wei 2018 MSMT17,
Zhong 2017 CUHK03-NP, Wang 2020 RandPerson, Gray 2007 VIPeR).
"""

from __future__ import annotations

from reid_core.data.arrangement import halve_identities, prefix_train_identities
from reid_core.data.format import DISTRACTOR_NOTE, MARKET_FOLDERS, SUFFIX, Format, Layout, name_pattern
from reid_core.data.labels import JUNK
from reid_core.data.records import DISTRACTOR

MARKET = Format(
    name="market1501",
    title="Market-1501",
    layout="""\
<folder>/
  bounding_box_train/   0002_c1s1_000451_03.jpg
  query/                0001_c1s1_001051_00.jpg
  bounding_box_test/    0001_c1s1_001051_03.jpg   -1_c1s1_000401_03.jpg   0000_c1s1_000151_01.jpg""",
    naming="identity _c camera s sequence _ frame _ box; sequence and box may be left out",
    protocol="splits by folder; junk (-1) dropped, distractors (0000) kept",
    pattern=name_pattern(r"(?P<identity>-1|\d+)_c(?P<camera>\d+)(?:s\d+)?_(?P<frame>\d{1,9})(?:_\d+)?" + SUFFIX),
    layouts=(MARKET_FOLDERS,),
    notes=("Identity -1 marks junk: dropped.", DISTRACTOR_NOTE),
    junk=frozenset({JUNK}),
    distractor=DISTRACTOR,
)

DUKE = Format(
    name="dukemtmc-reid",
    title="DukeMTMC-reID",
    layout="""\
<folder>/
  bounding_box_train/   0001_c2_f0046182.jpg
  query/                0005_c2_f0046985.jpg
  bounding_box_test/    0002_c1_f0044158.jpg""",
    naming="identity _c camera _f frame",
    protocol="splits by folder",
    pattern=name_pattern(r"(?P<identity>-1|\d+)_c(?P<camera>\d+)_f(?P<frame>\d{1,9})" + SUFFIX),
    layouts=(MARKET_FOLDERS,),
    junk=frozenset({JUNK}),
    withdrawn="Withdrawn by its authors in 2019: the people in it had not agreed to be filmed.",
)

MSMT = Format(
    name="msmt17",
    title="MSMT17, V1 and V2",
    layout="""\
<folder>/
  train/  test/                     V1, or mask_train_v2/  mask_test_v2/  V2
    0000/0000_000_01_0303morning_0015_0.jpg
  list_train.txt  list_val.txt  list_query.txt  list_gallery.txt""",
    naming="lines `path identity`; the third field of the file name is the camera",
    protocol="splits by list files; list_val joins the training images where it is present (variant +val)",
    pattern=name_pattern(
        r"(?P<path>[^/\s\0]+/[^/\s\0_]+_[^/\s\0_]+_(?P<camera>\d+)_[^/\s\0]+" + SUFFIX + r")\s+(?P<identity>\d+)"
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
        "With list_val.txt the training split is the paper's (1,041 people, 32,621 images); leave it out to train on "
        "list_train.txt alone.",
        "Training and test identities are both counted from 0; training labels get the prefix `train-` here.",
        "V2 is taken where both versions are present.",
    ),
    arrange=prefix_train_identities,
)

CUHK03 = Format(
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
    pattern=name_pattern(r"(?P<identity>-1|\d+)_c(?P<camera>\d+)_\d+" + SUFFIX),
    layouts=(MARKET_FOLDERS,),
    notes=("Where both `detected` and `labeled` are present, register one of these two folders.",),
    junk=frozenset({JUNK}),
    variant_folders={"detected": "detected", "labeled": "labeled", "labelled": "labeled"},
)

RANDPERSON = Format(
    name="randperson",
    title="RandPerson (synthetic, training only)",
    layout="""\
<folder>/
  randperson_subset/    000000_c00_s00_f000264.jpg""",
    naming="identity _c camera _s scene _f frame (or scene first); camera 00 of scene 03 becomes s03c00",
    protocol="training only; scene and camera together make the camera",
    pattern=name_pattern(
        r"(?P<identity>\d+)_(?=(?:c\d+_)?s(?P<scene>\d+)_)(?=(?:s\d+_)?c(?P<camera>\d+)_)[cs]\d+_[cs]\d+_f(?P<frame>\d{1,9})"
        + SUFFIX
    ),
    layouts=(Layout({"train": "randperson_subset"}), Layout({"train": "."})),
)

VIPER = Format(
    name="viper",
    title="VIPeR",
    layout="""\
<folder>/
  cam_a/    001_45.bmp
  cam_b/    001_90.bmp""",
    naming="identity _ angle; the folder is the camera",
    protocol="every second identity trains, the others: cam_a query, cam_b gallery; not a published split",
    pattern=name_pattern(r"(?P<identity>\d+)_\d+" + SUFFIX),
    layouts=(Layout({"query": "cam_a", "gallery": "cam_b"}),),
    notes=("VIPeR has no split of its own; papers average over ten random halves, here it is one fixed half.",),
    cameras={"query": "a", "gallery": "b"},
    arrange=halve_identities,
)
