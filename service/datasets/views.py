"""What clients see of data sets and their pictures."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from service.clock import rfc3339
from service.db.tables import Dataset, DatasetImage
from service.errors import Problem
from service.readiness import standing


def dataset_as_json(session: Session, dataset: Dataset, prefix: str = "") -> dict[str, Any]:
    """The data set as api.md shows it; `prefix` is put before links (`/v1` where the request came that way)."""
    state, error = standing(session, dataset)
    report = dataset.report or {"findings": []}
    here = f"{prefix}/datasets/{dataset.id}"
    links = {"self": here, "report": f"{here}/report", "images": f"{here}/images"}
    if dataset.job_id:
        links["job"] = f"{prefix}/jobs/{dataset.job_id}"
    return {
        "id": dataset.id,
        "name": dataset.name,
        "format": dataset.detected_format or dataset.format,
        "variant": dataset.variant,
        "confidence": report.get("confidence"),
        "state": state,
        "uploaded": dataset.uploaded,
        "declaration": _declaration(dataset),
        "splits": dataset.splits,
        "evaluable_queries": report.get("evaluable_queries"),
        "findings": brief_findings(report),
        "fingerprint": dataset.fingerprint,
        "error": error,
        "job": dataset.job_id,
        "created_at": rfc3339(dataset.created_at),
        "links": links,
    }


def brief_findings(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What a report found, without samples: what a person should hear of at once."""
    return [{name: finding[name] for name in ("code", "severity", "count")} for finding in report["findings"]]


def _declaration(dataset: Dataset) -> dict[str, Any] | None:
    """What was said when it was registered; of the people that a drawn split trains on the protocol tells."""
    return {name: told for name, told in (dataset.declaration or {}).items() if name != "trained"} or None


def report_as_json(session: Session, dataset: Dataset) -> dict[str, Any]:
    """The report on the data set; raises 409 where there is none, yet or at all."""
    state, error = standing(session, dataset)
    if dataset.report is None or state == "pending":
        raise Problem(
            "wrong-state",
            f"data set {dataset.name!r} is {state} and has no report" + (f": {error['detail']}" if error else ""),
            hint="try again when its state is ready" if state == "pending" else (error or {}).get("hint", ""),
        )
    return {"dataset": dataset.id, "name": dataset.name, **dataset.report}


def image_as_json(image: DatasetImage, prefix: str = "") -> dict[str, Any]:
    """A picture of a data set; `path` is below the data set's folder."""
    here = f"{prefix}/datasets/{image.dataset_id}/images/{image.id}"
    return {
        "id": image.id,
        "dataset": image.dataset_id,
        "split": image.split,
        "path": image.path,
        "identity": image.identity,
        "camera": image.camera or None,
        "captured_at": rfc3339(image.captured_at) if image.captured_at else None,
        "frame": image.frame,
        "clothes": image.clothes,
        "width": image.width,
        "height": image.height,
        "sha256": image.sha256,
        "links": {"self": here, "content": f"{here}/content"},
    }
