"""Data sets in which clothes change, infrared cameras look, or vehicles are searched.

Sources: Liu 2016 VeRi-776, Qian 2020 LTCC, Yang 2019 PRCC, Wu 2017 SYSU-MM01, and the README files that come with them.
"""

from __future__ import annotations

from reid_core.data.arrangement import split_sysu
from reid_core.data.format import SUFFIX, Format, Layout, name_pattern

VERI = Format(
    name="veri-776",
    title="VeRi-776 (vehicles)",
    layout="""\
<folder>/
  image_train/          0001_c001_00016450_0.jpg
  image_query/          0002_c002_00030600_0.jpg
  image_test/           0002_c002_00030605_1.jpg""",
    naming="identity _c camera _ frame _ box",
    protocol="splits by folder",
    pattern=name_pattern(r"(?P<identity>\d+)_c(?P<camera>\d+)_(?P<frame>\d{1,9})_\d+" + SUFFIX),
    layouts=(Layout({"train": "image_train", "query": "image_query", "gallery": "image_test"}),),
    notes=("The lists name_*.txt and the tracks are not needed and not read.",),
)

LTCC = Format(
    name="ltcc",
    title="LTCC (people in other clothes)",
    layout="""\
<folder>/
  train/                000_1_c10_015833.png
  query/                103_2_c2_015834.png
  test/                 103_1_c3_015838.png""",
    naming="identity _ clothes _c camera _ frame",
    protocol="splits by folder; the standard setting: images in the same clothes count as matches",
    pattern=name_pattern(r"(?P<identity>\d+)_(?P<clothes>\d+)_c(?P<camera>\d+)_(?P<frame>\d{1,9})" + SUFFIX),
    layouts=(Layout({"train": "train", "query": "query", "gallery": "test"}),),
    notes=("The cloth-changing setting, which leaves out the query's own clothes from the gallery, is not measured.",),
)

PRCC = Format(
    name="prcc",
    title="PRCC (people in other clothes)",
    layout="""\
<folder>/
  rgb/
    train/              001/A_cropped_rgb001.jpg   001/C_cropped_rgb002.jpg
    test/A/             301/cropped_rgb001.jpg     gallery
    test/C/             301/cropped_rgb001.jpg     query: the same people in other clothes""",
    naming="identity / camera _cropped_rgb number; in test the folder is the camera",
    protocol="cross-clothes: C query, A gallery (all of its images, not ten random draws); B and val are not read",
    pattern=name_pattern(r"(?P<identity>\d+)/(?:(?P<camera>[ABC])_)?cropped_rgb(?P<frame>\d{1,9})" + SUFFIX),
    layouts=tuple(
        Layout({"train": f"{folder}train", "query": f"{folder}test/C", "gallery": f"{folder}test/A"})
        for folder in ("rgb/", "")
    ),
    notes=("For the setting in the same clothes declare test/B as query: see `example`.",),
    deep=True,
    cameras={"query": "C", "gallery": "A"},
)

SYSU = Format(
    name="sysu-mm01",
    title="SYSU-MM01 (visible and infrared)",
    layout="""\
<folder>/
  cam1/ ... cam6/       0001/0001.jpg
  exp/                  train_id.txt  val_id.txt  test_id.txt""",
    naming="cam camera / identity / number; cameras 3 and 6 are infrared",
    protocol="people of train_id and val_id train; of test_id all infrared images are queries, all visible ones the "
    "gallery (all-search, all images and not ten random draws of one each)",
    pattern=name_pattern(r"cam(?P<camera>\d)/(?P<identity>\d+)/(?P<frame>\d{1,9})" + SUFFIX),
    layouts=(Layout({"train": "."}, needs=("exp/train_id.txt", "exp/test_id.txt"), aside=("exp/",)),),
    deep=True,
    arrange=split_sysu,
)
