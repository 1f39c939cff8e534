"""The clusters of every epoch of an adaptation: kept in the job's folder, and read from there."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reid_core.data.records import ImageRecord
from service.errors import Problem
from service.jobs.schemas import JobCluster, JobClustersAnswer
from service.storage import write_file

if TYPE_CHECKING:
    from reid_core.clustering import Clusters

_FOLDER = "clusters"


def write_clusters(
    job_folder: Path,
    epoch: int,
    clusters: Clusters,
    chosen: Sequence[int],
    ids: Sequence[str],
    images: Sequence[ImageRecord],
) -> None:
    """Keeps the clusters of the epoch of that number (from 0), `chosen` those taken for identities.

    Args:
        ids: of all images that were clustered, in the order of `images`.
    """
    members: list[list[int]] = [[] for _ in range(clusters.count)]
    for place, label in enumerate(clusters.labels.tolist()):
        if label >= 0:
            members[label].append(place)
    trained_on = set(chosen)
    described = [
        {
            "confidence": round(float(clusters.confidence[number]), 6),
            "trained_on": number in trained_on,
            "cameras": sorted({images[place].camera for place in places} - {""}),
            "images": [ids[place] for place in places],
        }
        for number, places in enumerate(members)
    ]
    content = {"epoch": epoch + 1, "images": len(ids), "clusters": described}
    folder = job_folder / _FOLDER
    folder.mkdir(exist_ok=True)
    write_file(folder / f"{epoch + 1:05d}.json", json.dumps(content).encode())


def read_clusters(
    job_folder: Path, epoch: int | None, *, start: int, limit: int, cursor_of: Callable[[int], str]
) -> JobClustersAnswer:
    """The clusters of that epoch (from 1; None: the last one) from number `start` on, at most `limit`.

    `cursor_of` gives the cursor of the page after the cluster of a number. Raises 404 where there are none.
    """
    epochs = sorted(int(path.stem) for path in (job_folder / _FOLDER).glob("[0-9]*.json"))
    if not epochs:
        raise Problem("not-found", "This job has no clusters.", hint="A job of kind adapt has some in every epoch.")
    chosen = epochs[-1] if epoch is None else epoch
    if chosen not in epochs:
        raise Problem("not-found", f"There are no clusters of epoch {chosen}.", hint=f"Epochs with some: {epochs}.")
    kept: dict[str, Any] = json.loads((job_folder / _FOLDER / f"{chosen:05d}.json").read_bytes())
    clusters, end = kept["clusters"], start + limit
    return JobClustersAnswer(
        epoch=kept["epoch"],
        epochs=epochs,
        images=kept["images"],
        left_alone=kept["images"] - sum(len(each["images"]) for each in clusters),
        clusters=[JobCluster(**each) for each in clusters[start:end]],
        next_cursor=cursor_of(end - 1) if end < len(clusters) else None,
    )
