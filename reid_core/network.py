"""The contract that lets every part meet every paper: what a network is trained on and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """B pictures with their labels.

    Attributes:
        images: (B, 3, H, W) float, normalised as the model's preprocessing says.
        identities: (B,) int64 class codes, 0..num_classes-1.
        cameras: (B,) int64 codes; -1 where unknown.
    """

    images: Tensor
    identities: Tensor
    cameras: Tensor


@dataclass(frozen=True, slots=True)
class Output:
    """What a re-identification network says of a batch of B pictures.

    Attributes:
        embedding: (B, D) float, what search compares. Not normalised here; the encoder normalises to unit length.
        features: vectors that metric losses (triplet, center) take, each (B, d_i).
        logits: identity scores before softmax, each (B, C); empty where the network has no classifier.
        feature_map: (B, c, h, w) local features, or None where the method has none.
    """

    embedding: Tensor
    features: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    feature_map: Tensor | None = None
