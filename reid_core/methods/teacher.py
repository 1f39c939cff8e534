"""The trained model that a method may learn from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reid_core.data.preprocessing import Preprocessing, preprocessing_of
from reid_core.errors import Fault, SettingsError
from reid_core.methods.method import Method
from reid_core.settings import TrainingSettings

_SEEN = ("height", "width", "mean", "std", "interpolation")
"""What of a preprocessing makes a network's input. The rest is about embeddings."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """A trained network in evaluation mode, which learning from it leaves as it is.

    Not a module: a criterion that holds one neither trains it, nor switches its mode, nor saves it with the run.
    """

    network: nn.Module
    dtype: torch.dtype

    @property
    def embedding_size(self) -> int:
        return int(self.network.embedding_size)  # type: ignore[arg-type]

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """(B, D) float32, not normalised, of pictures as in `Batch`; the forward pass runs in `dtype`."""
        with torch.autocast(images.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            embedding: Tensor = self.network(images).embedding
        return embedding.float()


def check_teacher(method: Method, settings: TrainingSettings, preprocessing: Preprocessing | None) -> None:
    """That there is a teacher where the method needs one, and only there, and that it sees what its student sees.

    `preprocessing` is the teacher's; None without one.

    Raises:
        SettingsError: it is not so.
    """
    if preprocessing is None:
        if method.settle is not None:
            message = f"method {method.name!r} learns from a teacher, and none is named"
            raise _problem("needs-teacher", message, "Name a trained model as teacher.")
        return
    if method.settle is None:
        raise _problem("no-teacher", f"method {method.name!r} learns from no teacher", "Leave teacher out.")
    own = preprocessing_of(settings)
    apart = [name for name in _SEEN if getattr(own, name) != getattr(preprocessing, name)]
    if apart:
        theirs, ours = (", ".join(f"{name} {getattr(each, name)}" for name in apart) for each in (preprocessing, own))
        message = f"the teacher sees pictures of {theirs}, its student would see them of {ours}"
        hint = "Leave image, normalisation and interpolation out of the settings: they are the teacher's then."
        raise _problem("other-pictures", message, hint)


def _problem(code: str, message: str, hint: str) -> SettingsError:
    return SettingsError(f"{message[0].upper()}{message[1:]}.", faults=[Fault("/teacher", code, message)], hint=hint)
