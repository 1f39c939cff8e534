"""Model cards: what a model is, what it was made from, what it reached and what it must not be taken for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from pydantic import Field

from service.db.tables import Evaluation, Model
from service.evaluations.schemas import EvaluationAnswer
from service.models.calibrations import describe_calibrations
from service.models.engines import describe_engine
from service.models.schemas import CalibrationAnswer, EngineAnswer, Lineage, Preprocessing
from service.schemas import Answer, Time, example
from service.settings import Settings

_IMAGENET_NOTE = (
    "It started from torchvision's weights (BSD 3-Clause), which were trained on ImageNet, whose images are for "
    "non-commercial research."
)
_WEIGHTS_NOTE = "It started from given weights, whose licence this service does not know."
_IMPORTED_NOTE = "It was trained elsewhere, under terms that this service does not know."
_DATA_NOTE = "The terms of the data sets it was trained on hold for it as well; this service does not know them."

_LIMITS = (
    "It tells people apart by their looks, clothes above all: after a change of clothes it finds another person.",
    "Its accuracies are of the people, cameras and protocol that each was measured with; other cameras give others.",
    "It was not measured by sex, age, skin or dress; nothing is known of how its errors are spread over people.",
    "A result is a resemblance and no proof of identity; a person has to decide what follows from it.",
)


class ChangedSetting(Answer):
    """A setting that differs from the method's recipe."""

    name: str
    recipe: Any
    chosen: Any


class CardAnswer(Answer):
    """A model card."""

    model_config = example(
        id="mdl_01jb2c3d4e5f6g7h8j9k0m1n2p",
        name="lobby-baseline",
        method="bnneck",
        title="BNNeck strong baseline",
        paper="Luo et al. 2019, A Strong Baseline and Batch Normalization Neck for Deep Person Re-identification",
        created_at="2026-01-31T12:00:00Z",
        preprocessing={"height": 256, "width": 128},
        embedding_size=2048,
        lineage={"datasets": [], "parent": None, "init_from": "imagenet", "teacher": None, "seed": 0},
        changed_settings=[{"name": "schedule.epochs", "recipe": 120, "chosen": 12}],
        evaluations=[],
        calibrations=[],
        engine={"name": "openvino", "precision": "fp32", "difference": 4e-7, "images": 16, "reason": None},
        licences=[_IMAGENET_NOTE, _DATA_NOTE],
        limits=[_LIMITS[0]],
    )

    id: str
    name: str
    method: str
    title: str
    paper: str | None
    created_at: Time
    preprocessing: Preprocessing
    embedding_size: int
    lineage: Lineage = Field(description="data sets with their fingerprints, weights and teacher it was made from")
    changed_settings: list[ChangedSetting]
    evaluations: list[EvaluationAnswer] = Field(description="newest first, each with its protocol")
    calibrations: list[CalibrationAnswer]
    engine: EngineAnswer
    licences: list[str]
    limits: list[str]


def make_card(model: Model, evaluations: Sequence[Evaluation], settings: Settings, prefix: str = "") -> CardAnswer:
    """The model's card; `prefix` is put before links."""
    from reid_core.methods import METHODS  # brings PyTorch

    method = METHODS.get(model.method)
    recipe = method.recipe.model_dump(mode="json") if method else dict(model.settings)
    return CardAnswer(
        id=model.id,
        name=model.name,
        method=model.method,
        title=method.title if method else "A network in an ONNX file",
        paper=method.paper if method else None,
        created_at=model.created_at,
        preprocessing=cast("Preprocessing", model.preprocessing),
        embedding_size=model.embedding_size,
        lineage=cast("Lineage", model.lineage),
        changed_settings=list(_changes(recipe, model.settings)),
        evaluations=[EvaluationAnswer.of(evaluation, prefix) for evaluation in evaluations],
        calibrations=[CalibrationAnswer(**value) for value in describe_calibrations(settings, model.id)],
        engine=EngineAnswer(**describe_engine(model, settings)),
        licences=list(_licences(model.lineage)),
        limits=list(_LIMITS),
    )


