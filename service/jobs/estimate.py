"""Estimates of what a job will cost, before it is started."""

from __future__ import annotations

from sqlalchemy.orm import Session

from reid_core.devices import resolve_device
from reid_core.training.estimate import measure_rate
from service.jobs.kinds.plan import Resolved
from service.jobs.planning import PLANS
from service.jobs.schemas import EstimateAnswer
from service.settings import Settings

_BASIS = "counted operations at an assumed share of this machine's measured matrix rate; a worker elsewhere may differ"


def estimate(session: Session, settings: Settings, job: Resolved) -> EstimateAnswer:
    """A rough cost of the job.

    Stages of a chain are added up, and so are the passes of a second model; the memory is that of the one that needs
    most. What networks do is all that counts: building an index counts as nothing.
    """
    plan = PLANS[job.kind]
    work = plan.workloads(session, job)
    costs = [load.count(load.batch) for load in work]
    device = resolve_device(plan.device or job.spec.get("device") or settings.device)
    rates = {backbone: measure_rate(device, backbone) for backbone in {load.backbone for load in work}}
    operations = [load.passes * load.images * cost.forward_operations for load, cost in zip(work, costs, strict=True)]
    seconds = sum(count / rates[load.backbone] for count, load in zip(operations, work, strict=True))
    return EstimateAnswer(
        memory_bytes=max((cost.memory_bytes for cost in costs), default=0),
        seconds=round(seconds, 1),
        operations=sum(operations),
        pictures=sum(load.images for load in work if load.is_first),
        basis=_BASIS,
    )
