"""Checkpoints: all that a run needs to go on as if it had never stopped, in one file written atomically."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn, optim

from reid_core.network import ReidNetwork
from reid_core.sampling import Batches

History = dict[str, list[tuple[int, float]]]
"""Curves: (step, value) pairs by name."""


@dataclass(slots=True)
class Position:
    """The position of a run.

    Attributes:
        epochs: how many the run has in all; an adaptive schedule lowers it.
        epoch: whole epochs done.
        step: steps done since the start of the run.
        streams: the batches of the epoch it is in, by stream; empty between epochs.
        taken: how many of each stream's batches are done.
        decayed: whether an adaptive schedule has lowered the learning rate.
        stopped_early: whether patience ended the run (`selection`).
    """

    epochs: int
    epoch: int = 0
    step: int = 0
    streams: list[Batches] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    decayed: bool = False
    stopped_early: bool = False

    @property
    def steps(self) -> int:
        """Steps of this epoch."""
        return len(self.streams[0]) if self.streams else 0

    @property
    def step_in_epoch(self) -> int:
        """Steps of this epoch that are done."""
        return sum(self.taken)

    @property
    def fraction(self) -> float:
        """The share of the run that is done, 0 to 1."""
        return (self.epoch + self.step_in_epoch / max(1, self.steps)) / max(1, self.epochs)

    def begin_epoch(self, streams: Sequence[Batches]) -> None:
        self.streams, self.taken = list(streams), [0] * len(streams)

    def finish_epoch(self) -> None:
        self.epoch, self.streams, self.taken = self.epoch + 1, [], []


@dataclass(slots=True)
class Best:
    """The epoch that found held-out people best; `weights` is empty where the last network is kept all the same.

    Attributes:
        epoch: the epoch after which it was measured, from 1.
        step: optimiser steps done by then.
        score: the mAP of held-out people, 0 to 1; -1 while none was measured.
        weights: the network's state by parameter name, on the CPU.
    """

    epoch: int = 0
    step: int = 0
    score: float = -1.0
    weights: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """The state of a training that changes from step to step."""

    network: ReidNetwork
    criterion: nn.Module
    optimizers: Sequence[optim.Optimizer]
    scaler: torch.amp.GradScaler
    position: Position
    history: History = field(default_factory=dict)
    best: Best = field(default_factory=Best)

    def add_to_history(self, values: dict[str, float]) -> None:
        """Adds a point to each named curve, at the present step."""
        for name, value in values.items():
            self.history.setdefault(name, []).append((self.position.step, value))


def save_checkpoint(run: Run, path: Path) -> None:
    """Writes the run's state; a crash leaves the old checkpoint or the new one, never a part."""
    state = {
        "network": run.network.state_dict(),
        "criterion": run.criterion.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
        "scaler": run.scaler.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "position": asdict(run.position),
        "history": run.history,
        "best": {name: getattr(run.best, name) for name in Best.__slots__},
    }
    temporary = path.with_suffix(".writing")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_checkpoint(run: Run, path: Path) -> bool:
    """Puts the state in `path` into the run; False if there is none."""
    if not path.exists():
        return False
    # Our own file, and tensors and plain values only: nothing in it is executed.
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    run.network.load_state_dict(state["network"])
    run.criterion.load_state_dict(state["criterion"])
    for optimizer, saved in zip(run.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    run.scaler.load_state_dict(state["scaler"])
    torch.set_rng_state(state["random"])
    if state["random_cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["random_cuda"])
    for part, name in ((run.position, "position"), (run.best, "best")):
        for field_name, value in state.get(name, {}).items():  # checkpoints from before have no best
            setattr(part, field_name, value)
    run.history.clear()
    run.history.update(state["history"])
    return True
