"""The choice of precision, and its numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reid_core.backbones import BackboneName, build_backbone
from reid_core.data.preprocessing import preprocessing_of
from reid_core.devices import has_bf16_units, resolve_dtype
from reid_core.errors import SettingsError
from reid_core.methods import METHODS
from reid_core.model import load_model, save_model
from reid_core.settings import override

CPU = torch.device("cpu")


@pytest.fixture
def bf16_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reid_core.devices.has_bf16_units", lambda: True)


@pytest.mark.usefixtures("bf16_units")
@pytest.mark.parametrize(
    ("backbone", "width", "expected"),
    [
        ("resnet50", 64, torch.bfloat16),
        ("resnet50", 33, torch.bfloat16),
        ("resnet50", 32, torch.float32),
        ("mobilenet_v2", 64, torch.float32),
    ],
)
def test_cpus_with_bf16_units_use_them_where_it_is_fast_and_right(
    backbone: BackboneName, width: int, expected: torch.dtype
) -> None:
    assert resolve_dtype("auto", CPU, backbone, width) == expected


@pytest.mark.usefixtures("bf16_units")
def test_bf16_is_refused_where_its_numbers_are_wrong() -> None:
    assert resolve_dtype("bf16", CPU, "resnet50", 33) == torch.bfloat16
    with pytest.raises(SettingsError) as refused:
        resolve_dtype("bf16", CPU, "resnet50", 32)
    assert [(fault.pointer, fault.code) for fault in refused.value.faults] == [("/precision", "too-narrow")]
    assert "wider than 32" in refused.value.hint


@pytest.mark.usefixtures("bf16_units")
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_model_is_served_where_its_precision_is_not_to_be_had(tmp_path: Path, precision: str) -> None:
    method = METHODS["bnneck"]
    changes = {"backbone": "resnet18", "image": {"height": 32, "width": 16}, "precision": precision}
    settings = override(method.recipe, changes)
    network = method.build_network(settings, 2)
    preprocessing = preprocessing_of(settings)
    folder = tmp_path / "model"
    folder.mkdir()
    save_model(folder, network, method="bnneck", settings=settings, num_classes=2, preprocessing=preprocessing)
    encoder = load_model(folder, CPU).encoder()
    assert encoder.encode_prepared(torch.rand(1, 3, 32, 16)).embeddings.isfinite().all()


@pytest.mark.skipif(not has_bf16_units(), reason="the CPU has no bf16 units")
@pytest.mark.parametrize("width", [33, 64])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_in_bf16_nothing_depends_on_what_memory_held_before(backbone: BackboneName, width: int) -> None:
    torch.manual_seed(0)
    network = build_backbone(backbone, last_stride=2).eval().to(memory_format=torch.channels_last)
    images = torch.randn(3, 3, 64, width).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        first = network(images)[-1].float()
        for _ in range(3):
            for size in (2**12, 2**16, 2**20):
                torch.full((size,), torch.nan, dtype=torch.bfloat16)
            assert torch.equal(network(images)[-1].float(), first)
    with torch.inference_mode():
        exact = network(images)[-1]
    assert (first - exact).norm() < 0.05 * exact.norm()
