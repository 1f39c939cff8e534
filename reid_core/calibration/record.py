"""A model's calibrations, one for each way of re-ranking, and the file in its folder that keeps them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from reid_core.calibration.curves import Floats, logit
from reid_core.calibration.folds import HeldOutFit, fit_held_out, require_people
from reid_core.calibration.pairs import encode, encode_cameras, pairs_across_cameras
from reid_core.calibration.persons import person_trials
from reid_core.calibration.shift import Origin, describe_origin
from reid_core.data.records import ImageRecord
from reid_core.errors import CoreError, WeightsError

if TYPE_CHECKING:  # brings PyTorch
    from reid_core.calibration.scoring import Scored

FILE_NAME = "calibration.json"
MOST_IMAGES = 2000
"""Images that a calibration is fitted on at most: four million pairs. Of more, people are drawn until they fill it."""

_VERSION = 1
_SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The meaning of a model's scores, for one way of re-ranking.

    Attributes:
        fit: the curve, and how well it holds for people who were held out; of `qaconv` by the matcher's score before it
            is made a probability.
        origin: the embeddings of the images that it was fitted on.
        persons: the like of scores of persons, of searches without re-ranking; None of an earlier version.
        fitted_on: identities, cameras, images and pairs, and whatever else the caller says of them.
    """

    rerank: str
    fit: HeldOutFit
    origin: Origin
    fitted_on: Mapping[str, Any]
    persons: HeldOutFit | None = None

    def evidence(self, scores: ArrayLike) -> Floats:
        """The log-likelihood ratios of scores as searches answer them."""
        return self.fit.curve.evidence(logit(scores) if self.rerank == "qaconv" else scores)

    def person_evidence(self, scores: ArrayLike) -> Floats:
        """The log-likelihood ratios of persons' scores; raises CoreError where `persons` is None."""
        if self.persons is None:
            raise CoreError("The calibration tells nothing of persons.", hint="Start a calibrate job.")
        return self.persons.curve.evidence(scores)

    def as_json(self) -> dict[str, Any]:
        """The calibration as plain values."""
        persons = {} if self.persons is None else {"persons": self.persons.as_json()}
        told = {"origin": self.origin.as_json(), "fitted_on": dict(self.fitted_on)}
        return {**self.fit.as_json(), **told, **persons}

    @classmethod
    def from_json(cls, rerank: str, value: dict[str, Any]) -> Calibration:
        """The calibration that `as_json` gave; raises KeyError or TypeError where a part is missing."""
        persons = HeldOutFit.from_json(value["persons"]) if "persons" in value else None
        origin = Origin.from_json(value["origin"])
        return cls(rerank, HeldOutFit.from_json(value), origin, value["fitted_on"], persons)


def choose_images(images: Sequence[ImageRecord]) -> list[ImageRecord]:
    """The images to fit a calibration on: all, or all of each of some people, drawn so that `MOST_IMAGES` hold them."""
    of_person: dict[str, list[ImageRecord]] = {}
    for image in images:
        of_person.setdefault(image.identity, []).append(image)
    names = sorted(of_person)
    chosen: list[ImageRecord] = []
    for place in np.random.default_rng(_SEED).permutation(len(names)).tolist():
        if len(chosen) + len(of_person[names[place]]) <= MOST_IMAGES:
            chosen += of_person[names[place]]
    return chosen


def calibrate(
    images: Sequence[ImageRecord], score: Callable[[list[Path]], Scored], rerank: str, described: Mapping[str, Any]
) -> Calibration:
    """Fits a calibration to `images` of people whom the model was not trained on.

    Args:
        score: the files' embeddings and scores among each other, as `score_files` makes them.
        described: what else `fitted_on` says.

    Raises:
        DatasetError: too few people are seen by more than one camera.
    """
    chosen = choose_images(images)
    identities, cameras = [image.identity for image in chosen], [image.camera for image in chosen]
    require_people(pairs_across_cameras(np.zeros((len(chosen), len(chosen))), identities, cameras))
    scored = score([image.path for image in chosen])
    pairs = pairs_across_cameras(scored.scores, identities, cameras)
    counts = {
        "identities": len(set(identities)),
        "cameras": len(set(cameras)),
        "images": len(chosen),
        "same_pairs": int(pairs.same.sum()),
        "different_pairs": int((~pairs.same).sum()),
    }
    origin = describe_origin(scored.embeddings, encode(identities), encode_cameras(cameras))
    persons = fit_held_out(person_trials(scored.scores, identities, cameras)) if rerank == "none" else None
    return Calibration(rerank, fit_held_out(pairs), origin, {**described, **counts}, persons)


def read_calibrations(folder: Path) -> dict[str, Calibration]:
    """The calibrations kept in a model's folder, by their way of re-ranking; none where there is no file.

    Raises:
        WeightsError: the file is damaged.
    """
    try:
        kept = json.loads((folder / FILE_NAME).read_text())["calibrations"]
        return {rerank: Calibration.from_json(rerank, value) for rerank, value in kept.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "Restore the file, or start a calibrate job."
        raise WeightsError(f"The model's {FILE_NAME} cannot be read: {error}.", hint=hint) from error


def write_calibrations(file: Path, calibrations: Mapping[str, Calibration]) -> None:
    """Writes calibrations to a new file."""
    kept = {rerank: calibration.as_json() for rerank, calibration in sorted(calibrations.items())}
    file.write_text(json.dumps({"version": _VERSION, "calibrations": kept}))
