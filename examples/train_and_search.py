"""Trains a network and searches with it, by `reid_core` alone.

python examples/train_and_search.py path/to/dataset
"""

import sys
import tempfile
from pathlib import Path

import torch

from reid_core.data.preprocessing import preprocessing_of
from reid_core.data.reader import read
from reid_core.methods import find_method
from reid_core.retrieval.encoder import torch_encoder
from reid_core.settings import override
from reid_core.training.loop import Observer, Plan, fit

splits = read(Path(sys.argv[1])).images
method = find_method("bnneck")
small = {
    "backbone": "resnet18",
    "image": {"height": 128, "width": 64},
    "batch": {"identities": 8},
    "schedule": {"epochs": int(sys.argv[2]) if len(sys.argv) > 2 else 12, "base_lr": 1e-3},
}
plan = Plan(method, override(method.recipe, small), splits["train"], seed=0, device=torch.device("cpu"))
observer = Observer(on_progress=lambda progress: print(progress.step, progress.values, end="\r"))
with tempfile.TemporaryDirectory() as run:
    result = fit(plan, Path(run), observer)

encoder = torch_encoder(result.network, preprocessing_of(plan.settings), plan.device, torch.float32)
gallery = encoder.embed_files([image.path for image in splits["gallery"]])
(query,) = encoder.embed_files([splits["query"][0].path])
scores, order = (gallery @ query).topk(5)  # unit length: the product is the cosine
print(f"\nquery: identity {splits['query'][0].identity}")
for score, index in zip(scores.tolist(), order.tolist(), strict=True):
    print(f"{score:.3f}  identity {splits['gallery'][index].identity}  {splits['gallery'][index].path.name}")
