"""Evaluation jobs: a model on the query and gallery splits of a data set, re-ranked where asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from reid_core.data.records import ImageRecord
from reid_core.devices import resolve_device
from reid_core.errors import CoreError
from reid_core.evaluation.fusion import fuse, join_queries
from reid_core.evaluation.labels import Labels, encode_labels
from reid_core.evaluation.metrics import Metrics
from reid_core.evaluation.open_set import measure_open_set, take_out
from reid_core.evaluation.ranking import BLOCK_SCORES, evaluate, evaluate_scores
from reid_core.matching import FoldedHead
from reid_core.model import TrainedModel, load_model, read_manifest
from reid_core.reranking import Reciprocal, rerank_embeddings, rerank_stored
from reid_core.retrieval.maps import MapStore, map_bytes
from reid_core.retrieval.pairs import Pairs, encode_into
from service.datasets.checking import as_dataset_problem, check_files
from service.datasets.images import images
from service.db.ids import new_id
from service.db.lookup import find
from service.db.tables import Dataset, Evaluation
from service.evaluations.queries import QueryResults, write_results
from service.storage import ensure_free_space
from worker.work import Outcome, Work

_QUERIES_AT_ONCE = 64
"""Queries matched between two signs of progress."""

_BOTH = "qaconv+k_reciprocal"

_MAP_DTYPE = "float16"


@dataclass(frozen=True, slots=True)
class _Splits:
    """Queries, gallery and the files of both.

    `places` are those of the gallery images in the data set's split. With `members` a query is several pictures
    (reid_core/evaluation/fusion.py); `taken_out` people were taken out of the gallery for an open set.
    """

    query: Sequence[ImageRecord]
    gallery: Sequence[ImageRecord]
    paths: tuple[list[Path], list[Path]]
    places: NDArray[np.int64]
    members: Sequence[Sequence[int]] | None = None
    taken_out: int | None = None

    @property
    def labels(self) -> tuple[Labels, Labels]:
        return encode_labels(self.query, self.gallery)

    def fuse(self, query: Tensor, gallery: Tensor) -> tuple[Tensor, Tensor]:
        """The embeddings of queries and gallery by those of the files."""
        return (query if self.members is None else fuse(query, gallery, self.members)), gallery


def run(work: Work) -> Outcome:
    """Ranks the gallery for every query by embeddings, then again where asked for; numbers carry their protocol."""
    spec = work.job.spec
    check_files(work.database, work.settings, spec["dataset"], ("query", "gallery"), on_progress=work.progress("check"))
    with work.database.read() as session:
        dataset = find(session, Dataset, spec["dataset"])
        query, gallery = (images(session, work.settings, dataset, split) for split in ("query", "gallery"))
    with as_dataset_problem([dataset.name]), _scratch(work):
        splits = _prepare(spec, query, gallery)
        first, metrics = _measure(work, splits)
    return _outcome(work, dataset, splits, first, metrics)


def _prepare(spec: dict[str, Any], query: list[ImageRecord], gallery: list[ImageRecord]) -> _Splits:
    """The splits as asked for; jobs of earlier versions ask for every query by itself, and everybody in the gallery."""
    taken_out, everybody = None, gallery
    if open_set := spec.get("open_set"):
        gallery, taken_out = take_out(query, gallery, open_set["share"], open_set["seed"])
    here = {id(image) for image in gallery}
    places = np.array([place for place, image in enumerate(everybody) if id(image) in here], dtype=np.int64)
    paths = [image.path for image in query], [image.path for image in gallery]
    if spec.get("multi_query"):
        joined = join_queries(query, gallery)
        return _Splits(joined.queries, gallery, paths, places, joined.members, taken_out)
    return _Splits(query, gallery, paths, places, taken_out=taken_out)


def _measure(work: Work, splits: _Splits) -> tuple[Metrics, Metrics]:
    """Before and after re-ranking; the same twice where none is asked for."""
    spec = work.job.spec
    if spec["reranker"] is not None:
        return _match(work, splits)
    query, gallery = _embed(work, splits, _load(work, spec["model"]))
    first = metrics = evaluate(query, gallery, *splits.labels)
    if spec["rerank"] == "k_reciprocal":
        metrics = _rerank(work, splits, query, gallery)
    return first, metrics


def _match(work: Work, splits: _Splits) -> tuple[Metrics, Metrics]:
    """Before and after re-ranking by the reranker's matcher."""
    spec = work.job.spec
    reranker = _load(work, spec["reranker"])
    head, shape = _matcher(reranker)
    maps = _map_stores(work, splits, shape)
    query, gallery = _embed(work, splits, reranker, maps)
    if spec["reranker"] != spec["model"]:
        query, gallery = _embed(work, splits, _load(work, spec["model"]))
    first = evaluate(query, gallery, *splits.labels)
    pairs = Pairs(*maps, head, work.should_stop, splits.members)
    if spec["rerank"] == _BOTH:
        return first, _rerank_matched(work, splits, pairs)
    metrics = evaluate_scores(
        _scores(pairs, query, gallery, spec["candidates"]),
        *splits.labels,
        similarity="score of the matcher",
        comparable=_matches_all(spec["candidates"], gallery),
        block_scores=min(BLOCK_SCORES, _QUERIES_AT_ONCE * len(gallery)),
        on_progress=work.progress("rerank"),
    )
    return first, metrics


