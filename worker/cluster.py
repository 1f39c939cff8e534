"""Cluster jobs: a gallery's images without identity become proposed persons."""

from __future__ import annotations

from reid_core.clustering import Clustering
from service.galleries.clustering import cluster_gallery
from worker.work import Outcome, Work


def run(work: Work) -> Outcome:
    """Groups the images of `{gallery, clustering: {threshold, least}}`; the clusters take the place of those before."""
    spec = work.job.spec
    found = cluster_gallery(
        work.database,
        work.settings,
        spec["gallery"],
        Clustering(**spec["clustering"]),
        on_progress=work.progress("cluster"),
        should_stop=work.should_stop,
    )
    return Outcome({"gallery": spec["gallery"], **found})
