"""A fingerprint of a request's body, equal whenever a client sends the same thing again."""

from __future__ import annotations

import hashlib
from email.message import Message

_MARK = b"\0boundary\0"


class BodyFingerprint:
    """SHA-256 over a body that arrives in pieces.

    Clients make up a new boundary each time they send a form; it is replaced by a fixed mark, so that the same form
    has the same fingerprint.
    """

    def __init__(self, content_type: str, query: bytes) -> None:
        header = Message()
        header["content-type"] = content_type
        boundary = header.get_boundary() if header.get_content_maintype() == "multipart" else None
        self._boundary = f"--{boundary}".encode() if boundary else b""
        self._hash = hashlib.sha256(header.get_content_type().encode() + b"\0" + query + b"\0")
        self._held_back = b""  # may be the beginning of a boundary

    def add(self, piece: bytes) -> None:
        if not self._boundary:
            self._hash.update(piece)
            return
        *complete, rest = (self._held_back + piece).split(self._boundary)
        for part in complete:
            self._hash.update(part + _MARK)
        keep = min(len(rest), len(self._boundary) - 1)
        self._hash.update(rest[: len(rest) - keep])
        self._held_back = rest[len(rest) - keep :]

    def hexdigest(self) -> str:
        """The fingerprint in hex, once the last piece has been added."""
        self._hash.update(self._held_back)
        self._held_back = b""
        return self._hash.hexdigest()
