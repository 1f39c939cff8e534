"""The training loop, whole: every method of `METHODS` is trained by `fit`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn, optim

from reid_core.backbones.weights import Transfer
from reid_core.data.loading import BatchLoader, TrainingImages, number_labels
from reid_core.data.preprocessing import Preprocessing, preprocessing_of
from reid_core.data.records import ImageRecord
from reid_core.devices import resolve_dtype
from reid_core.errors import DatasetError, OutOfMemory, Stopped, TrainingDiverged
from reid_core.matching import FoldedHead
from reid_core.methods.method import Losses, Method, Moment, Teacher
from reid_core.methods.teacher import check_teacher
from reid_core.model import TrainedModel
from reid_core.network import Batch, ReidNetwork
from reid_core.retrieval.encoder import Encoder, torch_encoder
from reid_core.sampling import Epoch, Graph
from reid_core.settings import TrainingSettings
from reid_core.training.checkpoint import History, Position, Run, load_checkpoint, save_checkpoint
from reid_core.training.progress import WHOLE, Progress, Span, Stopwatch
from reid_core.training.recognition import Sample, check_learning, draw_sample, measure_rank1
from reid_core.training.schedule import adapt, rate_factor, set_rates
from reid_core.training.selection import Kept, check_held_out, choose, keep
from reid_core.training.validation import HeldOut, hold_out, validate
from reid_core.training.warnings import TrainingWarning, check_length

CHECKPOINT_NAME = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a training.

    `initialise` fills the fresh network with given weights; None leaves it random. `teacher`, on the same device, is
    for a method that learns from a model; it stays as it is. `others` are images of people who are not trained on:
    where no training identities are held out, they show whether the network learns (`recognition`) and decide nothing.
    With `is_watched` False nobody does: identities that are guesses would say nothing.
    """

    method: Method
    settings: TrainingSettings
    images: Sequence[ImageRecord]
    seed: int
    device: torch.device
    initialise: Callable[[nn.Module], Transfer] | None = None
    teacher: TrainedModel | None = None
    others: Sequence[ImageRecord] = ()
    is_watched: bool = True


@dataclass(frozen=True, slots=True)
class Observer:
    """The callbacks of a run; every one may be left out.

    Attributes:
        on_transfer: what the network took from given weights, once, before the first step of a new run.
        on_resume: the step a checkpoint goes on from, with the curves until there.
        on_graph: the nearest classes that graph sampling found at the start of the epoch of that number (from 0), and
            the image that stood for each class.
        on_progress: after every step.
        on_warning: before the first step, where the run is short for its settings; after an epoch that was measured,
            where the network has learned nothing yet.
        should_stop: asked after every step; True saves a checkpoint and raises `Stopped`.
    """

    on_transfer: Callable[[Transfer], None] = lambda transfer: None
    on_resume: Callable[[int, History], None] = lambda step, history: None
    on_graph: Callable[[int, Graph, Sequence[ImageRecord]], None] = lambda epoch, graph, images: None
    on_progress: Callable[[Progress], None] = lambda progress: None
    on_warning: Callable[[TrainingWarning], None] = lambda warning: None
    should_stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True)
class Result:
    network: ReidNetwork
    num_classes: int
    preprocessing: Preprocessing
    history: History
    warnings: tuple[TrainingWarning, ...]
    kept: Kept


