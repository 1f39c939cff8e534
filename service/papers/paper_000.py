"""Paper 000: "Graph Sampling Based Deep Metric Learning for Generalizable Person Re-Identification"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from service.papers.experiment import DATA_SETS, Column, Experiment, Point, Row, Training

_SOURCE = (
    "Liao and Shao 2022, Graph Sampling Based Deep Metric Learning for Generalizable Person Re-Identification, "
    "arXiv:2104.01546"
)
_NAMES = {"qaconv": "QAConv", "qaconv-pk": "QAConv-P + PK", "qaconv-gs": "QAConv-P + GS"}
_MARKET = ("market1501",)

_OWN_LAYERS = {"instance_norm": "block", "normalisation": "none", "freeze_backbone_bn": False}
"""Said outright, so that a service which fits these to the weights does not choose others."""

# Hours, then rank-1 and mAP on CUHK03-NP, Market-1501 and MSMT17.
_TABLE_1: tuple[tuple[str, str, Literal["train", "all"], tuple[float | None, ...]], ...] = (
    ("qaconv", "market1501", "train", (1.07, 13.3, 14.2, None, None, 40.9, 14.7)),
    ("qaconv-gs", "market1501", "train", (0.68, 16.4, 15.7, None, None, 41.2, 15.0)),
    ("qaconv", "msmt17", "train", (2.37, 15.6, 16.2, 72.9, 44.2, None, None)),
    ("qaconv-gs", "msmt17", "train", (0.96, 20.0, 19.2, 75.1, 46.7, None, None)),
    ("qaconv", "msmt17", "all", (17.85, 25.1, 24.8, 79.5, 52.3, None, None)),
    ("qaconv-gs", "msmt17", "all", (3.88, 27.2, 27.1, 80.6, 55.6, None, None)),
    ("qaconv", "randperson", "train", (12.22, 12.6, 12.1, 73.2, 42.1, 41.8, 13.8)),
    ("qaconv-gs", "randperson", "train", (1.84, 14.8, 13.4, 74.0, 43.8, 42.4, 14.4)),
)
_RANDPERSON = {"schedule": {"epochs": 4, "decay_at": [0.5]}}


def _both(title: str, name: str) -> tuple[Column, Column]:
    return Column(f"{title} rank-1", "rank1", name), Column(f"{title} mAP", "mAP", name)


_ELSEWHERE = (*_both("CUHK03-NP", "cuhk03"), *_both("MSMT17", "msmt17"))
"""What the figures show of a model trained on Market-1501."""

_OURS = "The values along the axis are ours: the figure's are not in its text."
_DEFAULT = "Numbers quoted at the paper's own settings are table 1's; the figure prints none."


def table1(small: bool) -> Experiment:
    tested = (*_both("CUHK03-NP", "cuhk03"), *_both("Market-1501", "market1501"), *_both("MSMT17", "msmt17"))
    return Experiment(
        name="000-table1",
        title="Direct cross-data-set accuracy of QAConv with class memory and of QAConv-P with graph sampling",
        source=_SOURCE,
        place="table 1",
        label_titles=("method", "trained on"),
        columns=(Column("training time (h)", "hours"), *tested),
        rows=tuple(
            Row(
                (_NAMES[method], DATA_SETS[name] + (" (all)" if split == "all" else "")),
                _training(small, method, (name,), _RANDPERSON if name == "randperson" else {}, split),
                quoted,
            )
            for method, name, split, quoted in _TABLE_1
        ),
        small_needs=("market1501", "msmt17"),
        notes=(
            "MSMT17 (all) trains on every image of every split. RandPerson is its training subset of 132,145 images, "
            "4 epochs, decayed after 2.",
            "The paper's hours are of one V100. Ours are from the start of the job to its end, interruptions included.",
        ),
        cross=True,
    )


def fig2(small: bool) -> Experiment:
    epochs = (1, 2, 4) if small else (1, 2, 5, 8, 10, 12, 15)
    rows = tuple(
        Row(
            (name, f"{count}"),
            _training(small, method, _MARKET, {} if count == 15 else _after(count)),
            _quoted_by_default(method) if count == 15 else (),
            small=method != "qaconv-pk" or count == 4,
            point=Point(count, series=name),
        )
        for method, name in _NAMES.items()
        for count in epochs
    )
    return _figure(
        "000-fig2",
        "Learning efficiency: accuracy after a number of epochs",
        "figure 2",
        ("method", "epochs"),
        rows,
        "epochs",
        "Each point is a training of its own that stops after so many epochs of the paper's 15, the rate falling after "
        "the tenth as there; the text does not say which training set, so Market-1501 as in figures 3 and 4.",
    )


def fig3(small: bool) -> Experiment:
    sizes, each = ((8, 16, 32), (2, 4)) if small else ((16, 32, 64, 128), (2, 4, 8, 16))
    usual = 16 if small else 64
    varied = [("(a) batch size, K = 4", size, (size, 4)) for size in sizes]
    varied += [(f"(b) K, batch size {usual}", k, (usual, k)) for k in each]
    rows = tuple(
        _gs_row(
            small,
            (panel, f"{size}", f"{k}"),
            {"batch": {"size": size, "images_per_identity": k}},
            x,
            panel,
            size == 64 and k == 4,
        )
        for panel, x, (size, k) in varied
    )
    title = "Graph sampling with other batch sizes B and images per person K"
    return _figure("000-fig3", title, "figure 3", ("varied", "B", "K"), rows, "B or K", log_x=True)


def fig4(small: bool) -> Experiment:
    first, clips = ((1, 3), (8.0, 512.0)) if small else ((1, 2, 3, 5, 8, 12), (8.0, 32.0, 128.0, 512.0, 2048.0))
    panels = "(a) first epochs by the PK sampler", "(b) gradient clipping threshold"
    early = [_gs_row(small, (panels[0], f"{n}"), {"pk_epochs": n}, n, panels[0], n == 1 and not small) for n in first]
    clipped = [
        _gs_row(small, (panels[1], f"{clip:g}"), {"gradient_clip": clip}, clip, panels[1], clip == 512 and not small)
        for clip in clips
    ]
    title = "Graph sampling: initialisation and gradient clipping"
    return _figure(
        "000-fig4", title, "figure 4", ("varied", "value"), (*early, *clipped), "epochs or threshold", log_x=True
    )


def fig5(small: bool) -> Experiment:
    named = (("market1501",), ("msmt17",))
    return Experiment(
        name="000-fig5",
        title="The nearest classes that graph sampling finds",
        source=_SOURCE,
        place="figure 5",
        label_titles=("method", "trained on"),
        columns=(Column("training time (h)", "hours"),),
        rows=tuple(
            Row((_NAMES["qaconv-gs"], DATA_SETS[datasets[0]]), _training(small, "qaconv-gs", datasets))
            for datasets in named
        ),
        small_needs=("market1501", "msmt17"),
        notes=("Each row of an image is a class, on the left, and its nearest classes with their distances.",),
        graph_epochs=(2, 3, 4) if small else (2, 8, 15),
    )


def _figure(
    name: str,
    title: str,
    place: str,
    label_titles: tuple[str, ...],
    rows: Iterable[Row],
    x_title: str,
    *notes: str,
    log_x: bool = False,
) -> Experiment:
    return Experiment(
        name=name,
        title=title,
        source=_SOURCE,
        place=place,
        label_titles=label_titles,
        columns=_ELSEWHERE,
        rows=tuple(rows),
        small_needs=("market1501", "msmt17"),
        notes=(*notes, _OURS, _DEFAULT),
        x_title=x_title,
        log_x=log_x,
        quoted_place="table 1",
    )


def _gs_row(
    small: bool, labels: tuple[str, ...], settings: Mapping[str, Any], x: float, panel: str, as_paper: bool
) -> Row:
    training = _training(small, "qaconv-gs", _MARKET, {} if as_paper else settings)  # unsaid, it is table 1's training
    return Row(labels, training, _quoted_by_default("qaconv-gs") if as_paper else (), point=Point(x, panel=panel))


def _training(
    small: bool,
    method: str,
    datasets: tuple[str, ...],
    settings: Mapping[str, Any] = MappingProxyType({}),
    split: Literal["train", "all"] = "train",
) -> Training:
    return Training(method, datasets, settings if small else {**_OWN_LAYERS, **settings}, split)


def _quoted_by_default(method: str) -> tuple[float | None, ...]:
    """Table 1's accuracies on CUHK03-NP and MSMT17 of the method trained on Market-1501; none of QAConv-P + PK."""
    for name, trained_on, _, quoted in _TABLE_1:
        if (name, trained_on) == (method, _MARKET[0]):
            return quoted[1:3] + quoted[5:7]
    return ()


def _after(epochs: int) -> dict[str, Any]:
    """The paper's schedule, stopped early: the rate falls after its tenth epoch."""
    return {"schedule": {"epochs": epochs, "decay_at": [10 / epochs] if epochs > 10 else []}}