def _rerank_matched(work: Work, splits: _Splits, pairs: Pairs) -> Metrics:
    """After k-reciprocal re-ranking by the matcher's distances of all images, which lie beside the maps on disk."""
    images_ = len(splits.query) + len(splits.gallery)
    _ensure_room(work, 4 * images_**2)
    matrix = np.memmap(_scratch_folder(work) / "distances", np.float32, "w+", shape=(images_, images_))
    pairs.write_distances(matrix, work.progress("match"))
    progress, queries = work.progress("rerank"), len(splits.query)
    reranked = rerank_stored(matrix, queries, Reciprocal(), on_progress=progress, should_stop=work.should_stop)
    similarity = "1 - k-reciprocal distance of the matcher's distances 1 - sigmoid(score / 10)"
    return evaluate_scores(reranked.scores, *splits.labels, similarity=similarity)


def _scores(pairs: Pairs, query: Tensor, gallery: Tensor, candidates: int | None) -> Callable[[int, int], Tensor]:
    """Scores of a block of queries: the matcher's for all pairs, or for each query's first `candidates`."""
    if candidates is None or _matches_all(candidates, gallery):
        return pairs.score_all
    return lambda start, stop: pairs.score_candidates(start, query[start:stop] @ gallery.T, candidates)


def _matches_all(candidates: int | None, gallery: Tensor) -> bool:
    """Else what is not among the candidates has no score of the matcher."""
    return candidates is None or candidates >= len(gallery)


def _rerank(work: Work, splits: _Splits, query: Tensor, gallery: Tensor) -> Metrics:
    """After k-reciprocal re-ranking of queries and gallery together."""
    reranked = rerank_embeddings(
        query, gallery, Reciprocal(), on_progress=work.progress("rerank"), should_stop=work.should_stop
    )
    return evaluate_scores(reranked.scores, *splits.labels, similarity="1 - k-reciprocal distance of embeddings")


def _embed(
    work: Work, splits: _Splits, model: TrainedModel, maps: tuple[MapStore, MapStore] | None = None
) -> tuple[Tensor, Tensor]:
    """The embeddings of queries and gallery; the files' maps go to `maps` where given."""
    encoder = model.encoder(flip_average=_flip_average(work))
    _ensure_room(work, sum(map(len, splits.paths)) * model.manifest.embedding_size * np.dtype(np.float32).itemsize)
    whose = "model" if maps is None else "reranker"
    query, gallery = (
        encode_into(_scratch_folder(work) / f"{split}-{whose}", encoder, paths, work.progress(split), own)
        for split, paths, own in zip(("query", "gallery"), splits.paths, maps or (None, None), strict=True)
    )
    return splits.fuse(query, gallery)


def _load(work: Work, model_id: str) -> TrainedModel:
    return load_model(work.settings.models_dir / model_id, resolve_device(work.settings.device))


def _matcher(model: TrainedModel) -> tuple[FoldedHead, tuple[int, int, int]]:
    head, shape = model.matching_head(), model.manifest.map_shape
    if head is None or shape is None:
        raise CoreError(
            f"A model of method {model.manifest.method!r} makes no local feature maps to match.",
            hint="Re-rank by a model of a QAConv method.",
        )
    return head, shape


@contextmanager
def _scratch(work: Work) -> Iterator[None]:
    """A folder for embeddings, maps and distances, gone at the end: those of a large data set do not fit in memory."""
    folder = _scratch_folder(work)
    shutil.rmtree(folder, ignore_errors=True)  # what an attempt left that was killed
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _scratch_folder(work: Work) -> Path:
    return work.folder / "scratch"


