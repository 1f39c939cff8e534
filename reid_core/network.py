"""The contract that lets every part meet every paper: what a network is trained on and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Batch:
    """B images with their labels.

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
    """The answer of a re-identification network to a batch of B images.

    Attributes:
        embedding: (B, D) float, what search compares. Not normalised here; the encoder normalises to unit length.
        features: embeddings that metric losses (triplet, center) compare, each (B, d_i).
        logits: identity scores before softmax, each (B, C); empty where the network has no classifier.
        feature_map: (B, c, h, w) local features, or None where the method has none.
    """

    embedding: Tensor
    features: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    feature_map: Tensor | None = None


class ReidNetwork(nn.Module):
    """The base of every network that a method trains: images (B, 3, H, W) to an `Output`.

    The part that `init_from` fills is a module of the name `backbone`.

    Attributes:
        embedding_size: D, the length of the embedding.
        map_shape: (h, w, c) of the local features, for a method that matches by them; None for others.
    """

    embedding_size: int
    map_shape: tuple[int, int, int] | None = None

    if TYPE_CHECKING:  # a module of torch is called with anything and gives anything

        def __call__(self, images: Tensor) -> Output: ...

    def reset_state(self) -> None:
        """Forgets what the network carries from batch to batch, as every epoch begins and when the run is over."""
