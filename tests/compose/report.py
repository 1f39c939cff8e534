"""The table of a run: each step, its seconds, and what was seen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


class Failed(Exception):
    """Raised where the stack does not do what it should; its text says what was seen instead."""


@dataclass(slots=True)
class Row:
    """A step; `seen` gathers what is to stand beside it in the table."""

    name: str
    seconds: float = 0.0
    seen: list[str] = field(default_factory=list)
    has_passed: bool = False

    def note(self, text: str) -> None:
        self.seen.append(text)


class Report:
    """The rows so far; every step is printed as it ends."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    @contextmanager
    def step(self, name: str) -> Iterator[Row]:
        """Times what runs meanwhile; it counts as passed unless an error leaves it."""
        row, began = Row(name), time.monotonic()
        self.rows.append(row)
        try:
            yield row
            row.has_passed = True
        finally:
            row.seconds = time.monotonic() - began
            print(_line(row), flush=True)

    @property
    def has_passed(self) -> bool:
        return all(row.has_passed for row in self.rows)

    def as_table(self) -> str:
        """All rows as a Markdown table."""
        total = sum(row.seconds for row in self.rows)
        head = ["| step | seconds | seen |", "|---|---|---|"]
        return "\n".join([*head, *map(_line, self.rows), f"| in all | {total:.0f} | |"])


def _line(row: Row) -> str:
    seen = "; ".join(row.seen)
    return f"| {row.name} | {row.seconds:.1f} | {seen if row.has_passed else f'FAILED {seen}'} |"
