"""Paper 003: "Progressive Transfer Learning for Person Re-identification"."""

from __future__ import annotations

from dataclasses import replace

from service.papers.experiment import DATA_SETS, Column, Experiment, Row, Training

_SOURCE = "Yu et al. 2019, Progressive Transfer Learning for Person Re-identification"
_PLAIN, _PTL = "finetune-densenet161", "ptl-densenet161"
_STUDENT = {"student": _PLAIN}

PARAMETERS = {
    "ResNet-50": 28.0,
    "ResNet-50+PTL": 35.0,
    "DenseNet-161": 32.0,
    "DenseNet-161+PTL": 42.0,
    "DenseNet-161+PTL+STD": 32.0,
    "MGN (reproduced)": 66.0,
}
"""Millions of parameters (tables 1 and 6; of MGN section 5.2)."""

Order = tuple[tuple[str, ...], ...]
"""A fine-tuning list: the data sets of each stage."""

_MARKET, _DUKE, _MSMT = ("market1501",), ("dukemtmc",), ("msmt17",)
_TABLE_5: tuple[tuple[str, Order, tuple[float, float]], ...] = (
    ("DenseNet-161", (_MARKET + _DUKE, _MSMT), (41.12, 72.49)),
    ("DenseNet-161+PTL+STD", (_MARKET + _DUKE, _MSMT), (42.53, 74.11)),
    ("DenseNet-161", (_MARKET, _DUKE, _MSMT), (41.22, 72.78)),
    ("DenseNet-161+PTL+STD", (_MARKET, _DUKE, _MSMT), (42.34, 73.60)),
    ("DenseNet-161", (_DUKE, _MARKET, _MSMT), (41.80, 73.00)),
    ("DenseNet-161+PTL+STD", (_DUKE, _MARKET, _MSMT), (42.73, 74.31)),
    ("DenseNet-161+PTL", (_DUKE, _MARKET), (76.00, 91.30)),
    ("DenseNet-161+PTL+STD", (_DUKE, _MARKET), (75.50, 91.10)),
    ("DenseNet-161+PTL", (_DUKE, _MSMT, _MARKET), (77.90, 91.60)),
    ("DenseNet-161+PTL+STD", (_DUKE, _MSMT, _MARKET), (77.40, 91.60)),
)
_TABLE_6 = {
    0.0: (38.60, 70.80),
    0.3: (41.26, 72.52),
    0.5: (42.27, 73.49),
    0.8: (42.51, 73.37),
    1.0: (41.66, 72.32),
}
"""lambda -> mAP and CMC-1 of DenseNet-161+PTL+STD."""

_ACCURACY = (Column("mAP", "mAP"), Column("CMC-1", "rank1"))
_WITH_PARAMETERS = (Column("#Param. (millions)", "parameters"), *_ACCURACY)


def _taught(teacher: Training, start: Training | None = None, **settings: float) -> Training:
    """The student of the teacher, on the data that the teacher saw last."""
    return Training("std", teacher.datasets, {**_STUDENT, **settings}, start=start, teacher=teacher)


def table1(small: bool) -> Experiment:
    ptl = Training(_PTL, _MSMT)
    trained = {
        "ResNet-50": (Training("finetune-resnet50", _MSMT), (28.63, 59.77)),
        "ResNet-50+PTL": (Training("ptl-resnet50", _MSMT), (32.58, 62.76)),
        "DenseNet-161": (Training(_PLAIN, _MSMT), (38.60, 70.80)),
        "DenseNet-161+PTL": (ptl, (42.25, 72.65)),
        "DenseNet-161+PTL+STD": (_taught(ptl), (41.38, 73.12)),
    }
    rows = tuple(
        Row((name,), training, (PARAMETERS[name], *quoted), small=name.startswith("DenseNet"))
        for name, (training, quoted) in trained.items()
    )
    return Experiment(
        name="003-table1",
        title="Progressive transfer learning on MSMT17",
        source=_SOURCE,
        place="table 1",
        label_titles=("method",),
        columns=_WITH_PARAMETERS,
        rows=rows,
        small_needs=_MSMT,
        notes=("Parameters are counted as trained, classifier included.",),
    )


