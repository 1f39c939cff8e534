"""Adaptation jobs: a model trained further on images without labels becomes a model of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from reid_core.clustering import Clustering, Clusters
from reid_core.data.records import SPLITS, ImageRecord
from reid_core.devices import resolve_device
from reid_core.errors import DatasetError
from reid_core.methods import find_method
from reid_core.model import load_model
from reid_core.sampling import Graph
from reid_core.training.adaptation import Adaptation, Reliability, adapt
from reid_core.training.checkpoint import History
from reid_core.training.loop import CHECKPOINT_NAME, Observer, Result
from reid_core.training.progress import Progress
from reid_core.training.validation import HeldOut
from service.datasets.checking import as_dataset_problem, check_files
from service.datasets.images import images
from service.db.lookup import find
from service.db.tables import Dataset, DatasetImage, Gallery, GalleryImage
from service.errors import Problem
from service.galleries.image_files import image_path
from service.jobs.clusters import write_clusters
from service.jobs.graphs import write_graph
from service.jobs.recording import progress_as_json
from worker.publication import describe_origin, engine_warnings, make_model, publish_model
from worker.work import Outcome, Work

_IMAGES = "images.json"


@dataclass(frozen=True, slots=True)
class Source:
    """The images of a job, and where they are from.

    Attributes:
        name: of the data set or the gallery.
        ids: of the images, in their order.
        labelled: people whose accuracy is measured; None where the data set has no query with a match, or of a gallery.
    """

    name: str
    ids: Sequence[str]
    images: Sequence[ImageRecord]
    labelled: HeldOut | None


def run(work: Work) -> Outcome:
    """Adapts the model, publishes what became of it, and gives back its row."""
    source = _read_source(work)
    plan = _plan(work, source)
    _start_over_where_images_changed(work, source)
    if not any(work.folder.glob(f"*/{CHECKPOINT_NAME}")):
        work.reporter.restart_curves({})  # an attempt that was lost before its first checkpoint has left points

    def on_clusters(epoch: int, clusters: Clusters, chosen: Sequence[int]) -> None:
        write_clusters(work.folder, epoch, clusters, chosen, source.ids, source.images)
        work.reporter.event("clusters", {"epoch": epoch + 1, "clusters": clusters.count, "trained_on": len(chosen)})

    with as_dataset_problem([source.name]):
        result = adapt(
            plan, work.folder, _observer(work), on_clusters, checkpoint_seconds=work.settings.checkpoint_seconds
        )
    making, manifest, engine = make_model(work, plan.method, plan.settings, result, source.images)
    row = publish_model(work, making, manifest, engine, _lineage(work, source))
    warnings = engine_warnings(work, engine, stage=1)
    return Outcome({"model": row.id, **_summarise(result), "warnings": [asdict(each) for each in warnings]}, [row])


def _summarise(result: Result) -> dict[str, Any]:
    """The last epoch's counts, and the accuracy on labelled people before and after where there are any."""
    last = {name: points[-1][1] for name, points in result.history.items()}
    before = {name.removesuffix("_before"): value for name, value in last.items() if name.endswith("_before")}
    return {
        "clusters": int(last["clusters"]),
        "confident_images": int(last["confident_images"]),
        "before": before or None,
        "after": {name: last[name] for name in before} or None,
    }


def _plan(work: Work, source: Source) -> Adaptation:
    spec, device = work.job.spec, resolve_device(work.job.spec["device"])
    model = load_model(work.settings.models_dir / spec["model"], device)
    method = find_method(model.manifest.method)
    settings = type(method.recipe).model_validate(spec["settings"])
    plan = Adaptation(method, settings, source.images, model.network, spec["seed"], device, labelled=source.labelled)
    return replace(plan, clustering=Clustering(**spec["clustering"]), reliability=Reliability(**spec["reliability"]))


def _read_source(work: Work) -> Source:
    spec = work.job.spec
    if gallery := spec.get("gallery"):
        with work.database.read() as session:
            return _of_gallery(session, work, find(session, Gallery, gallery))
    check_files(work.database, work.settings, spec["dataset"], SPLITS, on_progress=work.progress("check"))
    with work.database.read() as session:
        return _of_dataset(session, work, find(session, Dataset, spec["dataset"]))


