"""A person in a pose as solid parts: limbs, garments, hair, bags. All in metres, in the axes of `skeleton`."""

from __future__ import annotations

from dataclasses import dataclass

from reid_core.sample_data.patterns import Cloth
from reid_core.sample_data.people import Person
from reid_core.sample_data.skeleton import Point, Pose, Skeleton, offset, place_joints


@dataclass(frozen=True, slots=True)
class Part:
    """A tapering rod with rounded ends.

    `radii` are half widths at `start` and `end`. `depth` is front-to-back size over width. `cap` is how far an end
    bulges, as a part of its radius: 1 is a half sphere. Patterns measure from `start`.
    """

    start: Point
    end: Point
    radii: tuple[float, float]
    cloth: Cloth
    depth: float = 1.0
    cap: float = 1.0


def dress(person: Person, pose: Pose) -> list[Part]:
    """Every part of the figure, in no particular order."""
    bones = place_joints(person.build, pose)
    return [
        *_legs(person, bones),
        *_trunk(person, bones),
        *_arms(person, bones),
        *_head(person, bones),
        *_hat(person, bones),
        *_BAGS[person.bag](person, bones),
    ]


def _legs(person: Person, bones: Skeleton) -> list[Part]:
    girth, skin = person.build.girth, Cloth(person.skin)
    loose = 1.15 if person.legwear == "trousers" else 1.0
    shin = person.bottom if person.legwear == "trousers" else skin
    parts = []
    for hip, knee, ankle, toe in zip(bones.hips, bones.knees, bones.ankles, bones.toes, strict=True):
        parts.append(Part(hip, knee, (0.092 * girth, 0.066 * girth * loose), person.bottom))
        parts.append(Part(knee, ankle, (0.058 * girth * loose, 0.042 * loose), shin))
        parts.append(Part(ankle - offset(up=0.02, forward=0.03), toe, (0.05, 0.042), Cloth(person.shoes)))
    if person.legwear == "skirt":
        parts.append(_skirt(person, bones))
    return parts


def _skirt(person: Person, bones: Skeleton) -> Part:
    hem = (bones.knees[0] + bones.knees[1]) / 2
    girth = person.build.girth
    spread = 0.5 * abs(float(bones.knees[0][2] - bones.knees[1][2]))
    return Part(bones.waist, hem, (0.15 * girth, 0.2 * girth + 0.3 * spread), person.bottom, depth=0.9, cap=0.15)


def _trunk(person: Person, bones: Skeleton) -> list[Part]:
    girth, lift = person.build.girth, 0.1 * (bones.chest - bones.waist)
    chest, waist = 0.185 * person.build.shoulders * girth**0.5, 0.15 * girth
    hem, flare = bones.waist, 1.08
    if person.hem == "coat":
        hem, flare = bones.waist - offset(up=0.27), 1.3
    return [
        Part(bones.waist + lift, bones.waist - lift, (waist, waist), person.bottom, depth=0.5, cap=0.5),
        Part(bones.chest, hem, (chest, waist * flare), person.top, depth=_front(person)[2] / chest, cap=0.3),
        Part(bones.shoulders[0], bones.shoulders[1], (0.062, 0.062), Cloth(person.top.colour)),
        Part(bones.head - offset(up=0.02, forward=0.02), bones.chest, (0.05, 0.06), Cloth(person.skin)),
    ]


def _front(person: Person) -> Point:
    """From the middle of the trunk to its front."""
    roomy = 0.155 if person.hem == "coat" else 0.126
    return offset(forward=roomy * person.build.girth**0.7)


