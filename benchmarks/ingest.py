"""Images a second of an index job's way, beside the bare engine and beside PyTorch, in the same run.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.ingest --images 1024

The way is `add_split`: files on disk, a real database, a real gallery. The bare engine gets batches of 32 prepared
tensors that lie in memory. Both are measured with the engine that the model is published with and with PyTorch, in
rounds that take turns; the median is printed. Decoding alone, by as many threads as there are, is what both cores have
to do beside the network. Images are drawn people as JPEG files of --crop, unless --data names a folder of images.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from benchmarks.engines import BACKBONES, CPU, save
from reid_core.data.preprocessing import open_image
from reid_core.engines import EngineChoice
from reid_core.engines.publishing import publish_engine
from reid_core.engines.serving import serve
from reid_core.model import read_manifest
from reid_core.retrieval.encoder import BATCH_SIZE, Encoder
from reid_core.sample_data import draw_people
from service.db.ids import new_id, new_ids
from service.db.schema import upgrade
from service.db.session import Database, open_database
from service.db.tables import Dataset, DatasetImage, Model
from service.galleries.encoding import GalleryEncoder
from service.galleries.lifecycle import create_gallery
from service.galleries.schemas import GalleryBody
from service.galleries.split_import import add_split
from service.settings import Settings

ENGINES: tuple[EngineChoice, ...] = ("auto", "torch")


def main() -> None:
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder), min_free_bytes=0, device="cpu")
        upgrade(settings.database_url)
        database = open_database(settings.database_url)
        paths = find_images(settings, arguments)
        dataset = register(database, settings, paths)
        print("| backbone | decoding alone | engine | bare | index job | job / bare | torch bare | torch job |")
        print("|---|---|---|---|---|---|---|---|")
        for backbone in arguments.backbones:
            measure(database, settings, dataset, paths, backbone, arguments)
        database.close()


def measure(
    database: Database,
    settings: Settings,
    dataset: str,
    paths: list[Path],
    backbone: str,
    arguments: argparse.Namespace,
) -> None:
    model_id = new_id("mdl")
    folder = settings.models_dir / model_id
    save(folder, backbone, arguments)
    published = publish_engine(folder, paths, "auto")
    add_model(database, settings, model_id, backbone)
    encoders = {engine: serve(folder, CPU, engine).encoder for engine in ENGINES}
    bare: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    job: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    decoding = []
    for number in range(arguments.rounds):
        decoding.append(decode(encoders["torch"], paths))
        for engine, encoder in encoders.items():
            bare[engine].append(run_bare(encoder, paths))
            job[engine].append(run_job(database, settings, dataset, model_id, encoder, f"{backbone}-{engine}-{number}"))
    middle = [np.median(rates) for rates in (bare["auto"], job["auto"], bare["torch"], job["torch"])]
    ratio = np.median(np.divide(job["auto"], bare["auto"]))
    row = f"{middle[0]:.0f} | {middle[1]:.0f} | {ratio:.2f} | {middle[2]:.0f} | {middle[3]:.0f}"
    print(f"| {backbone} | {np.median(decoding):.0f} | {published.name}, {published.precision} | {row} |", flush=True)


def run_bare(encoder: Encoder, paths: list[Path]) -> float:
    batches = [prepare(encoder, paths[start : start + BATCH_SIZE]) for start in range(0, 4 * BATCH_SIZE, BATCH_SIZE)]
    encoder.embed_prepared(batches[0])
    began, count = time.perf_counter(), 0
    while count < len(paths):
        batch = batches[count // BATCH_SIZE % len(batches)]
        encoder.embed_prepared(batch)
        count += len(batch)
    return count / (time.perf_counter() - began)


def run_job(database: Database, settings: Settings, dataset: str, model_id: str, encoder: Encoder, name: str) -> float:
    with database.write() as session:
        gallery = create_gallery(session, settings, GalleryBody(name=name.replace("_", "-"), model=model_id)).id
    split = {"dataset": dataset, "split": "gallery"}
    began = time.perf_counter()
    done = add_split(
        database,
        settings,
        gallery,
        split,
        GalleryEncoder(encoder, None),
        on_progress=lambda done, total: None,
        should_stop=lambda: False,
    )
    return done["added"] / (time.perf_counter() - began)


def decode(encoder: Encoder, paths: list[Path]) -> float:
    """Images a second of decoding and resizing by as many threads as there are cores."""
    began = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda path: encoder.prepare(open_image(path)), paths):
            pass
    return len(paths) / (time.perf_counter() - began)


def prepare(encoder: Encoder, paths: list[Path]) -> torch.Tensor:
    return torch.stack([encoder.prepare(open_image(path)) for path in paths])


def find_images(settings: Settings, arguments: argparse.Namespace) -> list[Path]:
    """As many files as are asked for, the same ones again under other names where there are fewer."""
    folder = settings.home / "crops"
    folder.mkdir(parents=True)
    if arguments.data is None:
        height, width = map(int, arguments.crop.split("x"))
        people = draw_people(min(arguments.images, 256), height=height, width=width)
        for number in range(arguments.images):
            people[number % len(people)].save(folder / f"{number:06}.jpg", quality=90)
    else:
        found = sorted(path for path in arguments.data.rglob("*") if path.is_file())
        for number in range(arguments.images):
            source = found[number % len(found)]
            (folder / f"{number:06}{source.suffix}").write_bytes(source.read_bytes())
    return sorted(folder.iterdir())


def register(database: Database, settings: Settings, paths: list[Path]) -> str:
    folder = paths[0].parent
    row = Dataset(id=new_id("ds"), name="crops", path=str(folder), format="auto", state="ready", uploaded=False)
    rows = [
        DatasetImage(
            id=key, dataset_id=row.id, split="gallery", position=place, path=path.name, identity="1", camera="1"
        )
        for place, (key, path) in enumerate(zip(new_ids("img", len(paths)), paths, strict=True))
    ]
    with database.write() as session:
        session.add(row)
        session.flush()
        session.add_all(rows)
    return row.id


def add_model(database: Database, settings: Settings, model_id: str, name: str) -> None:
    manifest = read_manifest(settings.models_dir / model_id)
    row = Model(
        id=model_id,
        name=name,
        method=manifest.method,
        settings=dict(manifest.settings),
        lineage={},
        embedding_size=manifest.embedding_size,
        preprocessing=manifest.preprocessing.as_json(),
        files={},
    )
    with database.write() as session:
        session.add(row)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="a folder of images instead of drawn ones")
    parser.add_argument("--crop", default="128x64", help="height x width of drawn images")
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=128)
    return parser.parse_args()


if __name__ == "__main__":
    main()
