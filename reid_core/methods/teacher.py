"""The check of the trained model that a method learns from."""

from __future__ import annotations

from reid_core.data.preprocessing import Preprocessing, preprocessing_of
from reid_core.errors import Fault, SettingsError
from reid_core.methods.method import Method
from reid_core.settings import TrainingSettings

_SEEN = ("height", "width", "mean", "std", "interpolation", "colour", "range")
"""The settings of a preprocessing that make a network's input. The rest is about embeddings."""


def check_teacher(method: Method, settings: TrainingSettings, preprocessing: Preprocessing | None) -> None:
    """Checks that there is a teacher where the method needs one, and only there, and that both see the same images.

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
    student = preprocessing_of(settings)
    differing = [name for name in _SEEN if getattr(student, name) != getattr(preprocessing, name)]
    if differing:
        theirs, ours = (
            ", ".join(f"{name} {getattr(seen, name)}" for name in differing) for seen in (preprocessing, student)
        )
        message = f"the teacher sees images of {theirs}, its student would see them of {ours}"
        hint = (
            "Leave image, normalisation and interpolation out of the settings: they are the teacher's then. "
            "An imported network of other colours or another normalisation cannot teach."
        )
        raise _problem("other-pictures", message, hint)


def _problem(code: str, message: str, hint: str) -> SettingsError:
    return SettingsError(f"{message[0].upper()}{message[1:]}.", faults=[Fault("/teacher", code, message)], hint=hint)
