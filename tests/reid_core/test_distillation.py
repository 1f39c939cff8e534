"""Student-teacher distillation: its loss, what becomes of its teacher, and who the student is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reid_core.data.preprocessing import preprocessing_of
from reid_core.errors import SettingsError
from reid_core.methods import METHODS
from reid_core.methods.distillation import DistillationCriterion, StudentSettings, settle
from reid_core.methods.method import Moment, Teacher
from reid_core.model import Manifest, TrainedModel
from reid_core.network import Batch, Output
from reid_core.settings import override
from reid_core.training.loop import CHECKPOINT_NAME, Plan, fit
from tests.reid_core.images import make_images

CPU = torch.device("cpu")
STD = METHODS["std"]
SMALL: dict[str, Any] = {
    "backbone": "resnet18",
    "image": {"height": 32, "width": 16},
    "batch": {"size": 12},
    "schedule": {"epochs": 4},
    "precision": "fp32",
}


class Embedder(nn.Module):
    """A network whose embedding of an image is a linear map of its mean colour."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.embedding_size = size
        self.layer = nn.Linear(3, size)
        nn.init.normal_(self.layer.weight, generator=torch.Generator().manual_seed(size))

    def forward(self, images: Tensor) -> Output:
        return Output(self.layer(images.mean(dim=(2, 3))))


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_teacher(name: str = "ptl-resnet50", **changes: Any) -> TrainedModel:
    settings = override(METHODS[name].recipe, {**SMALL, **changes})
    torch.manual_seed(1)
    network = METHODS[name].build_network(settings, 4)
    size, preprocessing = int(network.embedding_size), preprocessing_of(settings)
    manifest = Manifest(name, settings.model_dump(mode="json"), 4, size, None, preprocessing, "")
    return TrainedModel(manifest, settings, network.eval(), CPU)


def make_plan(folder: Path, **changes: Any) -> Plan:
    plan = Plan(STD, override(STD.recipe, SMALL), make_images(folder), seed=0, device=CPU, teacher=make_teacher())
    return replace(plan, **changes)


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("balance", [0.0, 0.8, 1.0])
@pytest.mark.parametrize("num_classifiers", [1, 3])
def test_the_loss_is_equation_4(balance: float, num_classifiers: int) -> None:
    student, teacher = Embedder(5), Embedder(5)
    nn.init.constant_(teacher.layer.bias, 0.3)
    images, identities = random(4, 3, 6, 2, seed=0), torch.tensor([0, 2, 1, 0])
    logits = [random(4, 3, seed=seed) for seed in range(1, 1 + num_classifiers)]
    embedding, wanted = student(images).embedding.detach(), teacher(images).embedding.detach()
    criterion = DistillationCriterion(StudentSettings(balance=balance), 3, student, Teacher(teacher, torch.float32))

    losses = criterion(Output(embedding, logits=logits), Batch(images, identities, identities), Moment(0, 0))

    chances = [float(each.exp()[n, k] / each.exp()[n].sum()) for each in logits for n, k in enumerate(identities)]
    apart = [abs(float(embedding[n, d] - wanted[n, d])) for n in range(4) for d in range(5)]
    cross_entropy, distance = -np.log(chances).mean(), np.mean(apart)
    assert float(losses.terms["identity_loss"]) == pytest.approx((1 - balance) * cross_entropy, abs=1e-6)
    assert float(losses.terms["distillation_loss"]) == pytest.approx(balance * distance, abs=1e-6)
    assert set(losses.terms) == {"identity_loss", "distillation_loss"}
    assert [*criterion.parameters()] == []


def test_features_of_two_widths_are_compared_through_a_learned_map() -> None:
    student, teacher = Embedder(7), Embedder(5)
    images, identities = random(4, 3, 6, 2, seed=0), torch.tensor([0, 2, 1, 0])
    settings = StudentSettings()
    criterion = DistillationCriterion(settings, 3, student, Teacher(teacher, torch.float32))
    embedding, wanted = student(images).embedding, teacher(images).embedding
    batch = Batch(images, identities, identities)

    loss = criterion(Output(embedding, logits=[random(4, 3, seed=1)]), batch, Moment(0, 0)).terms["distillation_loss"]

    (weight,) = criterion.parameters()
    torch.testing.assert_close(loss, 0.8 * (embedding @ weight.T - wanted).abs().mean())
    (optimizer,) = STD.build_optimizers(settings, student, criterion)
    assert any(weight is learned for learned in optimizer.param_groups[0]["params"])


def test_a_teacher_speaks_in_the_precision_of_the_run() -> None:
    network, images = Embedder(5), random(4, 3, 6, 2, seed=0)
    said = Teacher(network, torch.bfloat16).embed(images)
    assert said.dtype == torch.float32
    assert torch.equal(said, said.bfloat16().float())
    torch.testing.assert_close(said, network(images).embedding.detach(), atol=0.02, rtol=0.02)
    assert torch.equal(Teacher(network, torch.float32).embed(images), network(images).embedding)


@pytest.mark.parametrize("name", ["ptl-resnet50", "finetune-resnet50"])
def test_training_leaves_the_teacher_as_it_is_and_saves_nothing_of_it(name: str, tmp_path: Path) -> None:
    # A projection is needed: the student's feature has 1280 numbers.
    teacher = make_teacher(name)
    teacher.network.train()
    before = state_of(teacher.network)
    settings = override(STD.recipe, {**SMALL, "backbone": "mobilenet_v2"})

    result = fit(make_plan(tmp_path / "pictures", teacher=teacher, settings=settings), tmp_path)

    assert not teacher.network.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in teacher.network.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.network.parameters())
    saved = torch.load(tmp_path / CHECKPOINT_NAME, weights_only=True)
    assert set(saved["criterion"]) == {"projection.weight"}
    assert saved["network"].keys() == result.network.state_dict().keys()


