"""Searches over HTTP against a running `reid up`, beside the bare network, bare FAISS and a script that does the same.

    python -m benchmarks.serving --images 10000 100000 1000000 --backbone resnet18

For every size a gallery of made-up vectors (people as clusters of images) is laid down with its rows, `reid up` is
started on it, and drawn people are searched for by picture: with one client and with 32, then with one while images
come and go. In the same run, on the same files: (a) the network alone, one prepared image at a time; (b) FAISS alone,
one query at a time; (c) `benchmarks.serving_script`, FastAPI with sqlite3 and FAISS, which checks a key and keeps an
audit row. `--deletion N` deletes a gallery of N images beside searches in another.

Prints Markdown: milliseconds of an answer (p50, p95, p99), answers a second, processor time of the API's processes per
answer and outside of (a) and (b), memory beside the vectors' bytes, and the median of each stage.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy import insert, select

from benchmarks.crowd import free_port
from benchmarks.serving_load import Load, ask, form, run_load
from benchmarks.serving_script import find, make_database, open_index
from reid_core.data.preprocessing import preprocessing_of
from reid_core.engines.publishing import publish_engine
from reid_core.engines.serving import serve
from reid_core.methods import METHODS
from reid_core.model import read_manifest, save_model
from reid_core.sample_data import draw_people
from service.clock import utc_now
from service.db.ids import new_id, new_ids
from service.db.schema import upgrade
from service.db.session import Database, open_database
from service.db.tables import Gallery, GalleryImage, Model
from service.galleries.files import generation_folder, open_or_create_store
from service.galleries.index import index_in_place
from service.keys.lifecycle import ensure_admin_key
from service.settings import Settings

METHOD = "bnneck"
IMAGES_PER_PERSON, SPREAD = 20, 0.7
NUM_CAMERAS = 8
CROWD = 32
CHUNK = 20_000
NEAR_SECONDS, START_SECONDS = 3.0, 120.0
"""Pause between an image that comes and its deletion; longest start of a service."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Home:
    """A prepared home folder: its settings and database, the model in it, and the admin key."""

    settings: Settings
    database: Database
    model_id: str
    size: int
    key: str


@dataclass(frozen=True, slots=True)
class Bare:
    """Median milliseconds of one query, and its processor time in milliseconds."""

    wall: float
    processor: float


def main() -> int:
    options = parse_options()
    print(f"{options.backbone}, {os.cpu_count()} cores, {options.seconds:g} s each, seed {options.seed}")
    for count in options.images:
        with tempfile.TemporaryDirectory(prefix="reid-serving-") as folder:
            compare(Path(folder), count, options)
    if options.deletion:
        with tempfile.TemporaryDirectory(prefix="reid-serving-") as folder:
            search_beside_deletion(Path(folder), options)
    return 0


def compare(folder: Path, count: int, options: argparse.Namespace) -> None:
    """All rows of one size of gallery."""
    home, images = prepare(folder, options), draw_files()
    fill(home, "hall", count, options.seed)
    write_script_files(folder, home)
    network = time_network(home, images)
    faiss_alone = time_faiss(folder)
    print(f"\n**{count:,} vectors of {home.size}**, index {index_kind(home)}\n")
    print(f"(a) network {network.wall:.1f} ms (processor {network.processor:.1f}); ", end="")
    print(f"(b) FAISS {faiss_alone.wall:.2f} ms (processor {faiss_alone.processor:.2f})\n")
    print("| service | clients | p50 | p95 | p99 | /s | processor ms | of it outside (a), (b) | p50 / (a + b + 3 ms) |")
    print("|---|---|---|---|---|---|---|---|---|")
    floor = network.wall + faiss_alone.wall + 3
    outside = network.processor + faiss_alone.processor

    def show(name: str, clients: int, load: Load) -> None:
        figures = " | ".join(f"{load.milliseconds(percent):.1f}" for percent in (50, 95, 99))
        rest, ratio = load.processor_ms - outside, load.milliseconds(50) / floor
        refused = f", {load.refused} refused" if load.refused else ""
        print(f"| {name}{refused} | {clients} | {figures} | {load.per_second:.1f} | {load.processor_ms:.1f} |", end="")
        print(f" {rest:.1f} | {ratio:.2f} |", flush=True)

    with running_script(folder, home) as (port, pids):
        for clients in (1, CROWD):
            show("script", clients, warm_load(port, images, home, clients, pids, options))
    with running_service(home, options) as (port, pids):
        idle = memory(pids)
        loads = {clients: warm_load(port, images, home, clients, pids, options) for clients in (1, CROWD)}
        for clients, load in loads.items():
            show("reid up", clients, load)
        with changing(port, images[0], home):
            show("reid up, adds and deletes", 1, warm_load(port, images, home, 1, pids, options))
        print_stages(loads[1])
        print_memory(home, count, idle, memory(pids))


