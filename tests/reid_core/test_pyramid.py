"""The pyramid head against section 3.1 of the paper, one branch at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from reid_core.errors import SettingsError
from reid_core.heads.pyramid import PyramidHead, windows

BATCH, CHANNELS, WIDTH, CLASSES = 5, 7, 4, 3
# 24 rows are divided by every number of parts here.
HEIGHT, COLUMNS = 24, 3


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def make(parts: int, mask: str, *, dropout: float = 0.0) -> PyramidHead:
    head = PyramidHead(CHANNELS, CLASSES, parts, mask, WIDTH, dropout=dropout)
    with torch.no_grad():
        head.norm.weight.uniform_(0.5, 2)
        head.norm.bias.uniform_(-1, 1)
    return head


def make_map(batch: int = BATCH) -> Tensor:
    feature_map = torch.randn(batch, CHANNELS, HEIGHT, COLUMNS)
    return feature_map.contiguous(memory_format=torch.channels_last).requires_grad_()


def slices(parts: int, mask: str, height: int) -> Iterator[slice]:
    """Section 3.1.1 to the letter, rows from 1: st = (k - 1) H / n + 1, ed = (k - 1) H / n + l H / n."""
    for level in range(1, parts + 1):
        for k in range(1, parts - level + 2):
            first = (k - 1) * height // parts + 1
            last = (k - 1) * height // parts + level * height // parts
            if mask[level - 1] == "1":
                yield slice(first - 1, last)


def naive(head: PyramidHead, feature_map: Tensor, mask: str) -> tuple[Tensor, Tensor]:
    """Every branch sliced, pooled, convolved, normalised and classified by itself, with the head's weights."""
    features, logits = [], []
    for branch, rows in enumerate(slices(head.parts, mask, HEIGHT)):
        sub_map = feature_map[:, :, rows]
        pooled = functional.adaptive_avg_pool2d(sub_map, 1) + functional.adaptive_max_pool2d(sub_map, 1)
        convolved = functional.conv2d(pooled, head.projection[branch].T[:, :, None, None])
        own = slice(branch * WIDTH, (branch + 1) * WIDTH)
        normalised = functional.batch_norm(
            convolved, None, None, head.norm.weight[own], head.norm.bias[own], training=True, eps=head.norm.eps
        )
        features.append(functional.relu(normalised).flatten(1))
        logits.append(functional.linear(features[-1], head.classifier[branch].T))
    return torch.stack(features, dim=1), torch.stack(logits, dim=1)


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 6, 8])
def test_windows_are_those_of_the_paper(parts: int) -> None:
    got = windows(parts, "1" * parts)
    assert len(got) == parts * (parts + 1) // 2
    rows = HEIGHT // parts
    assert [slice(start * rows, stop * rows) for start, stop in got] == [*slices(parts, "1" * parts, HEIGHT)]


def test_a_mask_selects_levels_with_the_finest_leftmost() -> None:
    assert windows(6, "000001") == ((0, 6),)
    assert windows(6, "100000") == ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6))
    assert windows(6, "000110") == ((0, 4), (1, 5), (2, 6), (0, 5), (1, 6))
    assert [len(windows(6, mask)) for mask in ("111111", "001111", "110011", "111100")] == [21, 10, 14, 18]


@pytest.mark.parametrize(
    ("parts", "mask"),
    [
        *((parts, "1" * parts) for parts in (1, 2, 3, 4, 6, 8)),
        *((6, mask) for mask in ("000001", "100000", "001111", "110011", "111100")),
    ],
)
def test_features_logits_and_gradients_equal_those_of_separate_branches(parts: int, mask: str) -> None:
    head, feature_map = make(parts, mask), make_map()
    inputs = [feature_map, *head.parameters()]
    wanted = naive(head, feature_map, mask)
    got = head(feature_map)
    assert got.features.shape == (BATCH, len(windows(parts, mask)), WIDTH)
    assert got.logits.shape == (BATCH, len(windows(parts, mask)), CLASSES)
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    directions = [torch.randn_like(tensor) for tensor in wanted]
    got_gradients, wanted_gradients = (torch.autograd.grad([*outputs], inputs, directions) for outputs in (got, wanted))
    torch.testing.assert_close(got_gradients, wanted_gradients, rtol=1e-4, atol=1e-4)


def test_the_layout_of_the_map_does_not_matter() -> None:
    head, feature_map = make(6, "111111"), make_map()
    torch.testing.assert_close(head(feature_map), head(feature_map.contiguous()))


def test_an_image_is_embedded_alike_alone_and_in_a_batch() -> None:
    head, feature_map = make(6, "111111", dropout=0.2), make_map()
    head(feature_map)
    head.eval()
    together = head(feature_map)
    torch.testing.assert_close(head(feature_map[2:3]).features, together.features[2:3])
    torch.testing.assert_close(head(feature_map).logits, together.logits)


def test_dropout_lies_between_the_features_and_their_classifiers_only() -> None:
    feature_map = make_map()
    with_dropout, without = make(6, "111111", dropout=0.2), make(6, "111111")
    without.load_state_dict(with_dropout.state_dict())
    dropped, kept = with_dropout(feature_map), without(feature_map)
    assert torch.equal(dropped.features, kept.features)
    assert not torch.allclose(dropped.logits, kept.logits)


def test_low_precision_stays_close() -> None:
    head, feature_map = make(6, "111111"), make_map(batch=32).detach()
    wanted = head(feature_map).features.detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = head(feature_map.bfloat16()).features.detach()
    assert float((got - wanted).norm() / wanted.norm()) < 0.02


@pytest.mark.parametrize("mask", ["11111", "1111111", "000000", "11x111", "11 111", ""])
def test_a_mask_that_does_not_fit_is_refused(mask: str) -> None:
    with pytest.raises(SettingsError, match=f"6 characters 0 or 1, a 1 among them.* got {mask!r}") as caught:
        PyramidHead(CHANNELS, CLASSES, 6, mask, WIDTH, dropout=0.2)
    assert caught.value.faults[0].pointer == "/levels"
    assert "'111111'" in caught.value.hint
    assert "'000001'" in caught.value.hint


def test_parts_that_do_not_divide_the_height_are_refused_with_those_that_do() -> None:
    head = make(5, "11111")
    with pytest.raises(SettingsError, match="5 parts do not divide the feature map's height of 24") as caught:
        head(make_map())
    assert caught.value.faults[0].pointer == "/parts"
    assert "1, 2, 3, 4, 6, 8, 12, 24" in caught.value.hint
