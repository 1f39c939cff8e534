"""Measures the API's memory and answers while a crowd sends the largest images allowed and forms of many fields.

    .venv/bin/python -m benchmarks.crowd --clients 32 --seconds 60

Starts an API process of its own with a ResNet-50 and a gallery. A third of the clients search by a PNG of
REID_MAX_IMAGE_PIXELS that is small as a file, a third add it to the gallery, a third send a form of many fields; each
asks again as soon as it is answered. Prints the process's memory before and at its peak, the answers by status, and the
slowest one; ends with status 1 where the peak is 1.5 GB or more, an answer has another status than 200, 201, 413, 429
or 503, or came later than 10 s.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
from PIL import Image

from reid_core.data.preprocessing import preprocessing_of
from reid_core.methods import METHODS
from reid_core.model import save_model
from service.db.ids import new_id
from service.db.schema import upgrade
from service.db.session import open_database
from service.db.tables import Model
from service.keys.lifecycle import ensure_admin_key
from service.settings import Settings

METHOD = "bnneck"
GALLERY = "crowd"
FIELD_BYTES = 1024**2
ALLOWED = {200, 201, 413, 429, 503}
MOST_BYTES, MOST_SECONDS = 1.5e9, 10.0
_START_SECONDS = 120.0
_SAMPLE_SECONDS = 0.02

Ask = Callable[[httpx.Client], httpx.Response]


def main() -> int:
    options = parse_options()
    with tempfile.TemporaryDirectory(prefix="reid-crowd-") as home:
        settings = Settings(home=Path(home), port=free_port(), device="cpu")
        key = prepare(settings)
        environment = os.environ | {"REID_HOME": home, "REID_PORT": str(settings.port), "REID_DEVICE": "cpu"}
        api = subprocess.Popen([sys.executable, "-m", "service.cli", "api"], env=environment, stdout=subprocess.DEVNULL)
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{settings.port}", headers={"X-API-Key": key}, timeout=600
            ) as client:
                wait_until_served(client, api)
                fill(client, settings)
                return report(*crowd(client, psutil.Process(api.pid), asks(settings, options), options))
        finally:
            api.terminate()
            api.wait()


def prepare(settings: Settings) -> str:
    """Makes the database, an untrained model and the admin key: the key."""
    settings.home.mkdir(exist_ok=True)
    upgrade(settings.database_url)
    database, method, model_id = open_database(settings.database_url), METHODS[METHOD], new_id("mdl")
    folder = settings.models_dir / model_id
    folder.mkdir(parents=True)
    network, preprocessing = method.build_network(method.recipe, 2), preprocessing_of(method.recipe)
    save_model(folder, network, method=METHOD, settings=method.recipe, num_classes=2, preprocessing=preprocessing)
    files = {path.name: {"bytes": path.stat().st_size, "sha256": ""} for path in folder.iterdir()}
    with database.write() as session:
        session.add(
            Model(
                id=model_id,
                name="crowd",
                method=METHOD,
                settings={},
                lineage={},
                embedding_size=2048,
                preprocessing={},
                files=files,
            )
        )
    key = ensure_admin_key(database, settings)
    database.close()
    if key is None:
        raise RuntimeError(f"{settings.home} has keys already")
    return key


def wait_until_served(client: httpx.Client, api: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and api.poll() is None:
        try:
            client.get("/healthz/live").raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.2)
    raise RuntimeError(f"the API did not start within {_START_SECONDS:g} s")


def fill(client: httpx.Client, settings: Settings) -> None:
    """A gallery with one image in it, and the network loaded."""
    client.post("/galleries", json={"name": GALLERY, "model": "crowd", "keep_images": False}).raise_for_status()
    small = image(128 * 256)
    client.post(f"/galleries/{GALLERY}/images", files={"files": small}).raise_for_status()
    client.post("/search", data={"gallery": GALLERY}, files={"image": small}).raise_for_status()


def asks(settings: Settings, options: argparse.Namespace) -> list[Ask]:
    """The three kinds of requests."""
    large, boundary = image(settings.max_image_pixels), "crowd"
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}

    def form() -> Iterator[bytes]:
        for number in range(options.fields):
            yield f'--{boundary}\r\nContent-Disposition: form-data; name="f{number}"\r\n\r\n'.encode()
            yield bytes(FIELD_BYTES) + b"\r\n"
        yield f"--{boundary}--\r\n".encode()

    return [
        lambda client: client.post("/search", data={"gallery": GALLERY}, files={"image": large}),
        lambda client: client.post(f"/galleries/{GALLERY}/images", files={"files": large}),
        lambda client: client.post("/search", content=form(), headers=headers),
    ]


def crowd(
    client: httpx.Client, process: psutil.Process, kinds: list[Ask], options: argparse.Namespace
) -> tuple[int, int, list[tuple[int, float]]]:
    """The process's memory before and at its peak in bytes, and every answer's status and seconds."""
    answers: list[tuple[int, float]] = []
    over = threading.Event()

    def ask_again_and_again(number: int) -> None:
        with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=600) as own:
            while not over.is_set():
                started = time.monotonic()
                status = kinds[number % len(kinds)](own).status_code
                answers.append((status, time.monotonic() - started))

    before = peak = process.memory_info().rss
    threads = [threading.Thread(target=ask_again_and_again, args=(number,)) for number in range(options.clients)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + options.seconds
    while any(thread.is_alive() for thread in threads):
        peak = max(peak, process.memory_info().rss)
        if time.monotonic() > end:
            over.set()
        time.sleep(_SAMPLE_SECONDS)
    return before, peak, answers


def report(before: int, peak: int, answers: list[tuple[int, float]]) -> int:
    """Prints what came of it: the exit status."""
    counts, slowest = Counter(status for status, _ in answers), max(seconds for _, seconds in answers)
    good = [seconds for status, seconds in answers if status < 300]
    print(
        f"memory: {before / 1e6:,.0f} MB before, {peak / 1e6:,.0f} MB at the peak (aim: below {MOST_BYTES / 1e6:,.0f})"
    )
    print("answers:", ", ".join(f"{count} x {status}" for status, count in sorted(counts.items())))
    print(
        f"slowest answer: {slowest:.1f} s (aim: below {MOST_SECONDS:g}); slowest with 2xx: {max(good, default=0):.1f} s"
    )
    return int(peak >= MOST_BYTES or slowest >= MOST_SECONDS or not counts.keys() <= ALLOWED)


def image(pixels: int) -> bytes:
    """A PNG of one colour, about as high as wide."""
    side, file = math.isqrt(pixels), io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(file, "PNG")
    return file.getvalue()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60, help="how long they go on asking")
    parser.add_argument("--fields", type=int, default=256, help="of 1 MiB each, in the form of many fields")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
