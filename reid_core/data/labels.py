"""Labels as people write them: one rule for identities, cameras and names, at every entrance.

Text is composed (Unicode NFC) and blanks around it are dropped, so that a name typed on a keyboard equals the one that
a Mac wrote. What an address cannot carry unharmed is refused, since a person is shown and erased by an address.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

from reid_core.data.debris import is_debris

MAX_LABEL = 200
"""Characters of the longest label."""

JUNK = "-1"
"""Market-1501's label of images that show nobody; a person of nobody's."""

UNKNOWN_WORDS = frozenset(
    {"", "-", "--", "?", "<NA>", "NA", "N/A", "n/a", "#N/A", "#NA", "NaN", "nan", "-NaN", "-nan", "NaT"}
    | {"None", "none", "NONE", "null", "NULL", "nil", "NIL"}
)
"""Words by which programs say "unknown". Taken for a name, one would join all unknown people into one.

`Null` and `Na` are names of people, and so they are not here.
"""

_UNSAFE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | set(map(chr, range(0xFE00, 0xFE10)))
"""Characters without a shape of their own, besides those of category Cf."""


@lru_cache(maxsize=2**16)
def normal_label(text: str) -> str:
    """The text as labels are stored and compared: NFC, without blanks around it. Never fails, and done twice is done.

    For filters and look-ups; what comes in to be stored is asked for `label_fault` besides.
    """
    return unicodedata.normalize("NFC", text).strip()


@lru_cache(maxsize=2**16)
def label_fault(label: str) -> str:
    """Explains why the `normal_label` may not name a person, a camera or a thing; "" where it may."""
    if label in UNKNOWN_WORDS:
        return "it means that nothing is known" if label else "it is empty"
    if label == JUNK:
        return "it marks images that show nobody"
    if is_debris(label):
        return "files and folders of such a name are hidden, or an operating system's own"
    return _address_fault(label) or text_fault(label)


def name_fault(name: str) -> str:
    """Explains why the `normal_label` may not name a data set, a model or a gallery; "" where it may."""
    if "/" in name:
        return "a slash divides an address"
    return _address_fault(name) or text_fault(name)


def text_fault(label: str) -> str:
    """Explains why the `normal_label` is no line of text; "" where it is one."""
    if len(label) > MAX_LABEL:
        return f"it has {len(label)} characters, at most {MAX_LABEL} are allowed"
    if any(unicodedata.category(character) in _UNSAFE_CATEGORIES for character in label):
        return "it holds a control character"
    return ""


def look_alikes(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of different labels that differ by case, width or invisible characters alone, sorted."""
    groups: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        groups[look_of(label)].add(label)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)


@lru_cache(maxsize=2**16)
def look_of(label: str) -> str:
    """Strips a label of case, width, invisible characters and doubled blanks: equal for look-alikes."""
    visible = "".join(character for character in unicodedata.normalize("NFKC", label) if not _is_invisible(character))
    return unicodedata.normalize("NFKC", " ".join(visible.casefold().split()))


def shown_label(label: str) -> str:
    """The label with characters that nobody sees written out."""
    return "".join(
        f"\\u{ord(character):04x}" if _is_invisible(character) or not character.isprintable() else character
        for character in label
    )


def _address_fault(label: str) -> str:
    """Explains why no address carries the label unharmed.

    Clients and proxies shorten `.`, `..` and nothing between slashes, even where they are escaped, so that an address
    means another thing: `/galleries/hall/identities/..` is the gallery. They take a backslash for a slash.
    """
    if any(part in ("", ".", "..") for part in label.split("/")):
        return "clients shorten it when it stands in an address"
    return "clients take a backslash for a slash" if "\\" in label else ""


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) == "Cf" or character in _INVISIBLE
