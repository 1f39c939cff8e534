"""Index jobs: images of a split added to a gallery, or a gallery encoded anew."""

from __future__ import annotations

from reid_core.devices import resolve_device
from reid_core.engines.serving import serve
from service.datasets.checking import check_files
from service.galleries.job import index_gallery
from worker.work import Outcome, Work


def run(work: Work) -> Outcome:
    """Builds a gallery's index: `{gallery}` rebuilds, `{gallery, add: {dataset, split}}` adds.

    `{gallery, embed: false}` builds nothing else.
    """
    spec, settings = work.job.spec, work.settings
    if added := spec.get("add"):
        check_files(
            work.database, work.settings, added["dataset"], (added["split"],), on_progress=work.progress("check")
        )
    device = resolve_device(settings.device)
    result = index_gallery(
        work.database,
        settings,
        spec["gallery"],
        add=spec.get("add"),
        embed=spec.get("embed", True),
        model_for=lambda model_id: serve(settings.models_dir / model_id, device, settings.engine),
        progress=work.progress,
        should_stop=work.should_stop,
    )
    return Outcome({"gallery": spec["gallery"], **result})
