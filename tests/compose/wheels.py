"""The project's dependencies as a folder of wheels that builds reach over HTTP.

For stand-ins of base images: where no registry of images is reached, the package index is often reached in some way of
this machine's own, which containers do not have.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_BESIDE = ("setuptools>=77", "async-timeout")
"""What builds the package, as pyproject.toml says, and what Debian's Python 3.11.2 needs beside the constraints."""


def download(project: Path, extras: str, folder: Path) -> None:
    """Puts the wheels of the project's dependencies at `project` into the folder, as this machine's pip finds them."""
    words = ["-qq", "-d", str(folder), "-c", str(project / "constraints.txt"), f"{project}[{extras}]", *_BESIDE]
    subprocess.run([sys.executable, "-m", "pip", "download", "--prefer-binary", *words], check=True)


@contextmanager
def served(folder: Path, address: str) -> Iterator[int]:
    """Serves the folder's listing and files on the address meanwhile; gives the port."""
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer((address, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass
