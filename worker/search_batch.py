"""Jobs that search a gallery by many queries: block by block, each of them a file, which together become the results.

A block that is written is done: an attempt that is killed goes on behind the last one. No more than a block's queries
and results are in memory.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from sqlalchemy import select
from sqlalchemy.orm import Session

from reid_core.reranking import score_candidates
from reid_core.retrieval.index import set_threads
from reid_core.retrieval.snapshot import Snapshot
from service.datasets.checking import check_files
from service.db.lookup import find
from service.db.tables import DatasetImage, Gallery, GalleryImage
from service.errors import Problem
from service.galleries.files import embedding_size
from service.galleries.opening import open_snapshot
from service.galleries.reading import read_current
from service.jobs.query_files import BLOCK, FileQuery, count_queries, read_blocks
from service.jobs.searched import options_of
from service.jobs.uploaded_queries import uploaded_path
from service.models.lifecycle import describe_file
from service.storage import delete_file, ensure_free_space, open_for_publishing
from worker.query_vectors import QueryVectors, Vector, own_positions
from worker.work import Outcome, Work

_RESULT_BYTES = 80
"""Of one result in a block and once more in the file, roughly."""

_SCHEMA = pyarrow.schema(
    [
        ("query", pyarrow.int64()),
        ("id", pyarrow.string()),
        ("results", pyarrow.list_(pyarrow.struct([("image_id", pyarrow.string()), ("score", pyarrow.float64())]))),
        ("problem", pyarrow.string()),
    ]
)

Row = dict[str, Any]


def run(work: Work) -> Outcome:
    """Answers the queries that the spec names; `results.jsonl` or `results.parquet` is left in the job's folder."""
    set_threads(work.settings.threads or os.cpu_count() or 1)
    queries, blocks = _queries(work), work.folder / "blocks"
    blocks.mkdir(parents=True, exist_ok=True)
    total, options = count_queries(queries), options_of(work.job.spec)
    needed = total * options.top_k * _RESULT_BYTES
    ensure_free_space(work.folder, needed_bytes=needed, min_free_bytes=work.settings.min_free_bytes)
    searcher, report = _Searcher(work), work.progress("search")
    for number, block in enumerate(read_blocks(queries)):
        if not _find_block(blocks, number):
            rows, revision = searcher.answer(block, number * BLOCK)
            _write_block(blocks / f"{number:08d}-{revision}.parquet", rows)
        report(min(total, (number + 1) * BLOCK), total)
    done = sorted(blocks.glob("*.parquet"))
    results = work.folder / f"results.{options.format}"
    problems = _assemble(done, results)

    def clean_up() -> None:
        shutil.rmtree(blocks, ignore_errors=True)
        delete_file(queries)

    revisions = sorted({int(path.stem.partition("-")[2]) for path in done})
    files = {results.name: describe_file(results)}
    told = {"gallery": work.job.spec["gallery"], "queries": total, "problems": problems, "revisions": revisions}
    return Outcome({**told, "files": files}, clean_up=clean_up)


def _queries(work: Work) -> Path:
    """The file of the queries; those of a split or a gallery are written down once: every attempt has the same."""
    named = work.job.spec["queries"]
    if "file" in named:
        path = uploaded_path(work.settings, named["file"])
        if not path.exists():
            detail = "The file of this job's queries is gone: a job has succeeded with it, or is over for days."
            raise Problem("wrong-state", detail, hint="Upload it again: POST /search/batch/jobs.")
        return path
    path = work.folder / "queries.jsonl"
    if not path.exists():
        if "dataset" in named:
            check = work.progress("check")
            check_files(work.database, work.settings, named["dataset"], (named["split"],), on_progress=check)
        with open_for_publishing(path) as file:
            for image_id in _image_ids(work, named):
                file.write(json.dumps({"id": image_id, "image_id": image_id}).encode() + b"\n")
    return path


def _image_ids(work: Work, named: dict[str, str]) -> Iterator[str]:
    if "dataset" in named:
        of_split = (DatasetImage.dataset_id == named["dataset"], DatasetImage.split == named["split"])
        ids = select(DatasetImage.id).where(*of_split).order_by(DatasetImage.position)
    else:
        ids = select(GalleryImage.id).where(GalleryImage.gallery_id == named["gallery"]).order_by(GalleryImage.position)
    with work.database.read() as session:
        yield from session.scalars(ids, execution_options={"yield_per": 500})


@dataclass(frozen=True, slots=True)
class _Opened:
    revision: int
    generation: int
    snapshot: Snapshot


