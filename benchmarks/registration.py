"""Processor time that a registration takes for each file, on drawn crops of Market-1501's size.

    .venv/bin/python -m benchmarks.registration --files 20000

Beside it, as a plain reference: opening every file with Pillow, converting it to RGB and hashing its bytes. Both count
the processor time of all threads. The service runs on SQLite in a temporary folder, and no HTTP is measured.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from service.datasets.registration import register
from service.db.ids import new_id
from service.db.schema import upgrade
from service.db.session import open_database
from service.db.tables import Dataset
from service.settings import Settings

WIDTH, HEIGHT = 64, 128
PEOPLE, CAMERAS = 500, 6


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data" / "market"
        draw_market(folder, arguments.files)
        paths = sorted(folder.rglob("*.jpg"))
        plain = measure(lambda: [look(path) for path in paths])
        settings = Settings(home=Path(temporary) / "home", min_free_bytes=0)
        report("pillow and sha256 alone", plain, len(paths))
        report("registration", measure(lambda: register_folder(settings, folder)), len(paths))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    return parser.parse_args()


def draw_market(folder: Path, files: int) -> None:
    """JPEG crops in Market-1501's folders: half train, a tenth queries, the rest the gallery."""
    generator = np.random.default_rng(0)
    splits = {"bounding_box_train": files // 2, "query": files // 10}
    splits["bounding_box_test"] = files - sum(splits.values())
    for split, count in splits.items():
        (folder / split).mkdir(parents=True)
        first = 1 if split == "bounding_box_train" else PEOPLE + 1
        for number in range(count):
            name = f"{first + number % PEOPLE:04d}_c{1 + number // PEOPLE % CAMERAS}s1_{number:06d}_00.jpg"
            coarse = generator.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            image.save(folder / split / name, quality=90)


def look(path: Path) -> tuple[str, tuple[int, int]]:
    content = path.read_bytes()
    with Image.open(path) as image:
        return hashlib.sha256(content).hexdigest(), image.convert("RGB").size


def register_folder(settings: Settings, folder: Path) -> None:
    """From names to rows and report, with every check, as a register job does it."""
    upgrade(settings.database_url)
    database = open_database(settings.database_url)
    dataset = Dataset(id=new_id("ds"), name="market", path=str(folder), format="auto", state="pending", uploaded=False)
    with database.write() as session:
        session.add(dataset)
    result = register(database, settings, dataset.id)
    database.close()
    if result["splits"]["train"]["images"] == 0:
        raise RuntimeError(f"nothing was read: {result}")


def measure(work: Callable[[], object]) -> tuple[float, float]:
    """Processor and wall seconds of one call."""
    processor, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - processor, time.perf_counter() - wall


def report(name: str, seconds: tuple[float, float], files: int) -> None:
    processor, wall = (1000 * value / files for value in seconds)
    print(f"{name:24} {files:7,} files: {processor:.3f} ms of processor time and {wall:.3f} ms a file")


if __name__ == "__main__":
    main()