def table2(small: bool) -> Experiment:
    ptl = Training(_PTL, _MARKET)
    rows = (
        Row(("DenseNet-161*",), Training(_PLAIN, _MARKET, {"batch": {"size": 48 if small else 90}}), (69.90, 88.30)),
        Row(("DenseNet-161",), Training(_PLAIN, _MARKET), (76.40, 91.70)),
        Row(("DenseNet-161+PTL",), ptl, (77.50, 92.50)),
        Row(("DenseNet-161+PTL+STD",), _taught(ptl), (77.50, 92.20)),
        Row(("MGN (reproduced)",), Training("mgn", _MARKET), (85.80, 94.60), small=False),
        Row(("MGN+PTL",), Training("ptl-mgn", _MARKET), (87.34, 94.83), small=False),
    )
    return Experiment(
        name="003-table2",
        title="Progressive transfer learning on Market-1501",
        source=_SOURCE,
        place="table 2",
        label_titles=("method",),
        columns=_ACCURACY,
        rows=rows,
        small_needs=_MARKET,
        notes=("DenseNet-161* is the same with batches of 90 instead of 32 images (small run: 48 instead of 16).",),
    )


def table5(small: bool) -> Experiment:
    return Experiment(
        name="003-table5",
        title="Transfer among several data sets",
        source=_SOURCE,
        place="table 5",
        label_titles=("method", "fine-tuning list"),
        columns=_ACCURACY,
        rows=tuple(Row((method, _in_words(order)), _of(method, order), quoted) for method, order, quoted in _TABLE_5),
        small_needs=("market1501", "dukemtmc"),
        notes=(
            "Measured on the last data set of each list. Stages are trainings of their own, each from the model of the "
            "one before, so that lists which begin alike share what they share.",
            "A student starts from the plain network that came by the same list up to its last data set, and learns "
            "there from the PTL network after the whole list, as section 5.8 has it.",
        ),
    )


def table6(small: bool) -> Experiment:
    teacher = _along(_PTL, (_MARKET, _MSMT))
    start = _along(_PLAIN, (_MARKET,))
    name, students = "DenseNet-161+PTL+STD", {each: _taught(teacher, start, balance=each) for each in _TABLE_6 if each}
    students[0.0] = Training(_PLAIN, _MSMT)
    rows = tuple(
        Row((name, f"{each:.2f}"), students[each], (PARAMETERS[name], *quoted), small=each in (0.0, 0.8, 1.0))
        for each, quoted in _TABLE_6.items()
    )
    return Experiment(
        name="003-table6",
        title="Student-teacher distillation: the weight of the teacher",
        source=_SOURCE,
        place="table 6",
        label_titles=("method", "λ"),
        columns=_WITH_PARAMETERS,
        rows=(Row(("DenseNet-161+PTL", ""), teacher, (PARAMETERS["DenseNet-161+PTL"], 42.45, 72.48)), *rows),
        small_needs=("msmt17", "market1501"),
        notes=(
            "The teacher is the PTL network transferred from Market-1501 to MSMT17; students start from the plain "
            "network fine-tuned on Market-1501.",
            "λ = 0 is no distillation. The paper prints for it the very numbers that table 1 has for the plain "
            "network, so it is trained as there: on MSMT17 alone, from the run's own weights.",
        ),
    )


def _of(method: str, order: Order) -> Training:
    if method.endswith("+STD"):
        return _taught(_along(_PTL, order), _along(_PLAIN, order[:-1]))
    return _along(_PTL if method.endswith("+PTL") else _PLAIN, order)


def _along(method: str, order: Order) -> Training:
    """The training on the list's last data set, from those on the ones before."""
    first, *others = order
    training = Training(method, first)
    for datasets in others:
        training = replace(training, datasets=datasets, start=training)
    return training


def _in_words(order: Order) -> str:
    return " to ".join(" + ".join(DATA_SETS[name] for name in stage) for stage in order)
