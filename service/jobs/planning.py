"""Planning a job from its request. Builds networks, for which PyTorch is needed."""

from __future__ import annotations

from sqlalchemy.orm import Session

from service.jobs.body_schemas import JobBody
from service.jobs.kinds import adapt, calibrate, evaluate, export, index, search_batch, train
from service.jobs.kinds.plan import Plan, Resolved
from service.jobs.schemas import WarningAnswer
from service.settings import Settings

PLANS: dict[str, Plan] = {
    "train": train.PLAN,
    "adapt": adapt.PLAN,
    "evaluate": evaluate.PLAN,
    "calibrate": calibrate.PLAN,
    "index": index.PLAN,
    "export": export.PLAN,
    "search_batch": search_batch.PLAN,
}
"""The plan of each kind that POST /jobs takes."""


def resolve(session: Session, settings: Settings, body: JobBody) -> Resolved:
    """The spec of the job asked for; raises as `Plan.resolve` says."""
    return PLANS[body.kind].resolve(session, settings, body)


def warn(session: Session, job: Resolved) -> list[WarningAnswer]:
    """The warnings that can be given before the job starts."""
    return PLANS[job.kind].warn(session, job)