def search_beside_deletion(folder: Path, options: argparse.Namespace) -> None:
    """Searches in a gallery of 10,000 while another one is deleted."""
    home, images = prepare(folder, options), draw_files()
    fill(home, "hall", 10_000, options.seed)
    fill(home, "attic", options.deletion, options.seed, kind="flat")
    with running_service(home, options) as (port, pids):
        before = warm_load(port, images, home, 1, pids, options)
        deleting = threading.Thread(target=delete_gallery, args=(port, home, "attic"))
        deleting.start()
        during = run_load(port, images, home.key, "hall", clients=1, seconds=options.deletion_seconds, pids=pids)
        deleting.join()
        left = count_rows(home, "attic")
    figures = [f"p50 {load.milliseconds(50):.1f} ms, slowest {load.milliseconds(100):.0f}" for load in (before, during)]
    print(f"\n**A gallery of {options.deletion:,} deleted beside searches**: before {figures[0]}; ", end="")
    print(f"during {figures[1]}; rows left after {options.deletion_seconds:g} s: {left:,}")


def prepare(folder: Path, options: argparse.Namespace) -> Home:
    """A home with an untrained model and an admin key."""
    settings = Settings(home=folder / "home", port=free_port(), device="cpu")
    settings.home.mkdir()
    upgrade(settings.database_url)
    database, method, model_id = open_database(settings.database_url), METHODS[METHOD], new_id("mdl")
    model_folder = settings.models_dir / model_id
    model_folder.mkdir(parents=True)
    recipe = method.recipe.model_copy(update={"backbone": options.backbone})
    network, preprocessing = method.build_network(recipe, 2), preprocessing_of(recipe)
    save_model(model_folder, network, method=METHOD, settings=recipe, num_classes=2, preprocessing=preprocessing)
    publish_engine(model_folder, draw_people(8), options.engine)
    size = read_manifest(model_folder).embedding_size
    with database.write() as session:
        session.add(
            Model(
                id=model_id, name="model", method=METHOD, settings={}, lineage={}, embedding_size=size,
                preprocessing=preprocessing.as_json(), files={},
            )
        )  # fmt: skip
    key = ensure_admin_key(database, settings)
    assert key is not None
    return Home(settings, database, model_id, size, key)


