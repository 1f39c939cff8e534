"""Student-teacher distillation (paper 003, section 4).

Yu et al. 2019, "Progressive Transfer Learning for Person Re-identification", IJCAI 2019.

A plain network, the student, is fine-tuned to say of every image what a trained model, its teacher, says:
loss = (1 - balance) cross entropy + balance L1 distance of the two features (eq. 4).
Every network of the paper's can be the student; its training is always section 5.2's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from reid_core.backbones import BackboneName
from reid_core.errors import Fault, SettingsError
from reid_core.losses.identity import identity_accuracy, identity_loss
from reid_core.methods.finetuning import FinetuneSettings, build_optimizers, draw_batches
from reid_core.methods.method import Losses, Method, Moment, Teacher
from reid_core.network import Batch, Output, ReidNetwork
from reid_core.networks.mgn import MgnNetwork
from reid_core.networks.progressive import PlainNetwork
from reid_core.settings import Fraction, TrainingSettings, override

StudentName = Literal["finetune-resnet50", "finetune-densenet161", "mgn"]

_BACKBONES: dict[StudentName, BackboneName] = {
    "finetune-resnet50": "resnet50",
    "finetune-densenet161": "densenet161",
    "mgn": "resnet50",
}
_WITHOUT_CELLS: dict[str, StudentName] = {
    "ptl-densenet161": "finetune-densenet161",
    "finetune-densenet161": "finetune-densenet161",
    "ptl-mgn": "mgn",
    "mgn": "mgn",
}
"""The student of a teacher trained by that method; `finetune-resnet50`, with the teacher's backbone, of any other."""


class StudentSettings(FinetuneSettings):
    """Section 5.2, for every student."""

    backbone: BackboneName = "resnet50"
    student: StudentName | None = Field(
        default=None,
        description="the plain method whose network is trained; null: the teacher's own network without cells. "
        "backbone and last_stride are then the teacher's too, image, normalisation and interpolation always",
    )
    balance: Fraction = Field(
        default=0.8, description="lambda in eq. 4: weight of the distillation term; cross entropy gets 1 - lambda"
    )


class DistillationCriterion(nn.Module):
    """Equation 4; L1 is the mean over a feature's numbers, cross entropy that over the student's classifiers.

    The paper does not say how features of two widths are compared. Here a learned linear map of the student's feature
    is; it is trained and resumed with the run and no part of the student.
    """

    def __init__(
        self, settings: StudentSettings, num_classes: int, network: ReidNetwork, teacher: Teacher | None = None
    ) -> None:
        super().__init__()
        if teacher is None:
            raise TypeError("distillation learns from a teacher")
        self.balance, self.teacher = settings.balance, teacher
        sizes = network.embedding_size, teacher.embedding_size
        self.projection = nn.Identity() if sizes[0] == sizes[1] else nn.Linear(*sizes, bias=False)

    def forward(self, output: Output, batch: Batch, moment: Moment) -> Losses:
        identity = torch.stack([identity_loss(logits, batch.identities) for logits in output.logits]).mean()
        distance = functional.l1_loss(self.projection(output.embedding.float()), self.teacher.embed(batch.images))
        terms = {"identity_loss": (1 - self.balance) * identity, "distillation_loss": self.balance * distance}
        return Losses(terms, {"identity_accuracy": identity_accuracy(output.logits[0], batch.identities)})


def build_student(settings: StudentSettings, num_classes: int) -> ReidNetwork:
    """The very network of the plain method; backbone and three-layer classifier where none is named."""
    if settings.student != "mgn":
        return PlainNetwork(settings.backbone, num_classes, last_stride=settings.last_stride)
    if settings.last_stride != 2:
        message = "the branches of mgn have strides of their own, and last_stride is 1"
        raise SettingsError(
            f"{message[0].upper()}{message[1:]}.",
            faults=[Fault("/last_stride", "not-for-mgn", message)],
            hint="Leave settings.last_stride out, or choose another student.",
        )
    return MgnNetwork(settings.backbone, num_classes)


def settle(asked: Mapping[str, Any], method: str, teacher: TrainingSettings) -> StudentSettings:
    """Completes the settings: images as the teacher sees them, and its own network where that is the student.

    A student that is named after another network has that one's own backbone.
    """
    own = getattr(teacher, "student", None) or _WITHOUT_CELLS.get(method, "finetune-resnet50")
    student = override(StudentSettings(), asked).student or own
    taken = {"image", "normalisation", "interpolation", "flip_average"} | (
        {"backbone", "last_stride"} if student == own else set()
    )
    recipe = {"backbone": _BACKBONES[student], **teacher.model_dump(mode="json", include=taken)}
    return override(override(StudentSettings(), recipe), {**asked, "student": student})


SMALL = {"batch": {"size": 16}, "schedule": {"shape": "cosine", "base_lr": 0.05, "warmup": 0.1}}
"""The preset for short runs: fine-tuning's, its rate divided by the share of the cross entropy in the loss."""

STD = Method(
    name="std",
    title="Student-teacher distillation",
    paper="Yu et al. 2019, Progressive Transfer Learning for Person Re-identification",
    summary="A plain network learns from labels and from what a trained model says of every image.",
    recipe=StudentSettings(),
    build_network=build_student,
    build_criterion=DistillationCriterion,
    build_optimizers=build_optimizers,
    draw_batches=draw_batches,
    settle=settle,
    small=SMALL,
)
