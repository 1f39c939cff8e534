"""Exported files give what the service itself compares, or are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional

from reid_core.data.preprocessing import preprocessing_of
from reid_core.errors import ExportFailed
from reid_core.export import Format, export_model
from reid_core.external.runtime import import_onnxruntime
from reid_core.methods import METHODS
from reid_core.methods.method import Method
from reid_core.model import TrainedModel, load_model, save_model
from reid_core.network import Output
from reid_core.retrieval.encoder import torch_encoder
from reid_core.settings import override
from tests.reid_core.images import make_images
from tests.reid_core.test_methods import small

Run = Callable[[NDArray[np.uint8]], Sequence[NDArray[np.float32]]]

OPENVINO_ALONE = """
import sys
sys.modules["torch"] = sys.modules["openvino_telemetry"] = None
import numpy as np
import openvino
compiled = openvino.Core().compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
np.savez(sys.argv[3], *compiled([np.load(sys.argv[2])]).values())
"""


def make_model(method: Method, folder: Path, **changes: Any) -> TrainedModel:
    """An untrained model whose normalisations have statistics, as after training."""
    settings = override(small(method), changes)
    torch.manual_seed(4)
    network = method.build_network(settings, 5)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[operator]
    folder.mkdir(parents=True)
    preprocessing = preprocessing_of(settings)
    save_model(folder, network, method=method.name, settings=settings, num_classes=5, preprocessing=preprocessing)
    return load_model(folder, torch.device("cpu"))


def make_paths(folder: Path) -> list[Path]:
    """The first lies on its side and says so."""
    paths = [image.path for image in make_images(folder, height=64, width=32)]
    with Image.open(paths[0]) as image:
        lying, told = image.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    told[ExifTags.Base.Orientation] = 6  # turn it clockwise
    lying.save(paths[0], exif=told)
    return paths


def as_input(paths: Sequence[Path], model: TrainedModel) -> NDArray[np.uint8]:
    """As docs/export.md says."""
    told = model.manifest.preprocessing.as_json()
    size, method = (told["width"], told["height"]), Image.Resampling[told["interpolation"].upper()]
    resized = [ImageOps.exif_transpose(Image.open(path)).convert("RGB").resize(size, method) for path in paths]
    return np.stack([np.asarray(image).transpose(2, 0, 1) for image in resized])


def run_onnx(files: Sequence[Path], images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    return import_onnxruntime().InferenceSession(files[0]).run(None, {"pictures": images})  # type: ignore[no-any-return]


def run_openvino(files: Sequence[Path], images: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """In a process without PyTorch."""
    asked, told = files[0].with_name("asked.npy"), files[0].with_name("told.npz")
    np.save(asked, images)
    subprocess.run([sys.executable, "-c", OPENVINO_ALONE, str(files[0]), str(asked), str(told)], check=True)
    return list(np.load(told).values())


def check(method: Method, format: Format, folder: Path, *, flip_average: bool) -> list[Path]:
    model = make_model(method, folder / "model", flip_average=flip_average)
    paths = make_paths(folder / "pictures")
    progress: list[tuple[int, int]] = []
    files, agreement = export_model(
        model, format, folder, paths, on_progress=lambda done, total: progress.append((done, total))
    )
    assert progress[-1] == (len(paths), len(paths))
    assert agreement.pictures == len(paths)
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == sorted(path.name for path in files)

    wanted = torch_encoder(model.network, model.manifest.preprocessing, model.device, torch.float32).encode_files(
        paths, with_maps=model.manifest.map_shape is not None
    )
    assert len(paths) == 24
    for part in (slice(0, 1), slice(1, 3), slice(3, 24)):
        run = run_onnx if format == "onnx" else run_openvino
        embeddings, *maps = run(files, as_input(paths[part], model))
        assert embeddings == pytest.approx(wanted.embeddings[part].numpy(), abs=1e-4)
        assert len(maps) == (wanted.maps is not None)
        if wanted.maps is not None:
            assert maps[0] == pytest.approx(wanted.maps[part].numpy(), abs=1e-4)
    return files


def test_an_onnx_file_gives_the_embeddings_and_says_how_images_are_prepared(tmp_path: Path) -> None:
    (file,) = check(METHODS["bnneck"], "onnx", tmp_path, flip_average=False)
    told = import_onnxruntime().InferenceSession(file).get_modelmeta().custom_metadata_map
    preprocessing = json.loads(told["preprocessing"])
    assert (preprocessing["height"], preprocessing["width"], preprocessing["interpolation"]) == (32, 16, "bilinear")


@pytest.mark.slow
def test_an_openvino_file_gives_embeddings_and_maps_of_images_and_their_mirror_images(tmp_path: Path) -> None:
    files = check(METHODS["qaconv-gs"], "openvino", tmp_path, flip_average=True)
    assert [path.name for path in files] == ["model.xml", "model.bin"]
    assert "bicubic" in files[0].read_text()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_exported(name: str, format: Format, tmp_path: Path) -> None:
    check(METHODS[name], format, tmp_path, flip_average=False)


def test_a_file_that_differs_is_refused(tmp_path: Path) -> None:
    """The network changes after its file was written, when the first image has been compared."""
    model = make_model(METHODS["finetune-resnet50"], tmp_path / "model")

    def forget(done: int, total: int) -> None:
        if done == 1:
            with torch.no_grad():
                next(model.network.parameters()).mul_(-1)

    with pytest.raises(ExportFailed, match=r"onnx file gives is up to 0\.\d+ away from the model on 24 images"):
        export_model(model, "onnx", tmp_path, make_paths(tmp_path / "pictures"), on_progress=forget)


class Hollow(nn.Module):
    """Its maps are no numbers."""

    def forward(self, images: Tensor) -> Output:
        return Output(images.mean((2, 3)), feature_map=images * torch.nan)


def test_maps_that_are_no_numbers_agree_with_nothing(tmp_path: Path) -> None:
    model = replace(make_model(METHODS["qaconv-pk"], tmp_path / "model"), network=Hollow())
    with pytest.raises(ExportFailed, match="up to nan away"):
        export_model(model, "onnx", tmp_path, make_paths(tmp_path / "pictures"))


class Uneven(nn.Module):
    """Pools adaptively, which ONNX has not."""

    def forward(self, images: Tensor) -> Output:
        return Output(functional.adaptive_max_pool2d(images, (3, 1)).flatten(1))


def test_what_the_format_lacks_is_named(tmp_path: Path) -> None:
    model = replace(make_model(METHODS["bnneck"], tmp_path / "model"), network=Uneven())
    with pytest.raises(ExportFailed, match="adaptive_max_pool2d"):
        export_model(model, "onnx", tmp_path, make_paths(tmp_path / "pictures"))


@pytest.mark.slow
@pytest.mark.parametrize("package", ["onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_the_way_to_have_it(package: str, tmp_path: Path) -> None:
    make_model(METHODS["finetune-resnet50"], tmp_path / "model")
    (image, *_) = make_paths(tmp_path / "pictures")
    code = f"""
import sys, torch
from pathlib import Path
from reid_core.errors import ExportFailed
from reid_core.export import export_model
from reid_core.model import load_model
sys.modules["{package}"] = None
folder = Path(sys.argv[1])
try:
    export_model(load_model(folder / "model", torch.device("cpu")), "onnx", folder, [Path(sys.argv[2])])
except ExportFailed as error:
    print(error.detail, error.hint)
"""
    told = subprocess.run([sys.executable, "-c", code, tmp_path, image], capture_output=True, text=True, check=True)
    assert package in told.stdout
    assert 'pip install "reid-search[export]"' in told.stdout


def test_the_runtimes_tell_nobody_that_they_are_used(tmp_path: Path) -> None:
    """ONNX Runtime's telemetry begins with an identifier in the home folder, OpenVINO's is a package of its own."""
    code = """
import sys
from reid_core.engines.files import import_openvino
from reid_core.external.runtime import import_onnxruntime
import_onnxruntime()
import_openvino()
from openvino.tools.ovc import telemetry_utils
assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub", telemetry_utils.tm
assert sys.modules["openvino_telemetry"] is None
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment | {"HOME": str(tmp_path)})
    assert list(tmp_path.rglob("*")) == []