class _Searcher:
    """Answers blocks of queries from the gallery as it was when the attempt began, or after its last rebuild."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._options = options_of(work.job.spec)
        self._opened: _Opened | None = None
        with work.database.read() as session:
            gallery = self._gallery(session)
            self._vectors = QueryVectors(work.settings, gallery.model_id, embedding_size(session, gallery))

    def answer(self, block: Sequence[FileQuery], first: int) -> tuple[list[Row], int]:
        """The rows of the block, whose queries are numbered from `first`, and the revision that they were found in."""
        ids = [query.image_id for query in block if query.image_id is not None]
        while True:
            opened, own, vectors = read_current(
                self._work.database,
                self._work.job.spec["gallery"],
                lambda session, gallery: self._read_block(session, gallery, block, ids),
            )
            left_out = [own.get(query.image_id or "") if self._options.exclude_self else None for query in block]
            found = self._find(opened, vectors, left_out)
            images = self._image_ids(opened, {position for pairs in found for position, _ in pairs})
            if images is not None:
                return [
                    _row(first + number, query, vector, pairs, images)
                    for number, (query, vector, pairs) in enumerate(zip(block, vectors, found, strict=True))
                ], opened.revision

    def _gallery(self, session: Session) -> Gallery:
        return find(session, Gallery, self._work.job.spec["gallery"])

    def _read_block(
        self, session: Session, gallery: Gallery, block: Sequence[FileQuery], ids: Sequence[str]
    ) -> tuple[_Opened, dict[str, int], list[Vector | str]]:
        """The opened gallery, the positions there of the images with these `ids`, and the vector of each query."""
        opened = self._current(session, gallery)
        own = own_positions(session, gallery.id, ids, len(opened.snapshot))
        return opened, own, self._read_vectors(session, block, own, opened)

    def _current(self, session: Session, gallery: Gallery) -> _Opened:
        """The gallery, opened anew where a rebuild has renumbered its images."""
        if self._opened is None or self._opened.generation != gallery.generation:
            snapshot = open_snapshot(session, self._work.settings, gallery)
            self._opened = _Opened(gallery.revision, gallery.generation, snapshot)
        return self._opened

    def _read_vectors(
        self, session: Session, block: Sequence[FileQuery], own: dict[str, int], opened: _Opened
    ) -> list[Vector | str]:
        """The vector of each query, or why it has none; those of images in this gallery are read together."""
        stored = dict(zip(own, opened.snapshot.store.read(list(own.values())), strict=True))
        known = [stored.get(query.image_id or "") for query in block]
        others = [query for query, vector in zip(block, known, strict=True) if vector is None or not vector.any()]
        read = iter(self._vectors.read(session, others))
        return [vector if vector is not None and vector.any() else next(read) for vector in known]

    def _find(
        self, opened: _Opened, vectors: Sequence[Vector | str], left_out: Sequence[int | None]
    ) -> list[list[tuple[int, float]]]:
        """Positions and scores of each query, best first; none of one without a vector."""
        options, snapshot = self._options, opened.snapshot
        asked = [number for number, vector in enumerate(vectors) if not isinstance(vector, str)]
        found: list[list[tuple[int, float]]] = [[] for _ in vectors]
        if not asked:
            return found
        stacked = np.stack([vectors[number] for number in asked])
        width = options.width + any(position is not None for position in left_out)
        scores, positions = snapshot.search(stacked, width, keep=snapshot.keep(options.filters))
        for number, vector, places, values in zip(asked, stacked, positions, scores.clip(-1, 1), strict=True):
            pairs = [pair for pair in zip(places.tolist(), values.tolist(), strict=True) if pair[0] != left_out[number]]
            pairs = self._reranked(opened, vector, pairs[: options.width])
            least = options.min_score
            found[number] = [pair for pair in pairs if least is None or pair[1] >= least][: options.top_k]
        return found

    def _reranked(self, opened: _Opened, vector: Vector, pairs: list[tuple[int, float]]) -> list[tuple[int, float]]:
        if self._options.rerank == "none" or not pairs:
            return pairs
        positions = [position for position, _ in pairs]
        scores = score_candidates(vector[None], opened.snapshot.store.read(positions))
        return [(positions[place], float(scores[place])) for place in np.argsort(-scores, kind="stable").tolist()]

    def _image_ids(self, opened: _Opened, positions: set[int]) -> dict[int, str] | None:
        """The images at `positions`, without those erased meanwhile; None where positions have changed."""
        with self._work.database.read() as session:
            gallery = self._gallery(session)
            if gallery.generation != opened.generation:
                return None
            rows = select(GalleryImage.position, GalleryImage.id).where(GalleryImage.gallery_id == gallery.id)
            wanted = sorted(positions)
            pages = [wanted[start : start + 10_000] for start in range(0, len(wanted), 10_000)]
            return {
                position: image_id
                for page in pages
                for position, image_id in session.execute(rows.where(GalleryImage.position.in_(page)))
            }


def _row(
    number: int, query: FileQuery, vector: Vector | str, pairs: Sequence[tuple[int, float]], images: dict[int, str]
) -> Row:
    results = [{"image_id": images[position], "score": score} for position, score in pairs if position in images]
    problem = vector if isinstance(vector, str) else None
    return {"query": number, "id": query.id or query.image_id, "results": results, "problem": problem}


def _find_block(blocks: Path, number: int) -> bool:
    return any(blocks.glob(f"{number:08d}-*.parquet"))


def _write_block(path: Path, rows: Sequence[Row]) -> None:
    with open_for_publishing(path) as file:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, _SCHEMA), file)


def _assemble(blocks: Sequence[Path], results: Path) -> int:
    """Publishes the blocks as one file, in their order; the number of queries that have a problem."""
    problems = 0
    with open_for_publishing(results) as file:
        writer = pyarrow.parquet.ParquetWriter(file, _SCHEMA) if results.suffix == ".parquet" else None
        for path in blocks:
            table = pyarrow.parquet.read_table(path)
            problems += len(table) - table.column("problem").null_count
            if writer is not None:
                writer.write_table(table)
            else:
                file.writelines(json.dumps(row).encode() + b"\n" for row in table.to_pylist())
        if writer is not None:
            writer.close()
    return problems
