"""Paper 001: "Deep Person Re-Identification with Camera-Label Based Batch Hard Mining" (slides)."""

from __future__ import annotations

from typing import Any

from service.papers.experiment import Column, Experiment, Row, Training

_GRID = {
    (1, 0.1): (85.9, 94.2),
    (1, 0.4): (85.7, 93.8),
    (1, 0.7): (85.6, 93.6),
    (5, 0.05): (85.6, 93.8),
    (5, 0.1): (85.9, 94.6),
    (5, 0.2): (85.6, 94.1),
    (5, 0.4): (85.7, 94.1),
    (5, 0.7): (85.6, 94.1),
    (9, 0.1): (85.6, 94.2),
    (9, 0.4): (85.9, 93.7),
    (9, 0.7): (85.8, 94.0),
}
"""k and m -> mAP and rank-1, "validation accuracy"."""

_TEST = {"baseline": (94.1, 95.7), (5, 0.1): (94.0, 95.2)}
"""mAP and rank-1, "test accuracy"."""

_SMALL = ((1, 0.1), (5, 0.1))


def _training(method: str, settings: dict[str, Any]) -> Training:
    batch = {"identities": 4, "images_per_identity": 4}  # "Training Batch size 16"
    return Training(method, ("market1501",), {"batch": batch, **settings})


def grid(small: bool) -> Experiment:
    baseline = Row(("baseline", "", ""), _training("bnneck", {}), (85.8, 94.5, *_TEST["baseline"]))
    biased = tuple(
        Row(
            ("camera bias", f"{k}", f"{m}"),
            _training("bnneck-camera", {"mining": {"k": k, "m": m}}),
            (*quoted, *_TEST.get((k, m), (None, None))),
            small=(k, m) in _SMALL,
        )
        for (k, m), quoted in _GRID.items()
    )
    return Experiment(
        name="001-grid",
        title="Camera-biased batch-hard mining: the grid of k and m beside the baseline",
        source='"Deep Person Re-Identification with Camera-Label Based Batch Hard Mining" (slides)',
        place='slides "Result: Validation accuracy with different hyperparameters" and "Result: test accuracy"',
        label_titles=("mining", "k", "m"),
        columns=(
            Column("mAP", "mAP", "market1501"),
            Column("rank-1", "rank1", "market1501"),
            Column("mAP, re-ranked", "mAP", "market1501", "k_reciprocal"),
            Column("rank-1, re-ranked", "rank1", "market1501", "k_reciprocal"),
        ),
        rows=(baseline, *biased),
        small_needs=("market1501",),
        notes=(
            "The slides do not say what their validation and their test differ in. Their validation numbers of the "
            "baseline are about those that its authors report on Market-1501, their test numbers about those after "
            "k-reciprocal re-ranking; they stand beside ours measured so.",
            "Batches are of 16 images, 4 people with 4 each, as the slides say; everything else is the baseline's.",
        ),
    )
