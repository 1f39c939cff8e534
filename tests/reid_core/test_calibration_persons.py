"""Persons' scores, trials and probabilities, against loops that follow their definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reid_core.calibration.curves import Curve, probability
from reid_core.calibration.folds import HeldOutFit
from reid_core.calibration.persons import person_trials, posterior
from reid_core.calibration.record import FILE_NAME, Calibration, read_calibrations, write_calibrations
from reid_core.calibration.shift import describe_origin
from reid_core.errors import CoreError


def test_a_trial_is_the_mean_over_other_cameras_images_of_a_person() -> None:
    generator = np.random.default_rng(0)
    identities = [f"p{number % 4}" for number in range(20)]
    cameras = [("1", "2", "")[number // 4 % 3] for number in range(20)]
    scores = generator.standard_normal((20, 20))
    trials = person_trials(scores, identities, cameras)
    expected = {}
    for query in range(20):
        for person in range(4):
            others = [
                scores[query, image]
                for image in range(20)
                if identities[image] == f"p{person}"
                and image != query
                and (cameras[image] != cameras[query] or cameras[image] == "")
            ]
            if others:
                expected[query, person] = np.mean(others)
    assert len(trials) == len(expected)
    np.testing.assert_allclose(np.sort(trials.scores), np.sort(list(expected.values())))
    same = [score for (query, person), score in expected.items() if query % 4 == person]
    np.testing.assert_allclose(np.sort(trials.scores[trials.same]), np.sort(same))


def test_a_person_whom_no_other_camera_has_seen_is_in_no_trial() -> None:
    trials = person_trials(np.ones((3, 3)), ["anna", "anna", "bert"], ["1", "1", "2"])
    assert trials.same.tolist() == [False, False, False]  # anna's two with bert, and bert's with anna


def test_probabilities_of_persons_follow_from_bayes_rule_over_all_hypotheses() -> None:
    evidence, people, present = np.array([5.0, 1.0, -2.0]), 10, 0.4
    ratios = np.exp(evidence) * present / people
    expected = ratios / (ratios.sum() + 1 - present)
    np.testing.assert_allclose(posterior(evidence, people, present), expected)
    assert posterior([1000.0, 1000.0], 2, 0.5) == pytest.approx([0.5, 0.5])
    assert posterior([], 5, 0.5).shape == (0,)
    alone = posterior([3.0], 1, 0.5)
    np.testing.assert_allclose(alone, probability([3.0], 0.5))


def test_the_curve_of_persons_comes_back_from_the_file_and_old_files_have_none(tmp_path: Path) -> None:
    folder = tmp_path
    origin = describe_origin(np.eye(8, dtype=np.float32), np.arange(8) // 2)
    fit = HeldOutFit(Curve("logistic", (-1.0, 1.0), (-5.0, 5.0)), {}, 0.0, ())
    persons = HeldOutFit(Curve("logistic", (0.0, 1.0), (-2.0, 2.0)), {}, 0.1, ())
    write_calibrations(folder / FILE_NAME, {"none": Calibration("none", fit, origin, {}, persons)})
    again = read_calibrations(folder)["none"]
    assert again.persons == persons
    assert again.person_evidence([0.5]).tolist() == [0.0]
    write_calibrations(folder / FILE_NAME, {"none": Calibration("none", fit, origin, {})})
    assert "persons" not in (folder / FILE_NAME).read_text()
    old = read_calibrations(folder)["none"]
    assert old.persons is None
    with pytest.raises(CoreError):
        old.person_evidence([0.5])
