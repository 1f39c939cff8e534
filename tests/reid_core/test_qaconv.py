"""QAConv's network and criteria against the papers' formulas: neck, self pairs, pairwise and class-memory losses."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_core.data.preprocessing import preprocessing_of
from reid_core.losses.pairwise import memory_loss, pairwise_loss
from reid_core.matching import MatchingHead
from reid_core.methods import METHODS
from reid_core.methods.method import Moment
from reid_core.methods.qaconv import (
    PairwiseCriterion,
    PairwiseSettings,
    QaconvSettings,
    build_network,
    matching_head,
)
from reid_core.network import Batch, Output
from reid_core.retrieval.encoder import torch_encoder
from reid_core.settings import ImageSize
from reid_core.training.validation import HeldOut, hold_out, validate
from tests.reid_core.images import make_images

SMALL = {"backbone": "resnet18", "image": ImageSize(height=64, width=32), "neck_channels": 8}
IDENTITIES = torch.tensor([0, 0, 1, 1])


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_pairwise_loss_is_the_cross_entropy_of_all_pairs_but_self_pairs() -> None:
    scores = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for with_self in (False, True):
        rows = [
            sum(
                -math.log(sigmoid(float(scores[i, j]) * (1 if IDENTITIES[i] == IDENTITIES[j] else -1)))
                for j in range(4)
                if with_self or i != j
            )
            for i in range(4)
        ]
        got = pairwise_loss(scores, IDENTITIES, include_self_pairs=with_self)
        assert got.item() == pytest.approx(sum(rows) / 4, rel=1e-6)


def test_memory_loss_weighs_a_pair_by_how_wrong_it_is() -> None:
    scores = torch.tensor([[2.0, -1.0], [0.5, 0.0]])
    own = torch.tensor([[True, False], [False, False]])
    first = (1 - sigmoid(2)) ** 2 * -math.log(sigmoid(2)) + sigmoid(-1) ** 2 * -math.log(1 - sigmoid(-1))
    second = sum(sigmoid(value) ** 2 * -math.log(1 - sigmoid(value)) for value in (0.5, 0.0))
    assert memory_loss(scores, own).item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_the_neck_normalises_its_convolution_over_the_batch() -> None:
    network = build_network(QaconvSettings(**SMALL, batch=METHODS["qaconv-pk"].recipe.batch), 4).train()
    images = torch.rand(4, 3, 64, 32, generator=torch.Generator().manual_seed(1))
    weight = network.state_dict()["neck.0.weight"]
    assert "neck.0.bias" not in network.state_dict()
    with torch.no_grad():
        output = network(images).feature_map
        mapped = functional.conv2d(network.backbone(images)[-1], weight, padding=1)
    mean, variance = mapped.mean(dim=(0, 2, 3), keepdim=True), mapped.var(dim=(0, 2, 3), keepdim=True, correction=0)
    normalised = (mapped - mean) / (variance + 1e-5).sqrt()
    assert output is not None
    torch.testing.assert_close(output, functional.normalize(normalised, dim=1), atol=1e-4, rtol=1e-4)


def test_the_neck_of_the_later_release_is_a_convolution_with_bias() -> None:
    settings = QaconvSettings(**SMALL, batch=METHODS["qaconv-pk"].recipe.batch, neck_norm="none")
    neck = build_network(settings, 4).neck
    assert isinstance(neck, nn.Conv2d)
    assert neck.bias is not None


@pytest.mark.parametrize("name", ["qaconv", "qaconv-pk", "qaconv-gs"])
def test_stored_settings_of_models_from_before_the_normalised_neck_keep_their_neck(name: str) -> None:
    recipe = METHODS[name].recipe
    assert isinstance(recipe, QaconvSettings)
    assert recipe.neck_norm == "batch"
    stored = recipe.model_dump(mode="json")
    del stored["neck_norm"]
    assert type(recipe).model_validate(stored).neck_norm == "none"


def test_self_pairs_are_in_the_matchers_statistics_and_not_in_the_loss() -> None:
    network = build_network(PairwiseSettings(**SMALL), 2)
    criterion = PairwiseCriterion(PairwiseSettings(**SMALL), 2, network)
    maps = functional.normalize(torch.randn(4, 8, 4, 2, generator=torch.Generator().manual_seed(2)), dim=1)
    got = criterion(Output(torch.zeros(4, 2), feature_map=maps), Batch(maps, IDENTITIES, IDENTITIES), Moment(0, 0))

    correlations = torch.einsum("qcr,gcs->qgrs", maps.flatten(2), maps.flatten(2))
    scores = plain_scores(MatchingHead(8), correlations.amax(3), correlations.amax(2))
    expected = pairwise_loss(scores, IDENTITIES)
    torch.testing.assert_close(got.terms["pairwise_loss"], expected, atol=1e-4, rtol=1e-4)


def test_held_out_accuracy_is_the_matchers_and_that_of_the_first_stage_stands_beside_it(tmp_path: Path) -> None:
    settings = PairwiseSettings(**SMALL, precision="fp32")
    network = build_network(settings, 2).eval()
    nn.init.normal_(network.head.weighting.weight, generator=torch.Generator().manual_seed(3))
    people = make_images(tmp_path, identities=6, cameras=2, each=2, height=64, width=32)
    _, held_out = hold_out(people, 0.5, seed=0)
    assert held_out is not None
    encoder = torch_encoder(network, preprocessing_of(settings), torch.device("cpu"), torch.float32)

    got = validate(encoder, held_out, matching_head(network))

    sides = [
        encoder.encode_files([image.path for image in side], with_maps=True)
        for side in (held_out.query, held_out.gallery)
    ]
    query, gallery = (side.maps.flatten(1, 2) for side in sides)
    correlations = torch.einsum("qrc,gsc->qgrs", query, gallery)
    scores = (correlations.amax(3) + correlations.amax(2)) @ network.head.fold().weights
    assert got["rank1"] == pytest.approx(plain_rank1(scores, held_out))
    assert got["first_stage_rank1"] == pytest.approx(plain_rank1(sides[0].embeddings @ sides[1].embeddings.T, held_out))
    assert set(got) == {"rank1", "mAP", "first_stage_rank1", "first_stage_mAP"}


def plain_rank1(scores: Tensor, held_out: HeldOut) -> float:
    """The share of queries whose best image of another camera or person is of the same person."""
    right = []
    for row, query in zip(scores.tolist(), held_out.query, strict=True):
        others = [
            (score, image.identity)
            for score, image in zip(row, held_out.gallery, strict=True)
            if (image.identity, image.camera) != (query.identity, query.camera)
        ]
        right.append(max(others)[1] == query.identity)
    return sum(right) / len(right)


def plain_scores(head: MatchingHead, rows: Tensor, columns: Tensor) -> Tensor:
    """Normalised over every pair, those of an image with itself too, by weights that are all 1 / locations."""
    maxima = torch.stack([rows, columns], dim=2)  # (Q, G, 2, hw)
    normalised = (maxima - maxima.mean()) / (maxima.var(correction=0) + 1e-5).sqrt()
    weighed = normalised.mean(dim=3) + head.weighting.bias
    scores = weighed.sum(dim=2)
    return (scores - scores.mean()) / (scores.var(correction=0) + 1e-5).sqrt()
