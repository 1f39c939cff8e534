"""Training without labels: a trained network adapts to images of people whose identities nobody knows.

Fan et al. 2018, "Unsupervised Person Re-identification: Clustering and Fine-tuning" (PUL), arXiv:1705.10444: every
epoch embeds all images, groups them, takes the reliable groups for identities and trains on those as if they were
labelled. Departures: groups are density clusters of k-reciprocal neighbours (`reid_core.clustering`; PUL has k-means
with a given number of people), reliable where another threshold leaves them as they are (PUL: images near their centre)
and more than one camera sees them. As the clusters of an epoch are not those of the one before, whatever depends on the
number of identities is made anew, and with it the optimisers. The method's own sampler and losses do the rest; one that
changes with the epochs begins anew in each. An adaptive schedule keeps its first rate.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from reid_core.clustering import LEFT_ALONE, Clustering, Clusters, cluster_embeddings
from reid_core.data.loading import number_labels
from reid_core.data.preprocessing import preprocessing_of
from reid_core.data.records import ImageRecord
from reid_core.devices import resolve_dtype
from reid_core.errors import DatasetError, Stopped
from reid_core.methods.method import Method
from reid_core.network import ReidNetwork
from reid_core.retrieval.encoder import Encoder, torch_encoder
from reid_core.settings import Schedule, TrainingSettings, Validation
from reid_core.training.chain import join_curves, last_step
from reid_core.training.checkpoint import History, Position
from reid_core.training.initial import from_weights
from reid_core.training.loop import CHECKPOINT_NAME, Observer, Plan, Result, fit
from reid_core.training.progress import Progress, Span
from reid_core.training.schedule import rate_factor
from reid_core.training.validation import HeldOut, validate

_CLUSTERS, _CURVES = "clusters.json", "curves.json"


@dataclass(frozen=True, slots=True)
class Reliability:
    """The clusters that are taken for identities.

    Attributes:
        confidence: the least of a cluster, 0 to 1.
        cross_camera: only clusters that two cameras or more have seen; images of unknown cameras do not count.
    """

    confidence: float = 0.5
    cross_camera: bool = True


@dataclass(frozen=True, slots=True)
class Adaptation:
    """The plan of an adaptation.

    Attributes:
        settings: of the method; every epoch of its schedule begins with clusters, at the rate of the epoch's middle.
        images: to be trained on; their identities are not looked at.
        start: the trained network, on the device.
        labelled: people whose accuracy is measured before the first epoch and after epochs as `settings.validation`
            says; decides nothing. None measures nobody.
    """

    method: Method
    settings: TrainingSettings
    images: Sequence[ImageRecord]
    start: ReidNetwork
    seed: int
    device: torch.device
    clustering: Clustering = field(default_factory=Clustering)
    reliability: Reliability = field(default_factory=Reliability)
    labelled: HeldOut | None = None


OnClusters = Callable[[int, Clusters, Sequence[int]], None]
"""Gets the number of an epoch (from 0), its clusters, and those of them that are taken for identities."""


def adapt(
    plan: Adaptation,
    folder: Path,
    observer: Observer | None = None,
    on_clusters: OnClusters = lambda epoch, clusters, chosen: None,
    *,
    checkpoint_seconds: float = 20.0,
) -> Result:
    """Adapts the network, going on from what `folder` holds of an earlier run of the same plan.

    Every epoch has a folder in it with its clusters, and its checkpoint until that of the next epoch is whole. Curves
    are those of `fit`, `clusters` and `confident_images` as taken for identities, `rank1` and `mAP` of `labelled`.

    Raises:
        DatasetError: no cluster is reliable.
        SettingsError: fewer are than a batch needs.
        Stopped, TrainingDiverged, OutOfMemory: as `fit`.
    """
    observer, epochs = observer or Observer(), plan.settings.schedule.epochs
    network, curves, result = plan.start, History(), None
    for number in range(_find_epoch(folder, epochs), epochs):
        epoch = _Epoch(plan, number, folder / f"epoch-{number + 1:05d}", observer)
        epoch.folder.mkdir(parents=True, exist_ok=True)
        clusters = _find_clusters(epoch, network)
        chosen = choose_reliable(clusters, number_labels(plan.images).cameras, plan.reliability)
        if epoch.checkpoint.exists():
            curves = _read_curves(epoch)
        else:
            on_clusters(number, clusters, chosen)
            curves = _begin(epoch, network, clusters, chosen, curves)
        result = _fit(epoch, network, _label(epoch, clusters, chosen), curves, checkpoint_seconds)
        network, curves = result.network, join_curves(curves, result.history)
        if (number + 1) % plan.settings.validation.every_epochs == 0 or number + 1 == epochs:
            curves = _report(epoch, curves, _measure(plan, network), done=1)
        for before in folder.glob(f"*/{CHECKPOINT_NAME}"):
            if before != epoch.checkpoint:
                before.unlink()
    if result is None:
        raise ValueError("an adaptation needs at least one epoch")
    return replace(result, history=curves)


def choose_reliable(clusters: Clusters, cameras: NDArray[np.int64], reliability: Reliability) -> list[int]:
    """The clusters that are taken for identities; `cameras` are the images' codes (N,), -1 where unknown."""
    sure = [number for number, value in enumerate(clusters.confidence) if value >= reliability.confidence]
    if not reliability.cross_camera:
        return sure
    known = (cameras >= 0) & (clusters.labels != LEFT_ALONE)
    seen = np.unique(np.stack([clusters.labels, cameras])[:, known], axis=1)[0]
    num_cameras = np.bincount(seen, minlength=clusters.count)
    return [number for number in sure if num_cameras[number] > 1]


