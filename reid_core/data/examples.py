"""Declarations for data sets that have no reader of their own, from their public descriptions.

None has been tried on a copy of the data itself; the report of a registration says what was read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Example:
    """A layout to declare; `sample` is an image's path below the folder of the first split that is declared."""

    name: str
    title: str
    layout: dict[str, str]
    sample: str
    note: str = ""

    def describe(self) -> dict[str, Any]:
        """As formats are described, with `example`: what to send to POST /datasets beside name and path."""
        folders = "\n".join(f"  {folder}/" for split, folder in self.layout.items() if split != "pattern")
        way = "No reader of its own: register it with the layout in `example`."
        return {
            "name": self.name,
            "title": self.title,
            "reader": False,
            "layout": f"<folder>/\n{folders}",
            "naming": f"{self.layout['pattern']}, e.g. {self.sample}",
            "protocol": "splits as declared",
            "notes": [way, self.note] if self.note else [way],
            "example": {"format": "declared", "layout": self.layout},
        }


EXAMPLES: tuple[Example, ...] = (
    Example(
        "prcc-same-clothes",
        "PRCC, queries in the clothes of the gallery",
        {
            "train": "rgb/train",
            "query": "rgb/test/B",
            "gallery": "rgb/test/A",
            "pattern": r"(?P<identity>\d+)/(?:(?P<camera>[ABC])_)?cropped_rgb(?P<frame>\d+)",
        },
        "001/A_cropped_rgb001.jpg",
        "Images of test have no camera then, since their folders tell it; each counts as taken by one of its own.",
    ),
    Example(
        "occluded-duke",
        "Occluded-Duke",
        {
            "train": "bounding_box_train",
            "query": "query",
            "gallery": "bounding_box_test",
            "pattern": r"(?P<identity>\d+)_c(?P<camera>\d)_f(?P<frame>\d+)",
        },
        "0001_c2_f0046182.jpg",
        "Its names are those of dukemtmc-reid, whose reader takes it, too.",
    ),
    Example(
        "vc-clothes",
        "VC-Clothes (synthetic, people in other clothes)",
        {
            "train": "train",
            "query": "query",
            "gallery": "gallery",
            "pattern": r"(?P<identity>\d+)-(?P<camera>\d+)-(?P<clothes>\d+)-(?P<frame>\d+)",
        },
        "0003-01-02-01.jpg",
    ),
    Example(
        "grid",
        "QMUL underGround Re-IDentification (GRID)",
        {"query": "probe", "gallery": "gallery", "pattern": r"(?P<identity>\d{4})_(?P<camera>\d)_"},
        "0001_1_25004_107_32_106_221.jpeg",
        "The gallery's 775 people 0000 are in no query.",
    ),
    Example(
        "regdb",
        "RegDB (visible and thermal)",
        {"query": "Thermal", "gallery": "Visible", "pattern": r"(?P<identity>\d+)/"},
        "1/male_back_t_00001_1.bmp",
        "All 412 people; the ten official splits are lists of half of them each.",
    ),
    Example(
        "occluded-reid",
        "Occluded-REID",
        {
            "query": "occluded_body_images",
            "gallery": "whole_body_images",
            "pattern": r"(?P<identity>\d+)/\d+_(?P<frame>\d+)",
        },
        "001/001_01.tif",
    ),
)
