"""Paper 002: "A Coarse-to-fine Pyramidal Model for Person Re-identification via Multi-Loss Dynamic Training"."""

from __future__ import annotations

from typing import Any

from service.papers.experiment import Column, Experiment, Row, Training

_TABLE_4: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "Pyramid-000001": ({"levels": "000001"}, (82.1, 92.8, 97.3, 98.2)),
    "Pyramid-100000": ({"levels": "100000"}, (84.9, 93.9, 97.6, 98.5)),
    "Pyramid-001111": ({"levels": "001111"}, (86.7, 94.8, 98.4, 98.8)),
    "Pyramid-110011": ({"levels": "110011"}, (87.2, 95.0, 98.1, 98.8)),
    "Pyramid-111100": ({"levels": "111100"}, (87.5, 94.8, 98.3, 98.9)),
    "Feature-64": ({"width": 64}, (86.9, 94.5, 97.8, 98.6)),
    "Feature-256": ({"width": 256}, (87.8, 95.3, 98.2, 98.9)),
    "No triplet loss": ({"triplet": False}, (86.5, 93.8, 97.5, 98.4)),
    "Pyramid-ours": ({}, (88.2, 95.7, 98.4, 99.0)),
}
"""Model -> what differs from the default, and mAP, rank 1, 5 and 10."""

_SMALL = ("Pyramid-000001", "Pyramid-100000", "No triplet loss", "Pyramid-ours")


def table4(small: bool) -> Experiment:
    measures = (("mAP", "mAP"), ("rank 1", "rank1"), ("rank 5", "rank5"), ("rank 10", "rank10"))
    return Experiment(
        name="002-table4",
        title="The pyramid's parts left out one by one",
        source="Zheng et al. 2019, A Coarse-to-fine Pyramidal Model for Person Re-identification via Multi-Loss "
        "Dynamic Training",
        place="table 4",
        label_titles=("model",),
        columns=tuple(Column(title, measure, "market1501") for title, measure in measures),  # type: ignore[arg-type]
        rows=tuple(
            Row((name,), Training("pyramid", ("market1501",), settings), quoted, small=name in _SMALL)
            for name, (settings, quoted) in _TABLE_4.items()
        ),
        small_needs=("market1501",),
        notes=("The backbone is the authors' code's ResNet-101; the paper says ResNet.",),
    )