def draw_files() -> list[bytes]:
    """Drawn people as JPEG files."""
    files = []
    for person in draw_people(16):
        file = io.BytesIO()
        person.save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def fill(home: Home, name: str, count: int, seed: int, kind: str = "auto") -> None:
    """A gallery of made-up vectors with its rows and its index, as `service.galleries.images.append` leaves them."""
    gallery_id = new_id("gal")
    with home.database.write() as session:
        session.add(
            Gallery(
                id=gallery_id, name=name, model_id=home.model_id, index_kind=kind, keep_images=False, revision=1,
                next_position=count, images=count,
            )
        )  # fmt: skip
    store = open_or_create_store(generation_folder(home.settings, gallery_id, 0), home.size, count=0)
    random = np.random.default_rng(seed)
    people = random.standard_normal((count // IMAGES_PER_PERSON + 1, home.size), dtype=np.float32)
    for start in range(0, count, CHUNK):
        stop = min(count, start + CHUNK)
        store.write(start, near(people, np.arange(start, stop), random))
        rows = [row(gallery_id, image_id, start + place) for place, image_id in enumerate(new_ids("img", stop - start))]
        with home.database.write() as session:
            session.execute(insert(GalleryImage), rows)
    index_in_place(home.database, home.settings, gallery_id, should_stop=lambda: False)


def row(gallery_id: str, image_id: str, position: int) -> dict[str, Any]:
    return {
        "id": image_id, "gallery_id": gallery_id, "position": position, "identity": str(position // IMAGES_PER_PERSON),
        "camera": str(position % NUM_CAMERAS), "captured_at": utc_now(), "filename": f"{position}.jpg", "sha256": "",
        "width": 64, "height": 128, "added_revision": 1, "created_at": utc_now(),
    }  # fmt: skip


def near(people: Vectors, positions: NDArray[np.int64], random: np.random.Generator) -> Vectors:
    """Unit vectors, each near its person's."""
    vectors = people[positions // IMAGES_PER_PERSON] + 0.7 * random.standard_normal(
        (len(positions), people.shape[1]), dtype=np.float32
    )
    normal: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normal


def index_kind(home: Home) -> str:
    with home.database.read() as session:
        entry = session.scalars(select(Gallery).where(Gallery.name == "hall")).one().index
    return entry["kind"] if entry else "flat"


def write_script_files(folder: Path, home: Home) -> None:
    """The same vectors, rows and index for the script."""
    with home.database.read() as session:
        gallery = session.scalars(select(Gallery).where(Gallery.name == "hall")).one()
        columns = (GalleryImage.position, GalleryImage.id, GalleryImage.identity, GalleryImage.camera)
        found = session.execute(select(*columns).where(GalleryImage.gallery_id == gallery.id))
        make_database(folder / "script.db", home.key, [(*one, None, None) for one in found])
    built = generation_folder(home.settings, gallery.id, 0)
    vectors = open_or_create_store(built, home.size, count=gallery.next_position).rows(0, gallery.next_position)
    np.save(folder / "vectors.npy", vectors)
    if gallery.index:
        (folder / "index").symlink_to(built / gallery.index["file"])
        return
    index = faiss.IndexFlatIP(home.size)
    index.add(vectors)
    faiss.write_index(index, str(folder / "index"))


def time_network(home: Home, images: list[bytes]) -> Bare:
    torch.set_num_threads(os.cpu_count() or 1)
    encoder = serve(home.settings.models_dir / home.model_id, torch.device("cpu"), "auto").encoder
    prepared = [encoder.prepare(Image.open(io.BytesIO(image)).convert("RGB"))[None] for image in images]
    return time_each([lambda image=image: encoder.embed_prepared(image) for image in prepared])


def time_faiss(folder: Path) -> Bare:
    faiss.omp_set_num_threads(1)
    index, vectors = open_index(folder)
    queries = [np.array(vectors[place : place + 1]) for place in range(16)]
    return time_each([lambda query=query: find(index, vectors, query, 10) for query in queries])


def time_each(calls: list[Callable[[], object]], *, seconds: float = NEAR_SECONDS) -> Bare:
    for call in calls:
        call()
    walls: list[float] = []
    processor, end = time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < end:
        for call in calls:
            started = time.perf_counter()
            call()
            walls.append(time.perf_counter() - started)
    return Bare(1000 * float(np.median(walls)), 1000 * (time.process_time() - processor) / len(walls))


def warm_load(
    port: int, images: list[bytes], home: Home, clients: int, pids: list[int], options: argparse.Namespace
) -> Load:
    run_load(port, images, home.key, "hall", clients=clients, seconds=NEAR_SECONDS, pids=pids)
    return run_load(port, images, home.key, "hall", clients=clients, seconds=options.seconds, pids=pids)


@contextmanager
def running_script(folder: Path, home: Home) -> Iterator[tuple[int, list[int]]]:
    port = free_port()
    words = ["-m", "benchmarks.serving_script", str(folder), str(home.settings.models_dir / home.model_id), str(port)]
    with process(words, {}) as script:
        wait_until(lambda: answers(port, "/openapi.json"), script)
        yield port, [script.pid]


@contextmanager
def running_service(home: Home, options: argparse.Namespace) -> Iterator[tuple[int, list[int]]]:
    """`reid up` on the home: its port and the processes of its API."""
    environment = {
        "REID_HOME": str(home.settings.home), "REID_PORT": str(home.settings.port), "REID_DEVICE": "cpu",
        "REID_LOG_LEVEL": "warning", "REID_API_PROCESSES": str(options.processes), "REID_MIN_FREE_BYTES": "0",
    }  # fmt: skip
    with process(["-P", "-m", "service.cli", "up"], environment) as service:
        wait_until(lambda: answers(home.settings.port, "/healthz/ready"), service)
        parts = [one for one in psutil.Process(service.pid).children() if "api" in one.cmdline()]
        yield home.settings.port, [one.pid for one in parts]


@contextmanager
def process(words: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    passive = {"OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, *words]
    started = subprocess.Popen(command, env=os.environ | passive | environment, stdout=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.send_signal(signal.SIGINT)
        started.wait()


@contextmanager
def changing(port: int, image: bytes, home: Home) -> Iterator[None]:
    """Images come and go in the gallery for as long as the block runs."""
    over = threading.Event()

    def add_and_delete() -> None:
        connection, headers = HTTPConnection("127.0.0.1", port, timeout=120), {"X-API-Key": home.key}
        body, kind = form(image, {}, "files")
        while not over.is_set():
            status, answer = ask(connection, "POST", "/galleries/hall/images", body, headers | kind)
            if status == 201:
                ask(connection, "DELETE", f"/galleries/hall/images/{answer['added'][0]['image']}", b"", headers)
            over.wait(0.5)

    worker = threading.Thread(target=add_and_delete)
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join()


def delete_gallery(port: int, home: Home, name: str) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=600)
    status, _ = ask(connection, "DELETE", f"/galleries/{name}", b"", {"X-API-Key": home.key})
    if status != 204:
        raise RuntimeError(f"the deletion was answered with {status}")


def count_rows(home: Home, name: str) -> int:
    """Rows of images that no gallery called `hall` has."""
    with home.database.read() as session:
        hall = select(Gallery.id).where(Gallery.name == "hall").scalar_subquery()
        return len(session.scalars(select(GalleryImage.position).where(GalleryImage.gallery_id != hall)).all())


def memory(pids: list[int]) -> int:
    """Bytes of the processes and their children together, mapped pages that they share counted once."""
    parents = [psutil.Process(pid) for pid in pids]
    all_of_them = [one for parent in parents for one in (parent, *parent.children(recursive=True))]
    return sum(one.memory_full_info().pss for one in all_of_them)


def print_stages(load: Load) -> None:
    names = ("decode", "embed", "retrieve", "rerank", "total")
    stages = ", ".join(f"{name} {load.stage_ms(name):.1f}" for name in names)
    print(f"\nstages with one client, median ms: {stages}; over HTTP {load.milliseconds(50):.1f}")


def print_memory(home: Home, count: int, idle: int, now: int) -> None:
    vectors = count * home.size * 4
    print(f"memory of the API: {idle / 1e6:,.0f} MB before its first search, {now / 1e6:,.0f} MB now; ", end="")
    print(f"vectors {vectors / 1e6:,.0f} MB: grown by {(now - idle) / vectors:.2f} of them", flush=True)


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_so():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the service did not start")
        time.sleep(0.1)


def answers(port: int, path: str) -> bool:
    try:
        status, _ = ask(HTTPConnection("127.0.0.1", port, timeout=5), "GET", path, b"", {})
    except OSError:
        return False
    return status == 200


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], help="sizes of galleries"
    )
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--seconds", type=float, default=15, help="how long each load lasts")
    parser.add_argument("--engine", default="auto", help="REID_ENGINE when the model is published")
    parser.add_argument("--processes", type=int, default=1, help="REID_API_PROCESSES")
    parser.add_argument("--deletion", type=int, default=0, help="images of a gallery that is deleted beside searches")
    parser.add_argument("--deletion-seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