def _of_dataset(session: Session, work: Work, dataset: Dataset) -> Source:
    of_split = select(DatasetImage.id).where(DatasetImage.dataset_id == dataset.id, DatasetImage.split == "train")
    ids = session.scalars(of_split.order_by(DatasetImage.position)).all()
    labelled = None
    if (dataset.report or {}).get("evaluable_queries"):
        query, gallery = (tuple(images(session, work.settings, dataset, split)) for split in ("query", "gallery"))
        labelled = HeldOut(query, gallery)
    return Source(dataset.name, ids, images(session, work.settings, dataset, "train"), labelled)


def _of_gallery(session: Session, work: Work, gallery: Gallery) -> Source:
    """Its images whose files are kept. Raises DatasetError where there are none."""
    found: dict[str, ImageRecord] = {}
    of_gallery = select(GalleryImage).where(GalleryImage.gallery_id == gallery.id).order_by(GalleryImage.position)
    for image in session.scalars(of_gallery):
        try:
            path = image_path(session, work.settings, image)
        except Problem:  # its file is not kept, or its data set is gone
            continue
        found[image.id] = ImageRecord(path, image.identity or "", image.camera or "", image.captured_at)
    if not found:
        raise DatasetError(
            f"Gallery {gallery.name!r} keeps no files of its images.",
            hint="Make one with keep_images, or register the images as a data set.",
        )
    return Source(gallery.name, list(found), list(found.values()), None)


def _start_over_where_images_changed(work: Work, source: Source) -> None:
    """Clusters are of certain images: what an earlier attempt made of others, some of them erased since, goes."""
    file = work.folder / _IMAGES
    if file.exists() and json.loads(file.read_text()) != list(source.ids):
        for folder in (*work.folder.glob("epoch-*"), work.folder / "clusters"):
            shutil.rmtree(folder, ignore_errors=True)
        work.reporter.event("started-over", {"reason": "images came or went since the attempt before"})
    file.write_text(json.dumps(list(source.ids)))


def _observer(work: Work) -> Observer:
    def on_resume(step: int, history: History) -> None:
        work.reporter.restart_curves(history)
        work.reporter.event("checkpoint", {"resumed_at_step": step})

    def on_progress(progress: Progress) -> None:
        state = progress_as_json(
            progress.fraction,
            progress.phase,
            epoch=progress.epoch,
            epochs=progress.epochs,
            step=progress.step,
            steps=progress.steps,
            images_per_second=progress.images_per_second,
            eta_seconds=progress.eta_seconds,
        )
        work.reporter.progress(state, progress.values, progress.total_step)

    def on_graph(epoch: int, graph: Graph, images: Sequence[ImageRecord]) -> None:
        write_graph(work.folder, epoch, graph, images)

    return Observer(on_resume=on_resume, on_graph=on_graph, on_progress=on_progress, should_stop=work.should_stop)


def _lineage(work: Work, source: Source) -> dict[str, Any]:
    """The model that it started from and the images that it saw, of galleries with the data sets that those are of."""
    spec = work.job.spec
    with work.database.read() as session:
        if gallery := spec.get("gallery"):
            referred = select(GalleryImage.dataset_image_id).where(GalleryImage.gallery_id == gallery)
            of_gallery = select(DatasetImage.dataset_id).where(DatasetImage.id.in_(referred)).distinct()
            rows = [(find(session, Dataset, key), "all") for key in session.scalars(of_gallery)]
        else:
            rows = [(find(session, Dataset, spec["dataset"]), "train")]
    return {
        "datasets": [describe_origin(row, part) for row, part in rows],
        "parent": spec["model"],
        "init_from": spec["model"],
        "teacher": None,
        "seed": spec["seed"],
        "adapted": {
            "gallery": spec.get("gallery"),
            "images": len(source.ids),
            "clustering": spec["clustering"],
            "reliability": spec["reliability"],
        },
    }