def fit(
    plan: Plan, folder: Path, observer: Observer | None = None, *, checkpoint_seconds: float = 20.0, span: Span = WHOLE
) -> Result:
    """Trains, from the checkpoint in `folder` if there is one; a resumed run ends as an unbroken one would.

    On a CPU in fp32, with as many threads, the same plan gives the same weights, bit for bit, however often it was
    interrupted.

    Raises:
        Stopped: `should_stop` said so.
        TrainingDiverged: a loss is not finite.
        OutOfMemory: the batch does not fit the device.
        SettingsError, DatasetError, WeightsError: the plan cannot be carried out.
    """
    observer, settings = observer or Observer(), plan.settings
    checkpoint = folder / CHECKPOINT_NAME
    check_teacher(plan.method, settings, plan.teacher.manifest.preprocessing if plan.teacher else None)
    images, held_out = hold_out(plan.images, settings.validation.fraction, plan.seed)
    check_held_out(settings.validation, held_out)
    if not images:
        raise DatasetError("There are no training images.", hint="Register a data set with a train split.")
    data = number_labels(images)
    preprocessing = preprocessing_of(settings)
    dtype = resolve_dtype(settings.precision, plan.device, settings.backbone, settings.image.width)
    run = _start(plan, data.num_classes, dtype, checkpoint, observer)
    encoder = torch_encoder(run.network, preprocessing, plan.device, dtype)
    loaders: list[BatchLoader] = []
    watch = Stopwatch(checkpoint_seconds, span)
    unseen = (*held_out.query, *held_out.gallery) if held_out else plan.others
    sample = draw_sample(images, unseen, plan.seed) if plan.is_watched else None
    warnings = check_length(plan.method, settings, data.num_classes, len(images))

    position = run.position
    if position.epochs > 0 and position.step == 0:
        for warning in warnings:
            observer.on_warning(warning)
        if sample:
            before = {sample.curve_before: measure_rank1(encoder, sample, _matching_head(plan, run))}
            _report_metrics(run, before, watch, observer)
    while position.epoch < position.epochs:
        if not position.streams:
            _begin_epoch(plan, run, data, encoder, observer)
        while len(loaders) < len(position.streams):
            loaders.append(BatchLoader(data, preprocessing, settings.augmentation, seed=plan.seed, device=plan.device))
        streams = [
            loader.load(batches, epoch=position.epoch, first_step=taken)
            for loader, batches, taken in zip(loaders, position.streams, position.taken, strict=True)
        ]
        _prepare_to_train(run.network, settings)
        while position.step_in_epoch < position.steps:
            stream = plan.method.choose_stream(run.criterion)
            batch = next(streams[stream])
            set_rates(run.optimizers, rate_factor(settings.schedule, position))
            losses = _train_step(run, batch, dtype, settings.gradient_clip)
            position.step += 1
            position.taken[stream] += 1
            values = _record(run, losses)
            observer.on_progress(watch.progress("train", position, len(batch.images), values))
            stop = observer.should_stop()
            if stop or watch.checkpoint_due():
                save_checkpoint(run, checkpoint)
            if stop:
                raise Stopped
        measured = _finish_epoch(plan, run, encoder, held_out, sample)
        _report_metrics(run, measured, watch, observer)
        choose(run, settings.validation, measured)
        for warning in check_learning(run.history, sample, settings) if _is_measured(plan, position) else ():
            observer.on_warning(warning)
        if position.epoch == position.epochs:
            save_checkpoint(run, checkpoint)
    kept = keep(run, settings.validation)
    run.network.reset_state()
    warnings += check_learning(run.history, sample, settings)
    return Result(run.network, data.num_classes, preprocessing, run.history, tuple(warnings), kept)


def _prepare_to_train(network: ReidNetwork, settings: TrainingSettings) -> None:
    network.train()
    if settings.freeze_backbone_bn:
        network.get_submodule("backbone").eval()


def _begin_epoch(plan: Plan, run: Run, data: TrainingImages, encoder: Encoder, observer: Observer) -> None:
    position = run.position
    run.network.reset_state()
    epoch = Epoch(
        number=position.epoch,
        identities=data.identities,
        generator=np.random.default_rng((plan.seed, position.epoch)),
        network=run.network,
        encode=lambda indices: encoder.encode_files([data.images[index].path for index in indices], with_maps=True),
    )
    draw = plan.method.draw_batches(plan.settings, epoch)
    if draw.graph is not None:
        observer.on_graph(position.epoch, draw.graph, [data.images[index] for index in draw.graph.images])
    position.begin_epoch(draw.streams)


def _finish_epoch(
    plan: Plan, run: Run, encoder: Encoder, held_out: HeldOut | None, sample: Sample | None
) -> dict[str, float]:
    """The epoch's mean loss, by which an adaptive schedule goes on, and accuracy after the epochs that measure it."""
    position = run.position
    losses = [loss for _, loss in run.history["loss"][-position.steps :]]
    values = {"epoch_loss": sum(losses) / len(losses)}
    before = [loss for _, loss in run.history.get("epoch_loss", [])]
    position.finish_epoch()
    adapt(plan.settings.schedule, position, [*before, values["epoch_loss"]])
    if _is_measured(plan, position):
        head = _matching_head(plan, run)
        values |= validate(encoder, held_out, head) if held_out else {}
        values |= {sample.curve: measure_rank1(encoder, sample, head)} if sample else {}
    return values


