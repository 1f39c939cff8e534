"""Measures how far probabilities, false-accept rates and the warning of a shift hold, on drawn and on real people.

    OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.calibration --real <folder> --weights <mobilenet_v2 file>

Drawn people: half of `--identities` to train on, three tenths of whom are held out for the calibration, the other half
to test on. Real people (a folder with train, query and gallery splits): the calibration is pooled over `--folds`
trainings, each without a part of the training people; the network that is tested is trained on all of them. All test
images are queries among those of other cameras. Errors of probabilities: of all pairs, both kinds weighing alike; and
of the best result of each query at the prior of a search, about half of the queries being of people not in the gallery.

Open set: a gallery of four fifths of the test people, drawn again and again; each image of the others is a stranger.
Shift: of the test images as they are, blurred (radius in pixels at a height of 128), and of other worlds, with the
expected calibration error beside it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from reid_core.calibration.curves import Curve, probability
from reid_core.calibration.folds import expected_calibration_error, fit_held_out, reliability
from reid_core.calibration.pairs import ScoredPairs, encode, pairs_across_cameras
from reid_core.calibration.shift import describe_origin, summarise_people
from reid_core.calibration.strangers import Strangers
from reid_core.data.contents import Contents
from reid_core.data.reader import read
from reid_core.data.records import ImageRecord
from reid_core.methods import METHODS
from reid_core.retrieval.encoder import Encoder, torch_encoder
from reid_core.sample_data import write_sample_data
from reid_core.training.initial import FROM_IMAGENET, from_file
from reid_core.training.loop import Plan, fit
from reid_core.training.validation import hold_out

CPU = torch.device("cpu")
HELD_OUT = 0.3
BLURS = (1, 2, 4)
RATES = (0.1, 0.01)
REPEATS = 60


class Embedded:
    """N images: vectors (N, D), and codes of their people and cameras (N,)."""

    def __init__(self, encoder: Encoder, images: Sequence[ImageRecord], blur: float = 0) -> None:
        batches = [images[start : start + 32] for start in range(0, len(images), 32)]
        parts = [encoder.embed([open_blurred(image.path, blur) for image in batch]) for batch in batches]
        self.vectors: NDArray[np.float32] = torch.cat(parts).numpy()
        self.labels = [image.identity for image in images], [image.camera for image in images]
        self.people, self.cameras = (encode(names) for names in self.labels)

    def pairs(self) -> ScoredPairs:
        """All pairs across cameras with their cosines."""
        return pairs_across_cameras((self.vectors @ self.vectors.T).astype(np.float64), *self.labels)


def main() -> None:
    options = parse_options()
    real = read(options.real)
    with tempfile.TemporaryDirectory() as folder:
        worlds = [draw_world(Path(folder) / str(seed), seed, options.identities) for seed in (0, 1)]
        train, (own, other) = worlds[0].images["train"], (tested(world) for world in worlds)
        encoder = train_network(train, options, fraction=HELD_OUT)
        held = hold_out(train, HELD_OUT, options.seed)[1]
        assert held is not None
        unseen = Embedded(encoder, (*held.query, *held.gallery))
        print_accuracy("drawn", [unseen], Embedded(encoder, own))
        print_shifts(encoder, unseen, own, {"another world": other, "real people": tested(real)})

        encoder, groups = cross_validate(real.images["train"], options)
        images = tested(real)
        print_accuracy("real", groups, Embedded(encoder, images))
        # Networks of different folds share no space, so half of the test people stand for the calibration's here.
        first, second = (half(images, number) for number in range(2))
        print_shifts(encoder, Embedded(encoder, first), second, {"drawn people": own})


def draw_world(folder: Path, seed: int, identities: int) -> Contents:
    write_sample_data(folder, identities=identities, cameras=4, pictures_per_camera=4, seed=seed)
    return read(folder)


def tested(contents: Contents) -> list[ImageRecord]:
    """The images of people who are queries, of both splits."""
    people = {image.identity for image in contents.images["query"]}
    gallery = [image for image in contents.images["gallery"] if image.identity in people]
    return [*contents.images["query"], *gallery]


def train_network(images: Sequence[ImageRecord], options: argparse.Namespace, *, fraction: float = 0.0) -> Encoder:
    method = METHODS["bnneck"]
    chosen: dict[str, Any] = {
        "preset": "small",
        "backbone": "mobilenet_v2",
        "image": {"height": 128, "width": 64},
        "schedule": {"epochs": options.epochs},
        "validation": {"fraction": fraction, "every_epochs": options.epochs},
    }
    settings = method.choose_settings(method.with_preset(chosen), FROM_IMAGENET)
    plan = Plan(method, settings, images, options.seed, CPU, from_file(options.weights))
    with tempfile.TemporaryDirectory() as folder:
        result = fit(plan, Path(folder))
    return torch_encoder(result.network, result.preprocessing, CPU, torch.float32)


def cross_validate(images: Sequence[ImageRecord], options: argparse.Namespace) -> tuple[Encoder, list[Embedded]]:
    """The network of all people, and people embedded by networks that were trained without them."""
    people = np.random.default_rng(options.seed).permutation(sorted({image.identity for image in images}))
    groups = []
    for fold in range(options.folds):
        left_out = set(people[fold :: options.folds].tolist())
        encoder = train_network([image for image in images if image.identity not in left_out], options)
        groups.append(Embedded(encoder, [image for image in images if image.identity in left_out]))
    return train_network(images, options), groups


def open_blurred(path: Path, blur: float) -> Image.Image:
    image = Image.open(path).convert("RGB")
    return image.filter(ImageFilter.GaussianBlur(blur * image.height / 128)) if blur else image


def half(images: Sequence[ImageRecord], number: int) -> list[ImageRecord]:
    """The images of every second person, from the first or from the second."""
    people = set(sorted({image.identity for image in images})[number::2])
    return [image for image in images if image.identity in people]


def print_accuracy(name: str, groups: Sequence[Embedded], test: Embedded) -> None:
    fitted = fit_held_out(pool([group.pairs() for group in groups]))
    losses = {kind: round(loss, 4) for kind, loss in fitted.log_loss.items()}
    error = fitted.expected_calibration_error
    print(f"\n{name}: {fitted.curve.kind}, held-out log loss {losses}, expected calibration error {error:.4f}")
    print(
        f"  test people, pairs: {pair_error(fitted.curve, test):.4f}; best results: {describe_best(fitted.curve, test)}"
    )
    for rate in RATES:
        rates = [accept_strangers(test, rate, seed) for seed in range(REPEATS)]
        print(f"  open set, asked {rate:g}: realised {np.mean(rates):.4f}, spread of one drawing {np.std(rates):.4f}")


def print_shifts(
    encoder: Encoder, unseen: Embedded, images: Sequence[ImageRecord], others: dict[str, list[ImageRecord]]
) -> None:
    """Shifts from people whom the network has not seen, and the errors of probabilities fitted on these."""
    origin, curve = describe_origin(unseen.vectors, unseen.people, unseen.cameras), fit_held_out(unseen.pairs()).curve
    shown = {"as they are": Embedded(encoder, images)}
    shown |= {f"blur {blur}": Embedded(encoder, images, blur) for blur in BLURS}
    shown |= {what: Embedded(encoder, those) for what, those in others.items()}
    limits = f"{origin.limit:.2f} {origin.likeness_limit or np.inf:.2f}"
    print(f"  shifts of embeddings and of likeness, above {limits} warned of | expected calibration error")
    for what, embedded in shown.items():
        summary = summarise_people(embedded.vectors, embedded.people, embedded.cameras)
        shifts = f"{origin.shift(summary):.2f} {origin.likeness_shift(summary):.2f}"
        told = "not warned" if origin.difference(summary) is None else "warned"
        print(f"    {what}: {shifts}, {told} | {pair_error(curve, embedded):.4f}", flush=True)


def pair_error(curve: Curve, test: Embedded) -> float:
    """The expected calibration error over all pairs across cameras, both kinds weighing alike."""
    pairs = test.pairs()
    return expected_calibration_error(reliability(probability(curve.evidence(pairs.scores)), pairs.same))


def describe_best(curve: Curve, test: Embedded) -> str:
    """The error of the best results' probabilities, and their bins."""
    scores, same = [], []
    cosines = test.vectors @ test.vectors.T
    people = np.unique(test.people)
    for seed in range(10):
        known = np.random.default_rng(seed).permutation(people)[: len(people) // 2]
        for query in range(len(test.people)):
            gallery = np.flatnonzero(np.isin(test.people, known) & (test.cameras != test.cameras[query]))
            best = gallery[cosines[query, gallery].argmax()]
            scores.append(cosines[query, best])
            same.append(test.people[best] == test.people[query])
    values = probability(curve.evidence(scores), 0.5 / (len(people) // 2))
    bins = reliability(values, np.array(same), balanced=False)
    told = ", ".join(f"{one.predicted:.2f} is {one.observed:.2f} ({one.share:.2f})" for one in bins)
    return f"{expected_calibration_error(bins):.4f}: {told}"


def accept_strangers(test: Embedded, rate: float, seed: int) -> float:
    """The share of strangers' images that reach the threshold of a gallery of four fifths of the people."""
    people = np.random.default_rng(seed).permutation(np.unique(test.people))
    inside = np.isin(test.people, people[: round(0.8 * len(people))])
    gallery, strangers = test.vectors[inside], test.vectors[~inside]
    codes = np.unique(test.people[inside], return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    gallery, codes = gallery[order], codes[order]
    best = np.maximum.reduceat(gallery @ gallery.T, np.flatnonzero(np.diff(codes, prepend=-1)), axis=1)
    best[np.arange(len(codes)), codes] = -np.inf
    number = int(codes.max()) + 1
    highest = np.sort(best.ravel())[-2 * len(codes) :].astype(np.float64)
    threshold = Strangers(highest, len(codes), number - 1, number).threshold(rate)
    return float(((strangers @ gallery.T).max(axis=1) >= threshold).mean())


def pool(parts: Sequence[ScoredPairs]) -> ScoredPairs:
    """Pairs of several groups of people, none of whom are in two."""
    firsts, seconds, start = [], [], 0
    for part in parts:
        firsts.append(part.first + start)
        seconds.append(part.second + start)
        start = int(max(firsts[-1].max(), seconds[-1].max())) + 1
    return ScoredPairs(np.concatenate([part.scores for part in parts]), np.concatenate(firsts), np.concatenate(seconds))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="folder with train, query and gallery splits")
    parser.add_argument("--weights", type=Path, required=True, help="safetensors file of a MobileNetV2")
    parser.add_argument("--identities", type=int, default=200, help="people of a drawn world, half of them to train on")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
