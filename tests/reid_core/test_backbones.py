"""The contract of every backbone: the strides of its maps, and a third stage that is the last."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import pytest
import torch

from reid_core.backbones import BackboneName, GlobalBackboneName, build_backbone, build_global_backbone, pool
from reid_core.backbones.recipes import RECIPES
from reid_core.backbones.weights import load_backbone_weights
from reid_core.errors import ExportFailed, SettingsError
from reid_core.export import export_model
from reid_core.methods import METHODS
from reid_core.methods.bnneck import BnneckSettings
from reid_core.methods.qaconv import QACONV_PK, PairwiseSettings
from reid_core.model import load_model, save_model
from reid_core.settings import ImageSize
from reid_core.training.loop import Plan, fit
from tests.reid_core.images import make_images

ONE_OF_EACH_KIND: tuple[BackboneName, ...] = ("resnet18", "densenet121", "mobilenet_v2")


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
@pytest.mark.parametrize(("last_stride", "size"), [(2, (4, 2)), (1, (8, 4))])
def test_the_third_stage_as_the_last_one_has_the_last_stride(
    name: BackboneName, last_stride: int, size: tuple[int, int]
) -> None:
    backbone = build_backbone(name, last_stride=2).eval()
    backbone.drop_last_stage(last_stride=last_stride)
    maps = backbone(torch.zeros(1, 3, 64, 32))
    assert len(maps) == len(backbone.channels) == 3
    assert maps[2].shape[1:] == (backbone.channels[2], *size)
    assert maps[1].shape[2:] == (8, 4)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
@pytest.mark.parametrize("last_stride", [1, 2])
def test_a_matchers_map_has_the_shape_that_its_network_names(name: BackboneName, last_stride: int) -> None:
    image = ImageSize(height=64, width=32)
    instance_norm = "none" if name.startswith("densenet") else "block"
    settings = PairwiseSettings(backbone=name, image=image, last_stride=last_stride, instance_norm=instance_norm)
    with torch.device("meta"):
        network = QACONV_PK.build_network(settings, 2).eval()
        feature_map = network(torch.zeros(1, 3, 64, 32)).feature_map
    channels, height, width = feature_map.shape[1:]
    assert (height, width, channels) == network.map_shape == (64 // (8 * last_stride), 32 // (8 * last_stride), 64)


MODERN: tuple[Literal["vit_b_16", "swin_t", "convnext_tiny"], ...] = ("vit_b_16", "swin_t", "convnext_tiny")


@pytest.mark.parametrize("name", MODERN)
def test_modern_backbones_take_torchvisions_weights_and_give_what_its_networks_compute(name: str) -> None:
    from torchvision import models  # behind the guard that our backbones bring

    torch.manual_seed(0)
    theirs = models.get_model(name, weights=None).eval()
    backbone = build_global_backbone(name, last_stride=2).eval()  # type: ignore[arg-type]
    transfer = load_backbone_weights(backbone, theirs.state_dict(), source="torchvision's")
    assert transfer.kept == ()
    assert all(left.startswith(("head", "heads.", "classifier.")) for left in transfer.left_out)

    before_head: list[torch.Tensor] = []
    head = {"vit_b_16": "heads", "swin_t": "head", "convnext_tiny": "classifier"}[name]
    theirs.get_submodule(head).register_forward_pre_hook(lambda module, inputs: before_head.append(inputs[0]))
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        theirs(images)
        feature, _ = pool(backbone, images)
    torch.testing.assert_close(feature, before_head[0].flatten(1))


@pytest.mark.parametrize(("name", "size"), [("vit_b_16", (8, 4)), ("swin_t", (4, 2)), ("convnext_tiny", (4, 2))])
def test_modern_backbones_take_images_of_other_sizes(name: GlobalBackboneName, size: tuple[int, int]) -> None:
    backbone = build_global_backbone(name, last_stride=2).eval()
    with torch.no_grad():
        feature, feature_map = pool(backbone, torch.rand(2, 3, 128, 64))
        other, _ = pool(backbone, torch.rand(2, 3, 64, 64))
    assert feature.shape == other.shape == (2, 768)
    assert feature_map.shape == (2, 768, *size)


@pytest.mark.parametrize("name", MODERN)
def test_modern_backbones_bring_their_authors_recipe_to_methods_of_one_feature(name: str) -> None:
    asked = {"backbone": name, "schedule": {"epochs": 2}}
    chosen = METHODS["bnneck"].choose_settings(asked)
    assert isinstance(chosen, BnneckSettings)
    recipe = RECIPES[name]
    assert (chosen.last_stride, chosen.optimizer, chosen.schedule.shape) == (2, recipe["optimizer"], "cosine")
    assert chosen.schedule.base_lr == recipe["schedule"]["base_lr"]
    assert METHODS["bnneck"].choose_settings({**asked, "optimizer": "adam"}).optimizer == "adam"  # type: ignore[attr-defined]
    assert METHODS["finetune-resnet50"].choose_settings(asked).weight_decay == recipe["weight_decay"]
    with pytest.raises(SettingsError, match="last stride"):
        build_global_backbone(name, last_stride=1)  # type: ignore[arg-type]
    for method in ("qaconv-gs", "pyramid", "mgn", "ptl-resnet50"):
        with pytest.raises(SettingsError, match="backbone"):
            METHODS[method].choose_settings(asked)


def test_a_modern_backbone_is_trained_and_exported(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images", identities=2, each=2, height=64, width=32)
    asked = {
        "backbone": "swin_t",
        "image": {"height": 64, "width": 32},
        "batch": {"identities": 2, "images_per_identity": 2},
        "schedule": {"epochs": 1},
        "precision": "fp32",
    }
    method = METHODS["bnneck"]
    settings = method.choose_settings(asked)
    result = fit(Plan(method, settings, images, 0, torch.device("cpu")), tmp_path)
    assert all(math.isfinite(loss) for _, loss in result.history["loss"])

    folder = tmp_path / "model"
    folder.mkdir()
    save_model(
        folder,
        result.network,
        method="bnneck",
        settings=settings,
        num_classes=result.num_classes,
        preprocessing=result.preprocessing,
    )
    model = load_model(folder, torch.device("cpu"))
    paths = [image.path for image in images]
    (tmp_path / "onnx").mkdir()
    assert export_model(model, "onnx", tmp_path / "onnx", paths)[1].embeddings < 1e-3
    (tmp_path / "openvino").mkdir()
    with pytest.raises(ExportFailed, match="OpenVINO cannot read the network") as refused:
        export_model(model, "openvino", tmp_path / "openvino", paths)
    assert refused.value.hint == "Export it as onnx."
