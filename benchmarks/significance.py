"""Are intervals as wide as they say, and does a comparison tell models apart that differ, and no others? Simulated.

    python -m benchmarks.significance --draws 1000 --pairs 100

Coverage: data sets are drawn from one population, in which people differ in how hard they are and each person's images
resemble each other; counted is in how many of them the 95 % interval holds the mean over all draws. Once average
precisions are drawn from a distribution whose mean is known, once people ask in one gallery of 2,000, and once gallery
and queries are drawn together, of which intervals over query identities know only the second.

Comparison: two trainings with two seeds see the same images; each embeds people and images with errors of its own, of
one size. A half-trained model's errors are larger (`--half`). Counted is how many pairs are called different.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from reid_core.evaluation.comparison import compare
from reid_core.evaluation.interval import bootstrap_interval
from reid_core.evaluation.labels import Labels
from reid_core.evaluation.metrics import Metrics
from reid_core.evaluation.ranking import evaluate

CAMERAS, SIZE = 4, 32
_EVERYBODY = 2000
OWN_ERROR, COMMON_ERROR = 0.6, 0.9
"""Of a training's embeddings: errors of its own, and those that the images cause in all trainings alike."""


@dataclass(frozen=True)
class Scene:
    """People on all cameras, one image by each asking; what the images look like."""

    people: Tensor  # (P, D)
    looks: Tensor  # (P, CAMERAS, D)

    def embed(self, error: float, generator: torch.Generator) -> Tensor:
        """One training's embeddings, (P, CAMERAS, D), with errors by people and by images of that size."""
        by_person = torch.randn(len(self.people), 1, SIZE, generator=generator)
        by_image = torch.randn(self.looks.shape, generator=generator)
        errors = error * (0.5 * by_person + by_image)
        return functional.normalize(self.people[:, None] + COMMON_ERROR * self.looks + errors, dim=2)


def draw_scene(people: int, generator: torch.Generator) -> Scene:
    """A scene whose people are more or less hard to tell from others."""
    hardness = 0.6 + 0.8 * torch.rand(people, 1, generator=generator)
    directions = torch.randn(people, SIZE, generator=generator) / hardness
    return Scene(directions, torch.randn(people, CAMERAS, SIZE, generator=generator))


def rank(embeddings: Tensor) -> Metrics:
    """Every image asks for its person among all."""
    identities = np.repeat(np.arange(len(embeddings)), CAMERAS)
    labels = Labels(identities, np.tile(np.arange(CAMERAS), len(embeddings)))
    flat = embeddings.flatten(0, 1)
    return evaluate(flat, flat, labels, labels)


def cover_ranked(draws: int, people: int, seed: int) -> dict[str, float]:
    """The share of draws, by measure, whose interval holds the mean of as many other draws."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [rank(draw_scene(people, generator).embed(OWN_ERROR, generator)) for _ in range(2 * draws)]
    values = {
        "mAP": [one.mAP for one in drawn],
        "mINP": [one.mINP for one in drawn],
        "rank1": [one.cmc[1] for one in drawn],
    }
    truth = {name: float(np.mean(found[:draws])) for name, found in values.items()}
    print(f"  true values {', '.join(f'{name} {value:.3f}' for name, value in truth.items())}")
    return {
        name: float(np.mean([one.interval[name][0] <= value <= one.interval[name][1] for one in drawn[draws:]]))
        for name, value in truth.items()
    }


def cover_asking(draws: int, people: int, seed: int) -> dict[str, float]:
    """The share of draws of people, by measure, whose interval holds the mean over all people of the gallery."""
    generator, random = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    found = rank(draw_scene(_EVERYBODY, generator).embed(OWN_ERROR, generator))
    values = np.stack([found.average_precision, found.first_rank == 1]).reshape(2, _EVERYBODY, CAMERAS)
    person, truth, held = np.repeat(np.arange(people), CAMERAS), values.mean(axis=(1, 2)), np.zeros(2)
    for _ in range(draws):
        chosen = values[:, random.integers(_EVERYBODY, size=people)].reshape(2, -1)
        low, high = bootstrap_interval(chosen, person, random).T
        held += (low <= truth) & (truth <= high)
    return dict(zip(("mAP", "rank1"), (held / draws).tolist(), strict=True))


def cover_drawn(draws: int, people: int, seed: int) -> float:
    """The same for average precisions of 1 to 8 queries a person, of mean 0.6 by construction."""
    generator = np.random.default_rng(seed)
    held = 0
    for _ in range(draws):
        person = np.repeat(np.arange(people), generator.integers(1, 9, people))
        values = generator.beta(8 * (mean := generator.beta(3, 2, people)[person]), 8 * (1 - mean))
        ((low, high),) = bootstrap_interval(values[None], person, generator)
        held += low <= 0.6 <= high
    return held / draws


def count_different(pairs: int, people: int, errors: tuple[float, float], seed: int) -> dict[str, int]:
    """Counts the pairs of trainings with errors of these sizes that are called different, by measure."""
    generator = torch.Generator().manual_seed(seed)
    counts, means = {"mAP": 0, "rank1": 0}, []
    for _ in range(pairs):
        scene = draw_scene(people, generator)
        a, b = (rank(scene.embed(error, generator)) for error in errors)
        means.append((a.mAP, b.mAP))
        identities = np.repeat(np.arange(people), CAMERAS)
        values: dict[str, list[NDArray[np.float64]]] = {
            "mAP": [a.average_precision, b.average_precision],
            "rank1": [(one.first_rank == 1).astype(np.float64) for one in (a, b)],
        }
        for name, (one, other) in values.items():
            counts[name] += compare(one, other, identities).different
    print(f"  mean mAP of a and b: {np.mean(means, axis=0).round(3).tolist()}")
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--half", type=float, default=1.0, help="size of a half-trained model's errors; 0.6 trained")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    print(f"{options.people} people, {options.draws} draws, {options.pairs} pairs, seed {options.seed}")
    print(f"coverage, drawn average precisions: {cover_drawn(options.draws, options.people, options.seed):.3f}")
    asking = cover_asking(options.draws, options.people, options.seed)
    print(f"coverage, people drawn to ask in one gallery: mAP {asking['mAP']:.3f}, rank-1 {asking['rank1']:.3f}")
    print("coverage, gallery and queries drawn together")
    for name, share in cover_ranked(options.draws, options.people, options.seed).items():
        print(f"  {name} {share:.3f}")
    for title, errors in (("two seeds", (OWN_ERROR, OWN_ERROR)), ("half-trained", (OWN_ERROR, options.half))):
        counts = count_different(options.pairs, options.people, errors, options.seed + 1)
        print(f"{title}: different by mAP {counts['mAP']}, by rank-1 {counts['rank1']} of {options.pairs}")


if __name__ == "__main__":
    main()
