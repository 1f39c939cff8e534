"""Adds a method: the BNNeck baseline with the hardest pairs by cosine, and trains it beside the baseline.

    python examples/add_a_method.py path/to/dataset

A method of your own is a file in `reid_core/methods/`: docs/adding-a-method.md. This one lives in a script.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.functional import normalize

from reid_core.data.reader import read
from reid_core.losses.distance import euclidean
from reid_core.losses.identity import identity_loss
from reid_core.losses.triplet import batch_hard, triplet_loss
from reid_core.methods import find_method
from reid_core.methods.bnneck import BnneckCriterion
from reid_core.methods.method import Losses, Moment
from reid_core.network import Batch, Output
from reid_core.settings import override
from reid_core.training.loop import Plan, fit


class CosineCriterion(BnneckCriterion):
    """Identity loss and batch-hard triplet loss of unit vectors."""

    def forward(self, output: Output, batch: Batch, moment: Moment) -> Losses:
        distances = euclidean(normalize(output.features[0], dim=1))
        triplet = triplet_loss(distances, batch_hard(distances, batch.identities), margin=self.settings.margin)
        identity = identity_loss(output.logits[0], batch.identities, smoothing=self.settings.label_smoothing)
        return Losses({"identity_loss": identity, "triplet_loss": triplet})


baseline = find_method("bnneck")
cosine = replace(baseline, name="bnneck-cosine", title="BNNeck on the sphere", build_criterion=CosineCriterion)
images = read(Path(sys.argv[1])).images["train"]
small = {
    "backbone": "resnet18",
    "image": {"height": 128, "width": 64},
    "batch": {"identities": 8},
    "schedule": {"epochs": int(sys.argv[2]) if len(sys.argv) > 2 else 12, "base_lr": 1e-3},
}
for method in (baseline, cosine):
    plan = Plan(method, override(method.recipe, small), images, seed=0, device=torch.device("cpu"))
    with tempfile.TemporaryDirectory() as run:
        loss = fit(plan, Path(run)).history["loss"]
    print(f"{method.name}: loss {loss[0][1]:.3f} to {loss[-1][1]:.3f}")
