"""Data sets of tracks, read as single images.

Sources: Zheng 2016 MARS, Hirzer 2011 PRID 2011, Wang 2014 iLIDS-VID, and the README files that come with them.
"""

from __future__ import annotations

from reid_core.data.arrangement import halve_identities, pair_prid, pick_queries
from reid_core.data.format import DISTRACTOR_NOTE, SUFFIX, Format, Layout, name_pattern
from reid_core.data.records import DISTRACTOR

MARS = Format(
    name="mars",
    title="MARS (video, read as images)",
    layout="""\
<folder>/
  bbox_train/   0001/0001C1T0001F001.jpg
  bbox_test/    0002/0002C1T0001F001.jpg   00-1/00-1C1T0001F001.jpg   0000/0000C1T0001F001.jpg""",
    naming="identity C camera T tracklet F frame",
    protocol="query: first image of every identity and camera of bbox_test, not the official tracklets",
    pattern=name_pattern(r"[^/]+/(?P<identity>00-1|\d{4})C(?P<camera>\d)T\d+F(?P<frame>\d{1,9})" + SUFFIX),
    layouts=(Layout({"train": "bbox_train", "gallery": "bbox_test"}),),
    notes=(
        "The official query tracklets (info/query_IDX.mat) are not read, whether present or not.",
        "Identity 00-1 marks junk: dropped.",
        DISTRACTOR_NOTE,
    ),
    deep=True,
    junk=frozenset({"00-1"}),
    distractor=DISTRACTOR,
    arrange=pick_queries,
)

PRID2011 = Format(
    name="prid2011",
    title="PRID 2011",
    layout="""\
<folder>/
  single_shot/          or multi_shot/, or the two folders below one of them
    cam_a/              person_0001.png            person_0001/0001.png in multi_shot
    cam_b/              person_0001.png""",
    naming="the folder is the camera, person_ identity; in multi_shot / frame",
    protocol="every second of the 200 people of both cameras trains; the others: cam_a query, cam_b gallery with all "
    "people of cam_b alone; not a published split",
    pattern=name_pattern(r"person_(?P<identity>\d{4})(?:/(?P<frame>\d{1,9}))?" + SUFFIX),
    layouts=(
        Layout({"query": "single_shot/cam_a", "gallery": "single_shot/cam_b"}, variant="single-shot"),
        Layout({"query": "multi_shot/cam_a", "gallery": "multi_shot/cam_b"}, variant="multi-shot"),
        Layout({"query": "cam_a", "gallery": "cam_b"}),
    ),
    notes=(
        "Only people 0001 to 0200 are the same in both cameras; later numbers of cam_a are left out.",
        "Where both are there single_shot is read; register the folder multi_shot for the other.",
    ),
    deep=True,
    cameras={"query": "a", "gallery": "b"},
    arrange=pair_prid,
)

ILIDS_VID = Format(
    name="ilids-vid",
    title="iLIDS-VID",
    layout="""\
<folder>/
  i-LIDS-VID/
    sequences/          or images/, for one image of each person and camera
      cam1/             person001/cam1_person001_00317.png
      cam2/             person001/cam2_person001_00225.png""",
    naming="the folder is the camera, person identity / camera _ person _ frame",
    protocol="every second identity trains, the others: cam1 query, cam2 gallery; not a published split",
    pattern=name_pattern(r"person(?P<identity>\d+)/cam\d_person\d+(?:_(?P<frame>\d{1,9}))?" + SUFFIX),
    layouts=tuple(
        Layout({"query": f"{folder}/cam1", "gallery": f"{folder}/cam2"}, variant=folder.rpartition("/")[2])
        for folder in ("sequences", "i-LIDS-VID/sequences", "images", "i-LIDS-VID/images")
    ),
    notes=("Papers average over ten random halves of the 300 people, by whole tracks; here it is one fixed half.",),
    deep=True,
    cameras={"query": "1", "gallery": "2"},
    arrange=halve_identities,
)
