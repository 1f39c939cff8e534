"""README's commands for docker compose, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def start_script(readme: Path) -> str:
    """Returns the commands that start the stack and draw sample data into its data folder."""
    return _the_block(readme, "docker compose run")


def walk_through_script(readme: Path, address: str) -> str:
    """The walk-through of the API, with a search and its explanation at the end, against the API at the address."""
    blocks = [_the_block(readme, words) for words in ("docker compose exec", "API=", "explain=true")]
    return "".join(blocks).replace("http://127.0.0.1:8000", address)


def _the_block(readme: Path, words: str) -> str:
    text = readme.read_text().partition("\n## Use it\n")[2]
    (block,) = [block for block in _BLOCK.findall(text) if words in block]
    return str(block)
