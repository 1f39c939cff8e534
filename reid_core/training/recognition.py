"""Recognition of people, as a search would, before and while a network is trained: shows whether it learns anything.

A network whose embeddings have all become alike has a loss that is finite and nearly still, as one that learns slowly
has; one that learns its training images by heart has a falling one. What tells them from one that learns is whether
people whom it is not trained on are found better than before the first step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from reid_core.data.records import ImageRecord
from reid_core.matching import FoldedHead
from reid_core.retrieval.encoder import Encoder
from reid_core.settings import TrainingSettings
from reid_core.training.checkpoint import History
from reid_core.training.validation import HeldOut, validate
from reid_core.training.warnings import TrainingWarning

_PEOPLE, _IMAGES_EACH = 32, 4
_ENOUGH = 8
"""People of whom a share is worth telling."""

_GUESSES = 2
"""A network that finds people no more often than this many guesses has learned nothing, however bad it was before."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Images to be found among each other, and the name of their curve.

    The curve is `new_people_rank1` where nobody of them is trained on, else `training_rank1`; the point before the
    first step is on a curve of its own, with `_before` behind its name.
    """

    images: tuple[ImageRecord, ...]
    curve: str = "training_rank1"

    @property
    def curve_before(self) -> str:
        return f"{self.curve}_before"

    @property
    def chance(self) -> float:
        """The share of images that a guess would find."""
        right = Counter((image.identity, image.camera) for image in self.images)
        everyone = Counter(image.identity for image in self.images)
        shares = [
            (everyone[identity] - count) / (len(self.images) - count) * count / len(self.images)
            for (identity, _), count in right.items()
        ]
        return sum(shares)


def draw_sample(images: Sequence[ImageRecord], others: Sequence[ImageRecord], seed: int) -> Sample | None:
    """Up to four images each of up to 32 people: of `others`, who are not trained on, where they are enough.

    People are taken who were seen by two cameras or more, as the nearest of another camera are to be found; where these
    are too few, people of two images or more, whatever the camera. None where there are no such people, either. The
    same images for the same seed.
    """
    for pool, curve in ((others, "new_people_rank1"), (images, "training_rank1")):
        drawn = _draw(pool, seed)
        if len({image.identity for image in drawn}) >= _ENOUGH:
            return Sample(tuple(drawn), curve)
    # With a camera of its own every other image is another camera's.
    drawn = _draw([replace(image, camera=str(number)) for number, image in enumerate(images)], seed)
    return Sample(tuple(drawn)) if drawn else None


def _draw(images: Sequence[ImageRecord], seed: int) -> list[ImageRecord]:
    of_person: dict[str, list[ImageRecord]] = {}
    for image in images:
        of_person.setdefault(image.identity, []).append(image)
    several = sorted(identity for identity, own in of_person.items() if len({image.camera for image in own}) > 1)
    generator = np.random.default_rng(seed)
    return [
        image
        for identity in generator.permutation(several)[:_PEOPLE]
        for image in _take_in_turn(
            [of_person[identity][index] for index in generator.permutation(len(of_person[identity]))]
        )
    ]


def _take_in_turn(images: Sequence[ImageRecord]) -> list[ImageRecord]:
    """The first four images, cameras in turn."""
    seen: dict[str, int] = {}
    rounds = []
    for image in images:
        seen[image.camera] = seen.get(image.camera, 0) + 1
        rounds.append(seen[image.camera])
    return [images[place] for place in np.argsort(rounds, kind="stable")[:_IMAGES_EACH]]


def measure_rank1(encoder: Encoder, sample: Sample, head: FoldedHead | None = None) -> float:
    """The share of the images, in [0, 1], whose nearest of another camera is of the same person.

    By the matcher where its head is given, else by embeddings; other images of the same person by the same camera are
    left out.
    """
    return validate(encoder, HeldOut(sample.images, sample.images), head)["rank1"]


def check_learning(history: History, sample: Sample | None, settings: TrainingSettings) -> list[TrainingWarning]:
    """A warning where the sample is found no better than before training or by guessing; else none.

    A network that started from a trained one may have nothing left to learn, so one that is mostly right is left alone.
    """
    if sample is None:
        return []
    before, after = history.get(sample.curve_before), history.get(sample.curve)
    if not before or not after or after[-1][1] >= 0.5:
        return []
    step, now = after[-1]
    if now > max(before[0][1], _GUESSES * sample.chance):
        return []
    who = "images of people whom it is not trained on" if sample.curve == "new_people_rank1" else "training images"
    warning = TrainingWarning(
        "learned-nothing",
        f"After {step} steps {now:.1%} of a sample of {who} have one of the same person nearest; "
        f"before training it was {before[0][1]:.1%}, a guess finds {sample.chance:.1%}.",
        _advise(settings),
    )
    return [warning]


def _advise(settings: TrainingSettings) -> str:
    preset = 'settings.preset "small", ' if settings.preset == "paper" else ""
    rate = f"a lower settings.schedule.base_lr (it is {settings.schedule.base_lr:g}) with a warm-up"
    return f"Try {preset}{rate}, more steps, or init_from."
