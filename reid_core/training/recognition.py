"""Recognition of training identities: shows whether training teaches a network anything.

A network whose embeddings have all become alike has a loss that is finite and nearly still, as one that learns slowly
has. What tells them apart is whether images of one person are nearer to each other than before the first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reid_core.data.records import ImageRecord
from reid_core.retrieval.encoder import Encoder
from reid_core.settings import TrainingSettings
from reid_core.training.checkpoint import History

BEFORE, AFTER = "training_rank1_before", "training_rank1"
"""The curves' names: one point before the first step, and one after every epoch that is measured."""

_PEOPLE, _IMAGES_EACH = 32, 4


@dataclass(frozen=True, slots=True)
class LearnedNothing:
    """A training went on or ended without having learned: `code` for programs, `detail` and `hint` for people."""

    detail: str
    hint: str
    code: str = "learned-nothing"
    stage: int = 1  # of a chain


def draw_sample(images: Sequence[ImageRecord], seed: int) -> list[ImageRecord]:
    """Up to four images each of up to 32 people of whom there are at least two; none where there are no such people.

    The same images for the same seed.
    """
    of_person: dict[str, list[ImageRecord]] = {}
    for image in images:
        of_person.setdefault(image.identity, []).append(image)
    several = sorted(identity for identity, own in of_person.items() if len(own) > 1)
    generator = np.random.default_rng(seed)
    return [
        of_person[identity][index]
        for identity in generator.permutation(several)[:_PEOPLE]
        for index in generator.permutation(len(of_person[identity]))[:_IMAGES_EACH]
    ]


def measure_rank1(encoder: Encoder, sample: Sequence[ImageRecord]) -> float:
    """The share of the images, in [0, 1], whose nearest other embedding is of the same person."""
    embeddings = encoder.embed_files([image.path for image in sample])
    similarities = (embeddings @ embeddings.T).fill_diagonal_(-2)  # below every cosine
    nearest = similarities.argmax(dim=1).tolist()
    return float(np.mean([sample[index].identity == own.identity for own, index in zip(sample, nearest, strict=True)]))


def check_learning(history: History, settings: TrainingSettings) -> tuple[LearnedNothing, ...]:
    """A warning where the network knows its people no better than before training, and less than half the time.

    A network that started from a trained one may have nothing left to learn, so one that is mostly right is left alone.
    """
    before, after = history.get(BEFORE), history.get(AFTER)
    if not before or not after or after[-1][1] > before[0][1] or after[-1][1] >= 0.5:
        return ()
    step, now = after[-1]
    warning = LearnedNothing(
        f"After {step} steps {now:.1%} of a sample of training images have an image of the same person nearest; "
        f"before training it was {before[0][1]:.1%}.",
        f"Try a lower settings.schedule.base_lr (it is {settings.schedule.base_lr:g}) with a warm-up, more steps, or "
        "init_from.",
    )
    return (warning,)
