"""Measures embeddings of any model, ours or not: CMC, mAP, mINP and their 95 % intervals.

    python examples/evaluate_embeddings.py path/to/dataset

Here the embedding is a histogram of colours; put your own model in its place.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from reid_core.data.reader import read
from reid_core.data.records import ImageRecord
from reid_core.evaluation.labels import encode_labels
from reid_core.evaluation.ranking import evaluate


def embed(images: Sequence[ImageRecord]) -> Tensor:
    """Returns (N, D) float32 of unit length, one row for each image."""
    histograms = [
        np.concatenate([np.histogram(channel, bins=16, range=(0, 255))[0] for channel in pixels.reshape(-1, 3).T])
        for image in images
        for pixels in [np.asarray(Image.open(image.path).convert("RGB"))]
    ]
    return normalize(torch.tensor(np.array(histograms), dtype=torch.float32), dim=1)


splits = read(Path(sys.argv[1])).images
labels = encode_labels(splits["query"], splits["gallery"])
metrics = evaluate(embed(splits["query"]), embed(splits["gallery"]), *labels)
print(f"{metrics.valid_queries} queries: rank-1 {metrics.cmc[1]:.3f}, mAP {metrics.mAP:.3f}, mINP {metrics.mINP:.3f}")
print(f"95 % interval of mAP: {metrics.interval['mAP'][0]:.3f} to {metrics.interval['mAP'][1]:.3f}")
