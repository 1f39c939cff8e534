"""Everything a run needs to go on as if it had never stopped, in one file written atomically."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn, optim

History = dict[str, list[tuple[int, float]]]
"""Curves: (step, value) pairs by name."""


@dataclass(slots=True)
class Position:
    """Where a run is: the epoch it is in, the batches of that epoch, and how many of them are done."""

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    batches: list[list[int]] = field(default_factory=list)

    def fraction(self, epochs: int) -> float:
        """How much of the run is done, 0 to 1."""
        return (self.epoch + self.step_in_epoch / max(1, len(self.batches))) / max(1, epochs)

    def finish_epoch(self) -> None:
        self.epoch, self.step_in_epoch, self.batches = self.epoch + 1, 0, []


@dataclass(frozen=True, slots=True)
class Run:
    """What changes while a network is trained."""

    network: nn.Module
    criterion: nn.Module
    optimizers: Sequence[optim.Optimizer]
    scaler: torch.amp.GradScaler
    position: Position = field(default_factory=Position)
    history: History = field(default_factory=dict)

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
        "position": [run.position.epoch, run.position.step_in_epoch, run.position.step, run.position.batches],
        "history": run.history,
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
    position = run.position
    position.epoch, position.step_in_epoch, position.step, position.batches = state["position"]
    run.history.clear()
    run.history.update(state["history"])
    return True