def names_of_identities(method: Method, settings: TrainingSettings) -> set[str]:
    """The tensors of the method's network that depend on the number of identities: its classifiers."""
    with torch.device("meta"):  # without memory
        fewer, more = (method.build_network(settings, count).state_dict() for count in (2, 3))
    return {name for name, tensor in fewer.items() if more[name].shape != tensor.shape}


@dataclass(frozen=True, slots=True)
class _Epoch:
    plan: Adaptation
    number: int
    folder: Path
    observer: Observer

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT_NAME

    @property
    def epochs(self) -> int:
        return self.plan.settings.schedule.epochs

    def span(self, curves: History) -> Span:
        return Span(self.number / self.epochs, (self.number + 1) / self.epochs, last_step(curves))


def _find_epoch(folder: Path, epochs: int) -> int:
    """The last epoch that has a checkpoint, the first where none has."""
    reached = [path.parent.name.removeprefix("epoch-") for path in folder.glob(f"epoch-*/{CHECKPOINT_NAME}")]
    return max((int(number) - 1 for number in reached), default=0)


def _find_clusters(epoch: _Epoch, network: ReidNetwork) -> Clusters:
    """The epoch's clusters: those of the run before, where it had come so far."""
    file = epoch.folder / _CLUSTERS
    if file.exists():
        kept = json.loads(file.read_bytes())
        return Clusters(np.array(kept["labels"], np.int64), np.array(kept["confidence"]))
    plan, observer = epoch.plan, epoch.observer

    def on_progress(done: int, total: int) -> None:
        fraction = epoch.number / epoch.epochs
        point = Progress("cluster", fraction, epoch.number + 1, epoch.epochs, done, total, 0, None, None, {})
        observer.on_progress(point)
        if observer.should_stop():
            raise Stopped

    paths = [image.path for image in plan.images]
    embeddings = _encoder(plan, network).embed_files(paths, on_progress=on_progress).numpy()
    cameras = number_labels(plan.images).cameras
    clusters = cluster_embeddings(embeddings, plan.clustering, cameras=cameras, should_stop=observer.should_stop)
    _write(file, {"labels": clusters.labels.tolist(), "confidence": clusters.confidence.tolist()})
    return clusters


def _begin(epoch: _Epoch, network: ReidNetwork, clusters: Clusters, chosen: Sequence[int], curves: History) -> History:
    """The curves with what is known before the epoch's first step, kept for a run that goes on from its checkpoint."""
    values: dict[str, float] = {
        "clusters": len(chosen),
        "confident_images": int(np.isin(clusters.labels, chosen).sum()),
    }
    if epoch.number == 0:
        values |= {f"{name}_before": value for name, value in _measure(epoch.plan, network).items()}
    curves = _report(epoch, curves, values)
    _write(epoch.folder / _CURVES, curves)
    return curves


