"""Identity loss: cross entropy over the training identities, with label smoothing (Szegedy et al. 2016)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def identity_loss(logits: Tensor, identities: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy of (B, C) logits against (B,) labels.

    The target gives 1 - smoothing + smoothing / C to the true identity and smoothing / C to each other.
    """
    return functional.cross_entropy(logits.float(), identities, label_smoothing=smoothing)


def identity_accuracy(logits: Tensor, identities: Tensor) -> Tensor:
    """The fraction of the batch whose largest logit is its own identity's, in [0, 1]."""
    return (logits.argmax(dim=1) == identities).float().mean()