def _is_measured(plan: Plan, position: Position) -> bool:
    every = plan.settings.validation.every_epochs
    return position.epoch % every == 0 or position.epoch == position.epochs


def _matching_head(plan: Plan, run: Run) -> FoldedHead | None:
    return plan.method.matching_head(run.network) if plan.method.matching_head else None


def _report_metrics(run: Run, values: dict[str, float], watch: Stopwatch, observer: Observer) -> None:
    run.add_to_history(values)
    observer.on_progress(watch.progress("validate", run.position, 0, values))


def _train_step(run: Run, batch: Batch, dtype: torch.dtype, gradient_clip: float | None) -> Losses:
    device = batch.images.device
    moment = Moment(step=run.position.step, epoch=run.position.epoch)
    for optimizer in run.optimizers:
        optimizer.zero_grad(set_to_none=True)
    try:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            output = run.network(batch.images)
        losses: Losses = run.criterion(output, batch, moment)
        run.scaler.scale(torch.stack([*losses.terms.values()]).sum()).backward()
    except RuntimeError as error:
        raise _explain_memory(error, batch) from error
    # A loss that this step leaves out leaves its optimizer without a gradient, which the scaler does not expect.
    optimizers = [optimizer for optimizer in run.optimizers if _has_gradient(optimizer)]
    for optimizer in optimizers:
        run.scaler.unscale_(optimizer)
    if gradient_clip is not None:
        nn.utils.clip_grad_norm_(run.network.parameters(), gradient_clip)
    for optimizer in optimizers:
        run.scaler.step(optimizer)
    run.scaler.update()
    return losses


def _has_gradient(optimizer: optim.Optimizer) -> bool:
    return any(parameter.grad is not None for group in optimizer.param_groups for parameter in group["params"])


def _start(plan: Plan, num_classes: int, dtype: torch.dtype, checkpoint: Path, observer: Observer) -> Run:
    torch.manual_seed(plan.seed)
    network = plan.method.build_network(plan.settings, num_classes)
    teacher = Teacher(plan.teacher.network.eval(), dtype) if plan.teacher else None
    criterion = plan.method.build_criterion(plan.settings, num_classes, network, teacher)
    if plan.initialise and not checkpoint.exists():
        observer.on_transfer(plan.initialise(network))
    network.to(plan.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    criterion.to(plan.device)
    run = Run(
        network=network,
        criterion=criterion,
        optimizers=plan.method.build_optimizers(plan.settings, network, criterion),
        scaler=torch.amp.GradScaler(plan.device.type, enabled=dtype == torch.float16),
        position=Position(epochs=plan.settings.schedule.epochs),
    )
    if load_checkpoint(run, checkpoint):
        observer.on_resume(run.position.step, run.history)
    return run


def _record(run: Run, losses: Losses) -> dict[str, float]:
    """Reads the step's losses and measures, all at once: on a card the host waits once a step, when all is on its way.

    Raises:
        TrainingDiverged: a loss is not finite. No checkpoint is written after such a step.
    """
    values = losses.terms | losses.measures
    device = next(iter(losses.terms.values())).device
    read = torch.stack([value.detach().to(device, torch.float32) for value in values.values()]).tolist()
    numbers = dict(zip(values, read, strict=True))
    rate = run.optimizers[0].param_groups[0]["lr"]
    for name in losses.terms:
        if not math.isfinite(numbers[name]):
            raise TrainingDiverged(
                f"{name} is {numbers[name]} at step {run.position.step}, learning rate {rate:.3g}.",
                hint="Lower settings.schedule.base_lr, set settings.gradient_clip or use precision fp32.",
            )
    recorded = {"loss": sum(numbers[name] for name in losses.terms), **numbers, "learning_rate": rate}
    run.add_to_history(recorded)
    return recorded


def _explain_memory(error: RuntimeError, batch: Batch) -> Exception:
    if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
        return error
    count, height, width = len(batch.images), *batch.images.shape[2:]
    return OutOfMemory(
        f"{batch.images.device} has too little memory for {count} images of {height} x {width}.",
        hint=f"Try a batch of {count // 2} images: halve settings.batch.identities, or use smaller images.",
    )
