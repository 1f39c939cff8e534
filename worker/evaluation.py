"""Evaluation jobs: a model on the query and gallery splits of a data set."""

from __future__ import annotations

from reid_core.evaluation.ranking import encode_labels, evaluate
from reid_core.model import load_model
from reid_core.training.precision import resolve_device
from service.datasets import pictures
from service.db.ids import new_id
from service.db.lookup import find
from service.db.tables import Dataset, Evaluation
from worker.work import Outcome, Work


def run(work: Work) -> Outcome:
    """Embeds both splits and ranks the gallery for every query; the numbers carry their protocol."""
    spec = work.job.spec
    with work.database.read() as session:
        dataset = find(session, Dataset, spec["dataset"])
        query, gallery = pictures(session, dataset, "query"), pictures(session, dataset, "gallery")
    encoder = load_model(work.settings.models_dir / spec["model"], resolve_device(work.settings.device)).encoder()
    query_embeddings = encoder.embed_files([picture.path for picture in query], on_progress=work.progress("query"))
    gallery_embeddings = encoder.embed_files(
        [picture.path for picture in gallery], on_progress=work.progress("gallery")
    )
    metrics = evaluate(query_embeddings, gallery_embeddings, *encode_labels(query, gallery))
    result = metrics.as_json()
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
