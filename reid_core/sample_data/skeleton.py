"""The joints of a walking person, in metres.

Axes of a person: x to the right of someone who looks at their front, y up from the ground, z forward.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from reid_core.sample_data.people import Build

Point = NDArray[np.float64]
"""(3,): x, y, z."""

Pair = NDArray[np.float64]
"""(2, 3): a joint on both sides, the side of smaller x first."""

SIDES = np.array([-1.0, 1.0])
ANKLE_HEIGHT = 0.06


@dataclass(frozen=True, slots=True)
class Pose:
    """A moment of a walk, in radians: `stride` is the swing of a leg at its widest, `phase` where in the step it is."""

    stride: float
    phase: float
    elbows: tuple[float, float]
    lean: float


@dataclass(frozen=True, slots=True)
class Skeleton:
    """Joints; `waist` is between the hips, `chest` between the shoulders."""

    waist: Point
    chest: Point
    head: Point
    hips: Pair
    knees: Pair
    ankles: Pair
    toes: Pair
    shoulders: Pair
    elbows: Pair
    wrists: Pair


def strike_pose(rng: Generator) -> Pose:
    """Mostly walking, now and then standing or with a raised forearm."""
    stride = 0.05 if rng.random() < 0.15 else float(rng.uniform(0.25, 0.5))
    left, right = (1.9 if rng.random() < 0.08 else float(rng.uniform(0.1, 0.7)) for _ in SIDES)
    return Pose(stride, float(rng.uniform(0, 2 * np.pi)), (left, right), float(rng.uniform(0.0, 0.1)))


def place_joints(build: Build, pose: Pose) -> Skeleton:
    """The skeleton of a body in a pose, its lower foot on the ground."""
    leg = build.legs * build.height
    waist = offset(up=leg)
    chest = waist + (0.815 * build.height - leg) * _hang(np.pi - pose.lean)
    head = chest + offset(up=0.115 * build.height, forward=0.02 + 0.1 * pose.lean)
    legs, arms = _swing_legs(build, pose, waist), _swing_arms(build, pose, chest)
    lowest = float(legs[2][:, 1].min())
    ground = offset(up=lowest - ANKLE_HEIGHT)
    return Skeleton(*(joint - ground for joint in (waist, chest, head, *legs, *arms)))


def offset(*, right: float = 0.0, up: float = 0.0, forward: float = 0.0) -> Point:
    """A step in metres along the person's axes; `right` is towards larger x."""
    return np.array([right, up, forward])


def _swing_legs(build: Build, pose: Pose, waist: Point) -> tuple[Pair, Pair, Pair, Pair]:
    """Hips, knees, ankles, toes. A leg bends at the knee while it comes forward."""
    half = 0.5 * (build.legs * build.height - ANKLE_HEIGHT)
    forward = -SIDES * pose.stride * np.sin(pose.phase)
    coming = np.maximum(0.0, -SIDES * pose.stride * np.cos(pose.phase))
    bend = 0.06 + 1.3 * coming
    hips = waist + np.outer(SIDES, offset(right=0.085 * build.girth))
    knees = hips + half * _hang(forward)
    ankles = knees + half * _hang(forward - bend)
    toes = ankles + offset(up=-0.03, forward=0.17) + np.outer(SIDES, offset(right=0.03))
    return hips, knees, ankles, toes - np.outer(coming, offset(up=0.08))


def _swing_arms(build: Build, pose: Pose, chest: Point) -> tuple[Pair, Pair, Pair]:
    """Shoulders, elbows, wrists. An arm swings against the leg of its side."""
    forward = 0.9 * SIDES * pose.stride * np.sin(pose.phase)
    across = np.outer(SIDES, offset(right=1.0))
    shoulders = chest + 0.172 * build.shoulders * build.girth**0.5 * across - offset(up=0.03)
    elbows = shoulders + 0.165 * build.height * (_hang(forward) + 0.16 * across)
    wrists = elbows + 0.15 * build.height * (_hang(forward + np.array(pose.elbows)) + 0.06 * across)
    return shoulders, elbows, wrists


def _hang(angles: ArrayLike) -> NDArray[np.float64]:
    """(..., 3): unit vectors that hang down, turned forward by `angles` (...,)."""
    return np.stack([np.zeros_like(angles), -np.cos(angles), np.sin(angles)], axis=-1)