def write_markdown(card: CardAnswer) -> str:
    """The card as a Markdown document."""
    return "\n".join(_lines(card)) + "\n"


def _changes(recipe: Mapping[str, Any], chosen: Mapping[str, Any], path: str = "") -> Iterator[ChangedSetting]:
    for name, value in chosen.items():
        before, here = recipe.get(name), f"{path}{name}"
        if isinstance(value, dict) and isinstance(before, dict):
            yield from _changes(before, value, f"{here}.")
        elif value != before:
            yield ChangedSetting(name=here, recipe=before, chosen=value)


def _licences(lineage: Mapping[str, Any]) -> Iterator[str]:
    start = lineage.get("init_from")
    if lineage.get("imported"):
        yield _IMPORTED_NOTE
    elif isinstance(start, str) and start.startswith("imagenet"):
        yield _IMAGENET_NOTE
    elif isinstance(start, dict):
        yield _WEIGHTS_NOTE
    elif start is not None:
        yield f"It started from model {start}, whose terms hold for it as well."
    if lineage.get("datasets"):
        yield _DATA_NOTE


def _lines(card: CardAnswer) -> Iterator[str]:
    yield f"# {card.name}"
    yield f"\n{card.title} (`{card.method}`), model `{card.id}` of {card.created_at:%Y-%m-%d}."
    if card.paper:
        yield f"After: {card.paper}."
    yield "\n## Input and output"
    size = card.preprocessing
    pixels = f"{size.get('height')} x {size.get('width')} pixels (height x width)"
    yield f"RGB crops of people, {pixels}, to {card.embedding_size} numbers of unit length."
    yield f"On CPUs {card.engine.name} runs it."
    yield "\n## Made from"
    yield from _origins(card.lineage)
    yield "\n## Settings that differ from the method's recipe"
    yield from _table(
        ("setting", "recipe", "here"), [(one.name, one.recipe, one.chosen) for one in card.changed_settings]
    )
    yield "\n## Accuracy"
    rows = [
        (one.dataset, one.rerank, one.mAP, one.cmc.get("1"), one.valid_queries, f"{one.created_at:%Y-%m-%d}")
        for one in card.evaluations
    ]
    yield from _table(("data set", "re-ranking", "mAP", "rank-1", "queries", "date"), rows)
    yield "\n## Calibration"
    fits = [(one.rerank, one.kind, one.expected_calibration_error) for one in card.calibrations]
    yield from _table(("re-ranking", "curve", "expected calibration error"), fits)
    for title, notes in (("Licences", card.licences), ("Limits", card.limits)):
        yield f"\n## {title}"
        yield from (f"- {note}" for note in notes)


def _origins(lineage: Lineage) -> Iterator[str]:
    for dataset in lineage.get("datasets", []):
        fingerprint = dataset.get("fingerprint") or "unknown"
        yield f"- data set {dataset.get('name')!r}, split {dataset.get('split')}, fingerprint `{fingerprint}`"
    if imported := lineage.get("imported"):
        yield f"- the file {imported.get('file')!r}, SHA-256 `{imported.get('sha256')}`"
    else:
        yield f"- started from: {lineage.get('init_from') or 'random weights'}; seed {lineage.get('seed')}"
    if kept := lineage.get("kept"):
        early = ", ended early by patience" if kept.get("stopped_early") else ""
        yield f"- network of epoch {kept.get('epoch')} of {kept.get('epochs')} ({kept.get('rule')}{early})"
    if adapted := lineage.get("adapted"):
        source = f", those of gallery `{adapted['gallery']}`" if adapted["gallery"] else ""
        yield f"- adapted to {adapted['images']} images without labels{source}"
    if teacher := lineage.get("teacher"):
        yield f"- taught by model `{teacher}`"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    if not rows:
        yield "None."
        return
    yield _row(head)
    yield _row(["---"] * len(head))
    yield from (_row(row) for row in rows)


def _row(cells: Sequence[Any]) -> str:
    texts = [f"{cell:.4g}" if isinstance(cell, float) else str(cell).replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(texts)} |"