def test_a_student_comes_to_say_what_its_teacher_says() -> None:
    teacher = make_teacher()
    settings = override(STD.recipe, {**SMALL, "balance": 1.0, "schedule": {"base_lr": 0.1}})
    torch.manual_seed(2)
    student = STD.build_network(settings, 4)
    criterion = STD.build_criterion(settings, 4, student, Teacher(teacher.network, torch.float32))
    (optimizer,) = STD.build_optimizers(settings, student, criterion)
    batch = Batch(random(12, 3, 32, 16, seed=0), torch.arange(12) % 4, torch.zeros(12, dtype=torch.long))
    apart = list[float]()
    for step in range(40):
        loss = criterion(student(batch.images), batch, Moment(0, step)).terms["distillation_loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        apart.append(loss.item())
    assert apart[-1] < 0.5 * apart[0]


@pytest.mark.parametrize(
    ("student", "overrides"),
    [
        ("finetune-resnet50", {}),
        ("finetune-densenet161", {"backbone": "densenet161"}),
        ("finetune-resnet50", {"backbone": "mobilenet_v2", "last_stride": 1}),
        ("mgn", {}),
    ],
)
def test_the_student_is_the_plain_methods_network(student: str, overrides: dict[str, Any]) -> None:
    with torch.device("meta"):
        made = STD.build_network(override(STD.recipe, {"student": student, **overrides}), 751)
        plain = METHODS[student].build_network(override(METHODS[student].recipe, overrides), 751)
    assert {name: tensor.shape for name, tensor in made.state_dict().items()} == {
        name: tensor.shape for name, tensor in plain.state_dict().items()
    }
    assert type(made) is type(plain)


@pytest.mark.parametrize(
    ("teacher", "asked", "student", "backbone", "last_stride"),
    [
        ("ptl-resnet50", {}, "finetune-resnet50", "resnet18", 1),
        ("ptl-densenet161", {}, "finetune-densenet161", "resnet18", 1),
        ("ptl-densenet161", {"student": None}, "finetune-densenet161", "resnet18", 1),
        ("ptl-resnet50", {"student": "finetune-resnet50"}, "finetune-resnet50", "resnet18", 1),
        ("ptl-resnet50", {"backbone": "resnet34", "last_stride": 2}, "finetune-resnet50", "resnet34", 2),
        ("ptl-resnet50", {"student": "finetune-densenet161"}, "finetune-densenet161", "densenet161", 2),
        ("ptl-resnet50", {"student": "mgn", "backbone": "resnet34"}, "mgn", "resnet34", 2),
        ("ptl-mgn", {}, "mgn", "resnet18", 2),
        ("qaconv-gs", {}, "finetune-resnet50", "resnet18", 2),
    ],
)
def test_the_teachers_own_network_without_cells_is_the_student_unless_another_is_named(
    teacher: str, asked: dict[str, Any], student: str, backbone: str, last_stride: int
) -> None:
    strided = {"last_stride": 1} if teacher in ("ptl-resnet50", "ptl-densenet161") else {}
    settings = override(METHODS[teacher].recipe, {"backbone": "resnet18", **strided})
    settled = settle(asked, teacher, settings)
    assert (settled.student, settled.backbone, settled.last_stride) == (student, backbone, last_stride)
    assert preprocessing_of(settled) == preprocessing_of(settings)
    assert settled.schedule == STD.recipe.schedule


def test_a_student_may_teach() -> None:
    settings = override(STD.recipe, {"student": "mgn", "backbone": "resnet18"})
    settled = settle({"image": {"height": 96}, "balance": 0.5}, "std", settings)
    assert (settled.student, settled.backbone, settled.balance) == ("mgn", "resnet18", 0.5)
    assert (settled.image.height, settled.image.width) == (96, settings.image.width)


@pytest.mark.parametrize("asked", [{"student": "qaconv"}, {"student": ["mgn"]}, {"backbone": 5}, {"strudent": "mgn"}])
def test_impossible_students_are_refused_by_name(asked: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        settle(asked, "ptl-resnet50", METHODS["ptl-resnet50"].recipe)
    (pointer,) = {fault.pointer for fault in caught.value.faults}
    assert pointer == f"/{next(iter(asked))}"


def test_mgn_takes_no_last_stride() -> None:
    with pytest.raises(SettingsError) as caught:
        STD.build_network(override(STD.recipe, {"student": "mgn", "last_stride": 1}), 5)
    assert caught.value.faults[0].pointer == "/last_stride"


@pytest.mark.parametrize(
    ("method", "teacher", "words"),
    [
        ("std", None, ["'std'", "none is named"]),
        ("finetune-resnet50", {}, ["'finetune-resnet50' learns from no teacher"]),
        ("std", {"image": {"height": 64, "width": 16}}, ["height 64", "height 32"]),
        ("std", {"normalisation": "none"}, ["mean (0.0, 0.0, 0.0)", "mean (0.485, 0.456, 0.406)"]),
        ("std", {"interpolation": "bicubic"}, ["bicubic", "bilinear"]),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(
    method: str, teacher: dict[str, Any] | None, words: list[str], tmp_path: Path
) -> None:
    made = None if teacher is None else make_teacher(**teacher)
    plan = make_plan(tmp_path / "pictures", method=METHODS[method], teacher=made)
    with pytest.raises(SettingsError) as caught:
        fit(plan, tmp_path)
    assert [fault.pointer for fault in caught.value.faults] == ["/teacher"]
    assert all(word in str(caught.value) for word in words)