def _label(epoch: _Epoch, clusters: Clusters, chosen: Sequence[int]) -> list[ImageRecord]:
    """The images of the chosen clusters, these as their identities."""
    if not chosen:
        raise DatasetError(
            f"Epoch {epoch.number + 1} has no reliable cluster; of {len(clusters.labels)} images "
            f"{int((clusters.labels != LEFT_ALONE).sum())} are in one of {clusters.count} clusters.",
            hint="Lower reliability.confidence, raise clustering.threshold, or start from a model of a nearer domain.",
        )
    identities = {number: f"{number:06d}" for number in chosen}
    return [
        replace(image, identity=identities[label])
        for image, label in zip(epoch.plan.images, clusters.labels.tolist(), strict=True)
        if label in identities
    ]


def _fit(
    epoch: _Epoch, network: ReidNetwork, images: Sequence[ImageRecord], curves: History, checkpoint_seconds: float
) -> Result:
    """One epoch of the method on images that are labelled by their clusters."""
    plan, settings = epoch.plan, _settings_of(epoch)
    # Not the classifiers: clusters have other numbers than those of the epoch before, even where they are as many.
    without = names_of_identities(plan.method, settings)
    trained = {name: value for name, value in network.state_dict().items() if name not in without}
    seed = (plan.seed + epoch.number) % 2**32
    stage = Plan(plan.method, settings, images, seed, plan.device, from_weights(trained), is_watched=False)
    observer = _observer_of(epoch, curves)
    return fit(stage, epoch.folder, observer, checkpoint_seconds=checkpoint_seconds, span=epoch.span(curves))


def _settings_of(epoch: _Epoch) -> TrainingSettings:
    """The settings of one epoch alone, at the rate that the schedule has in its middle."""
    whole = epoch.plan.settings.schedule
    rate = whole.base_lr * rate_factor(whole, Position(epochs=2 * whole.epochs, epoch=2 * epoch.number + 1))
    schedule = Schedule(epochs=1, base_lr=rate, warmup=0, warmup_start=1, decay_at=(), decay_factor=1)
    return epoch.plan.settings.model_copy(update={"schedule": schedule, "validation": Validation()})


def _observer_of(epoch: _Epoch, curves: History) -> Observer:
    """The observer of an epoch's own run, told of the whole adaptation."""
    observer, number = epoch.observer, epoch.number

    def on_resume(step: int, history: History) -> None:
        observer.on_resume(last_step(curves) + step, join_curves(curves, history))

    return replace(
        observer,
        on_resume=on_resume,
        on_graph=lambda _, graph, images: observer.on_graph(number, graph, images),
        on_progress=lambda progress: observer.on_progress(replace(progress, epoch=number + 1, epochs=epoch.epochs)),
        on_warning=lambda warning: None,  # that a run of one epoch is short
    )


def _encoder(plan: Adaptation, network: ReidNetwork) -> Encoder:
    settings = plan.settings
    dtype = resolve_dtype(settings.precision, plan.device, settings.backbone, settings.image.width)
    return torch_encoder(network, preprocessing_of(settings), plan.device, dtype)


def _measure(plan: Adaptation, network: ReidNetwork) -> dict[str, float]:
    """Accuracy on the labelled people, by the matcher where the method has one."""
    if plan.labelled is None:
        return {}
    head = plan.method.matching_head(network) if plan.method.matching_head else None
    return validate(_encoder(plan, network), plan.labelled, head)


def _report(epoch: _Epoch, curves: History, values: Mapping[str, float], *, done: int = 0) -> History:
    """The curves with the values at their last step; `done` is 1 at the end of the epoch."""
    step, number, epochs = last_step(curves), epoch.number + 1, epoch.epochs
    fraction = (epoch.number + done) / epochs
    epoch.observer.on_progress(Progress("validate", fraction, number, epochs, 0, 0, step, None, None, dict(values)))
    return {**curves, **{name: [*curves.get(name, []), (step, value)] for name, value in values.items()}}


def _read_curves(epoch: _Epoch) -> History:
    curves = json.loads((epoch.folder / _CURVES).read_bytes())
    return {name: [(step, value) for step, value in points] for name, points in curves.items()}


def _write(path: Path, content: object) -> None:
    """Writes the file whole or not at all."""
    temporary = path.with_suffix(".writing")
    with temporary.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
