"""QAConv from random weights, at the recipe's own rate, goes on learning until the end."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest
import torch

from reid_core.data.reader import read
from reid_core.methods import METHODS
from reid_core.sample_data import write_sample_data
from reid_core.training.loop import Plan, fit


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("name", "epochs"), [("qaconv-pk", 16), ("qaconv-gs", 5)])
def test_pairwise_learning_does_not_collapse(name: str, epochs: int, seed: int, tmp_path: Path) -> None:
    write_sample_data(tmp_path / "people", identities=120, cameras=2, seed=seed)
    method = METHODS[name]
    asked = {
        "backbone": "resnet18",
        "image": {"height": 128, "width": 64},
        "batch": {"identities": 8, "images_per_identity": 4},
        "schedule": {"epochs": epochs},
        "precision": "fp32",
    }
    settings = method.choose_settings(asked)
    assert settings.schedule.base_lr == method.recipe.schedule.base_lr
    images = read(tmp_path / "people").images["train"]
    result = fit(Plan(method, settings, images, seed, torch.device("cpu")), tmp_path)

    losses, accuracies = ([value for _, value in result.history[curve]] for curve in ("loss", "pair_accuracy"))
    tenth = len(losses) // 10
    (first, last), (found, finds) = ((mean(curve[:tenth]), mean(curve[-tenth:])) for curve in (losses, accuracies))
    ((_, before), (_, after)) = (result.history[name][-1] for name in ("training_rank1_before", "training_rank1"))
    print(f"{name} seed {seed}: {len(losses)} steps, loss {first:.2f} to {last:.2f}, ", end="")
    print(f"pair accuracy {found:.3f} to {finds:.3f}, rank-1 {before:.3f} to {after:.3f}")
    # Scores that say nothing of a pair cost the entropy of how often pairs match: 3 of an image's 31.
    assert last < 31 * entropy(3 / 31)
    assert after > 2 * before
    assert "learned-nothing" not in {warning.code for warning in result.warnings}


def entropy(share: float) -> float:
    """The binary entropy of a share, in nats."""
    both = torch.tensor([share, 1 - share])
    return float(torch.special.entr(both).sum())
