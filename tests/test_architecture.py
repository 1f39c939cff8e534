"""docs/architecture.md names files that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_every_file_and_folder_that_the_page_names_exists() -> None:
    named = set(re.findall(r"(?:reid_core|service|worker|tests)/[\w/]*(?:\.py)?", PAGE))
    assert len(named) > 25
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_room_of_the_core_that_it_names_by_itself_exists() -> None:
    assert [
        name
        for name in re.findall(r"`(\w+/)`", PAGE)
        if not any((ROOT / at / name).exists() for at in (".", "reid_core"))
    ] == []