def _arms(person: Person, bones: Skeleton) -> list[Part]:
    skin, thick = Cloth(person.skin), person.build.girth**0.5
    upper = skin if person.sleeves == "none" else person.sleeve_cloth
    lower = person.sleeve_cloth if person.sleeves == "long" else skin
    parts = []
    for shoulder, elbow, wrist in zip(bones.shoulders, bones.elbows, bones.wrists, strict=True):
        parts.append(Part(shoulder, elbow, (0.066 * thick, 0.05 * thick), upper))
        parts.append(Part(elbow, wrist, (0.047 * thick, 0.036 * thick), lower))
        parts.append(Part(wrist, wrist + 0.25 * (wrist - elbow), (0.036, 0.034), skin))
    return parts


def _head(person: Person, bones: Skeleton) -> list[Part]:
    crown, chin = bones.head + offset(up=0.045), bones.head - offset(up=0.035)
    pattern = "plain" if person.hair_style == "bald" else "hairline"
    hair = Cloth(person.hair)
    parts = [Part(crown, chin, (0.085, 0.07), Cloth(person.skin, person.hair, pattern), depth=1.2)]
    if person.hair_style == "long":
        nape = bones.head - offset(up=0.2, forward=0.07)
        parts.append(Part(crown - offset(forward=0.035), nape, (0.093, 0.085), hair, depth=0.8))
    if person.hair_style == "bun":
        knot = crown + offset(up=0.06, forward=-0.07)
        parts.append(Part(knot, knot, (0.055, 0.055), hair))
    return parts


def _hat(person: Person, bones: Skeleton) -> list[Part]:
    if person.hat == "none":
        return []
    felt = Cloth(person.hat_colour)
    crown, rim = bones.head + offset(up=0.075), bones.head + offset(up=0.05)
    parts = [Part(crown, rim, (0.095, 0.1), felt, depth=1.15, cap=0.7)]
    if person.hat == "cap":
        parts.append(Part(rim, rim + offset(up=-0.01, forward=0.14), (0.04, 0.035), felt, cap=0.5))
    if person.hat == "brimmed":
        parts.append(Part(rim, rim, (0.19, 0.19), felt, cap=0.22))
    return parts


def _backpack(person: Person, bones: Skeleton) -> list[Part]:
    bag, spine, front = Cloth(person.bag_colour), bones.chest - bones.waist, _front(person)
    behind = -front - offset(forward=0.07)
    pack = Part(bones.chest - 0.1 * spine + behind, bones.waist + 0.2 * spine + behind, (0.13, 0.16), bag, 0.65, 0.4)
    straps = []
    for shoulder in bones.shoulders:
        top = bones.chest + 0.6 * (shoulder - bones.chest) + offset(up=0.05, forward=0.03)
        straps.append(Part(top, top - 0.55 * spine + front, (0.03, 0.03), bag, depth=0.5))
    return [pack, *straps]


def _handbag(person: Person, bones: Skeleton) -> list[Part]:
    leather = Cloth(person.bag_colour)
    hand = bones.wrists[person.bag_side] - offset(up=0.05)
    top, bottom = hand - offset(up=0.1), hand - offset(up=0.27)
    return [
        Part(top, bottom, (0.09, 0.12), leather, depth=1.5, cap=0.25),
        Part(hand, top, (0.02, 0.03), leather),
    ]


def _satchel(person: Person, bones: Skeleton) -> list[Part]:
    leather, side = Cloth(person.bag_colour), person.bag_side
    out = offset(right=(2 * side - 1) * 0.17 * person.build.girth)
    hip, front = bones.waist + out, _front(person)
    far = bones.chest + 0.6 * (bones.shoulders[1 - side] - bones.chest)
    return [
        Part(hip + offset(up=0.05), hip - offset(up=0.15), (0.09, 0.1), leather, depth=1.6, cap=0.25),
        Part(far + 0.9 * front, hip + front, (0.028, 0.028), leather),
        Part(far - 0.9 * front, hip - front, (0.028, 0.028), leather),
    ]


_BAGS = {
    "none": lambda person, bones: [],
    "backpack": _backpack,
    "handbag": _handbag,
    "satchel": _satchel,
}
