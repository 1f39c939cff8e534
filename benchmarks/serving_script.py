"""The opponent of `benchmarks.serving`: a search service of one gallery in one file, as a good engineer would write it.

FastAPI, sqlite3 and FAISS; it checks the key, keeps an audit row of every search, and answers with the images' rows. It
has no filters, no deletions, no limits and no second process.

    python -m benchmarks.serving_script HOME MODEL_FOLDER PORT
"""

from __future__ import annotations

import hashlib
import io
import sqlite3
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Annotated, Any

import faiss
import numpy as np
import torch
import uvicorn
from fastapi import Depends, FastAPI, File, Form, Header, HTTPException
from numpy.typing import NDArray
from PIL import Image

from reid_core.engines.serving import serve

Vectors = NDArray[np.float32]

CANDIDATES = 256
"""Of an index that estimates scores: enough to find .98 of the ten closest."""

SCHEMA = """
create table keys (hash text primary key, id text, scopes text);
create table images (position integer primary key, id text, identity text, camera text, captured_at text, file text);
create table audit (id integer primary key, at real, key_id text, action text, target text, search_id text);
"""


def make_database(path: Path, key: str, rows: list[tuple[Any, ...]]) -> None:
    """The script's database, with one key and the images' rows."""
    with sqlite3.connect(path) as connection:
        connection.executescript("pragma journal_mode=wal;" + SCHEMA)
        connection.execute(
            "insert into keys values (?, 'key_1', 'search')", (hashlib.sha256(key.encode()).hexdigest(),)
        )
        connection.executemany("insert into images values (?, ?, ?, ?, ?, ?)", rows)
    connection.close()


def find(index: Any, vectors: Vectors, query: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
    """Scores and positions of the `k` closest; candidates of an index that estimates are compared once more."""
    if isinstance(index, faiss.IndexFlat):
        scores, positions = index.search(query, k)
        return scores[0], positions[0]
    _, ((*candidates,),) = index.search(query, CANDIDATES)
    found = np.array(candidates)
    scores = vectors[found] @ query[0]
    best = np.argsort(-scores)[:k]
    return scores[best], found[best]


def open_index(home: Path) -> tuple[Any, Vectors]:
    """The index, and the vectors under it as a mapped file."""
    return faiss.read_index(str(home / "index")), np.load(home / "vectors.npy", mmap_mode="r")


def create_app(home: Path, model_folder: Path) -> FastAPI:
    app, local = FastAPI(), threading.local()
    encoder = serve(model_folder, torch.device("cpu"), "auto").encoder  # the fastest there is, as ours
    forward = threading.Lock()  # one network at a time, with all cores
    index, vectors = open_index(home)

    def database() -> sqlite3.Connection:
        if not hasattr(local, "connection"):
            local.connection = sqlite3.connect(home / "script.db", isolation_level=None)
            local.connection.execute("pragma synchronous=normal")
        connection: sqlite3.Connection = local.connection
        return connection

    def check_key(x_api_key: Annotated[str, Header()]) -> str:
        digest = hashlib.sha256(x_api_key.encode()).hexdigest()
        row = database().execute("select id from keys where hash = ?", (digest,)).fetchone()
        if row is None:
            raise HTTPException(401)
        return str(row[0])

    @app.post("/search")
    def search(
        image: Annotated[bytes, File()],
        gallery: Annotated[str, Form()],
        top_k: Annotated[int, Form()] = 10,
        key: str = Depends(check_key),
    ) -> dict[str, Any]:
        prepared = encoder.prepare(Image.open(io.BytesIO(image)).convert("RGB"))
        with forward:
            vector = encoder.embed_prepared(prepared[None]).numpy()
        scores, positions = find(index, vectors, vector, top_k)
        marks = ",".join("?" * len(positions))
        found = database().execute(f"select * from images where position in ({marks})", positions.tolist())
        rows = {row[0]: row for row in found}
        search_id = uuid.uuid4().hex
        database().execute(
            "insert into audit (at, key_id, action, target, search_id) values (?, ?, 'search', ?, ?)",
            (time.time(), key, gallery, search_id),
        )
        results = [
            {"rank": rank, "score": float(score), "image_id": row[1], "identity": row[2], "camera": row[3]}
            for rank, (score, row) in enumerate(
                zip(scores, (rows[place] for place in positions.tolist()), strict=True), 1
            )
        ]
        return {"search_id": search_id, "gallery": gallery, "results": results}

    return app


def main() -> None:
    home, model_folder, port = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    faiss.omp_set_num_threads(1)
    np.seterr(all="raise")
    uvicorn.run(create_app(home, model_folder), port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