def _map_stores(work: Work, splits: _Splits, shape: tuple[int, int, int]) -> tuple[MapStore, MapStore]:
    """Empty stores for the maps of queries and gallery."""
    _ensure_room(work, sum(map(len, splits.paths)) * map_bytes(shape, _MAP_DTYPE))
    query, gallery = (
        MapStore.create(_scratch_folder(work) / f"{split}-maps", shape, _MAP_DTYPE) for split in ("query", "gallery")
    )
    return query, gallery


def _ensure_room(work: Work, num_bytes: int) -> None:
    ensure_free_space(work.folder, needed_bytes=num_bytes, min_free_bytes=work.settings.min_free_bytes)


def _flip_average(work: Work) -> bool | None:
    return work.job.spec.get("flip_average")  # jobs of earlier versions do not say


def _averages(work: Work, model_id: str) -> bool:
    """True if that model's images were averaged with their mirror images."""
    asked = _flip_average(work)
    return read_manifest(work.settings.models_dir / model_id).preprocessing.flip_average if asked is None else asked


def _warnings(first: Metrics, metrics: Metrics) -> list[dict[str, str]]:
    """A warning where re-ranking lowers mAP."""
    if metrics.mAP >= first.mAP:
        return []
    detail = f"Re-ranked, mAP is {metrics.mAP:.3f}; by the embeddings alone it is {first.mAP:.3f}."
    hint = 'Evaluate and search with rerank "none", or train the matcher longer or from other weights.'
    return [{"code": "reranking-below-first-stage", "detail": detail, "hint": hint}]


def _camera_pairs(splits: _Splits, metrics: Metrics) -> list[dict[str, Any]]:
    """The table of camera pairs by the cameras' names, "" for images without one."""
    names: dict[int, str] = {}
    for labels, images_ in zip(splits.labels, (splits.query, splits.gallery), strict=True):
        names |= zip(labels.cameras.tolist(), (image.camera for image in images_), strict=True)
    return [
        asdict(pair) | {"query": names[pair.query], "gallery": names[pair.gallery]} for pair in metrics.camera_pairs
    ]


def _query_results(splits: _Splits, metrics: Metrics) -> QueryResults:
    """The results of each query, with images by their places in the data set's splits."""
    queries = range(len(splits.query)) if splits.members is None else [members[0] for members in splits.members]
    return QueryResults(
        queries=list(queries),
        people=splits.labels[0].identities.tolist(),
        matches=[len(row.ranks) for row in metrics.rows],
        average_precision=[None if np.isnan(value) else value for value in metrics.average_precision.tolist()],
        first_rank=metrics.first_rank.tolist(),
        first=[splits.places[row.first].tolist() for row in metrics.rows],
        scores=[[score if np.isfinite(score) else None for score in row.first_scores.tolist()] for row in metrics.rows],
    )


def _outcome(work: Work, dataset: Dataset, splits: _Splits, first: Metrics, metrics: Metrics) -> Outcome:
    spec, result = work.job.spec, metrics.as_json() | {"camera_pairs": _camera_pairs(splits, metrics)}
    asked = {name: spec[name] for name in ("rerank", "reranker", "candidates")}
    asked |= {name: spec.get(name) for name in ("open_set", "multi_query")}
    asked["splits"] = {"query": "query", "gallery": "gallery"}
    if splits.members is not None:
        asked["queries"] = (
            "the query images of one identity and camera fused to their mean, with the gallery's of the same, "
            "which the protocol takes out of its ranking"
        )
    if splits.taken_out is not None:
        result["open_set"] = asdict(measure_open_set(metrics)) | {"taken_out_identities": splits.taken_out}
    averaged = {"flip_average": _averages(work, spec["model"])}
    if spec["reranker"] is not None:
        averaged["reranker_flip_average"] = _averages(work, spec["reranker"])
    read_as = {"dataset": {**(dataset.report or {}).get("protocol", {}), "fingerprint": dataset.fingerprint}}
    result["protocol"] = {**result["protocol"], **asked, **averaged, **read_as}
    write_results(work.folder, _query_results(splits, metrics))
    if spec["rerank"] != "none":
        before = first.as_json()
        result["first_stage"] = {"cmc": before["cmc"], "mAP": before["mAP"]}
        result["warnings"] = _warnings(first, metrics)
    row = Evaluation(
        id=new_id("eval"),
        model_id=spec["model"],
        dataset_id=spec["dataset"],
        job_id=work.job.id,
        rerank=spec["rerank"],
        reranker_id=spec["reranker"],
        metrics={name: value for name, value in result.items() if name != "protocol"},
        protocol=result["protocol"],
    )
    return Outcome({"evaluation": row.id, "model": spec["model"], "dataset": spec["dataset"], **result}, [row])
