"""Comparisons of two evaluations: against all permutations, and what they take for evidence."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from reid_core.evaluation.comparison import compare


def test_the_p_value_is_that_of_all_permutations() -> None:
    generator = np.random.default_rng(0)
    people = np.repeat(np.arange(9), 4)
    for shift in (0.0, 0.1, 0.3):
        a = generator.random(36)
        b = a + shift + generator.normal(0, 0.2, 36)
        sums = np.array([(b - a)[people == person].sum() for person in range(9)])
        permuted = [abs(np.dot(signs, sums)) for signs in itertools.product((-1, 1), repeat=9)]
        exact = np.mean(np.array(permuted) >= abs(sums.sum()) - 1e-12)
        found = compare(a, b, people)
        assert found.p_value == pytest.approx(exact, abs=0.02)
        assert found.different is (found.p_value < 0.05)
        assert found.difference == pytest.approx(found.b - found.a)
        assert found.interval[0] < found.difference < found.interval[1]


def test_equal_evaluations_do_not_differ() -> None:
    values = np.random.default_rng(0).random(20)
    same = compare(values, values, np.arange(20))
    assert (same.difference, same.interval, same.p_value, same.different) == (0, (0, 0), 1, False)


def test_images_of_one_person_are_no_independent_evidence() -> None:
    a = np.zeros(60)
    b = np.repeat([0.2, -0.1, 0.2], 20)
    assert compare(a, b, np.arange(60)).different
    assert not compare(a, b, np.repeat([0, 1, 2], 20)).different


def test_exchanging_the_two_turns_the_sign_alone() -> None:
    generator = np.random.default_rng(1)
    a, b, people = generator.random(50), generator.random(50), np.arange(50) // 2
    there, back = compare(a, b, people), compare(b, a, people)
    assert there.difference == pytest.approx(-back.difference)
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert there.p_value == back.p_value
