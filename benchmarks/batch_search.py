"""One hundred queries as one request, beside the same as a hundred requests over one kept connection.

    python -m benchmarks.batch_search --images 10000 100000 --backbone resnet18

Starts `reid up` on galleries of made-up vectors. Both ask by embeddings, by stored images and, with `--uploads`, by
uploaded ones, `top_k` 10; rounds of the two alternate, and every batch must find what its queries find alone (the best
image of uploaded ones, whose embeddings are rounded otherwise in a batch). Prints Markdown: the median seconds of each
and their quotient.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from sqlalchemy import select

from benchmarks.serving import Home, draw_files, fill, index_kind, prepare, running_service
from service.db.tables import GalleryImage

QUERIES, ROUNDS = 100, 7

Query = dict[str, Any]
Found = list[list[str]]


def main() -> None:
    options = parse_options()
    print("| vectors | index | queries by | one request, s | 100 requests, s | quotient |")
    print("|---|---|---|---|---|---|")
    for count in options.images:
        with tempfile.TemporaryDirectory(prefix="reid-batch-") as folder:
            home = prepare(Path(folder), options)
            fill(home, "hall", count, options.seed)
            with running_service(home, options) as (port, _):
                address = f"http://127.0.0.1:{port}"
                with httpx.Client(base_url=address, headers={"X-API-Key": home.key}, timeout=600) as client:
                    sorts = queries_of(home, options.seed) | ({"uploaded image": uploads()} if options.uploads else {})
                    for name, queries in sorts.items():
                        print(f"| {count:,} | {index_kind(home)} | {name} | {compare(client, queries)} |", flush=True)


def queries_of(home: Home, seed: int) -> dict[str, list[Query]]:
    """The queries of each sort: drawn directions, and images of the gallery."""
    vectors = np.random.default_rng(seed).standard_normal((QUERIES, home.size), dtype=np.float32)
    with home.database.read() as session:
        ids = session.scalars(select(GalleryImage.id).order_by(GalleryImage.position).limit(QUERIES)).all()
    return {
        "embedding": [{"embedding": vector} for vector in vectors.tolist()],
        "image of the gallery": [{"image_id": image} for image in ids],
    }


def uploads() -> list[Query]:
    """Drawn people as files, over and over."""
    files = draw_files()
    return [{"image": files[number % len(files)]} for number in range(QUERIES)]


def compare(client: httpx.Client, queries: list[Query]) -> str:
    """The cells of a row."""
    batch, single = search_together(client, queries), search_alone(client, queries)  # not timed: loads the index
    assert batch == single, "a batch finds something else than its queries alone"
    together, alone = [], []
    for _ in range(ROUNDS):
        together.append(seconds(search_together, client, queries))
        alone.append(seconds(search_alone, client, queries))
    first, second = statistics.median(together), statistics.median(alone)
    return f"{first:.3f} | {second:.3f} | {first / second:.2f}"


def seconds(search: Callable[[httpx.Client, list[Query]], Found], client: httpx.Client, queries: list[Query]) -> float:
    start = time.perf_counter()
    search(client, queries)
    return time.perf_counter() - start


def search_together(client: httpx.Client, queries: list[Query]) -> Found:
    if "image" in queries[0]:
        files = [("image", query["image"]) for query in queries]
        answer = client.post("/search/batch", data={"gallery": "hall", "top_k": 1}, files=files)
    else:
        answer = client.post("/search/batch", json={"gallery": "hall", "queries": queries})
    answer.raise_for_status()
    return [[result["image_id"] for result in item["results"]] for item in answer.json()["items"]]


def search_alone(client: httpx.Client, queries: list[Query]) -> Found:
    found = []
    for query in queries:
        if "image" in query:
            answer = client.post("/search", data={"gallery": "hall", "top_k": 1}, files={"image": query["image"]})
        elif "embedding" in query:
            answer = client.post("/search", json={"gallery": "hall", **query})
        else:
            answer = client.get("/search", params={"gallery": "hall", **query})
        answer.raise_for_status()
        found.append([result["image_id"] for result in answer.json()["results"]])
    return found


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--uploads", action="store_true", help="search by uploaded images, too")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--processes", type=int, default=1, help="REID_API_PROCESSES")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
