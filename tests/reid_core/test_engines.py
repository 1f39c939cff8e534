"""Every method's network gives the same by every engine, and what differs is never served."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from reid_core.data.preprocessing import Preprocessing, open_image
from reid_core.devices import has_bf16_units
from reid_core.engines import EngineName, files
from reid_core.engines.files import FORMATS
from reid_core.engines.image_network import ImageNetwork
from reid_core.engines.publishing import COMPARED_IMAGES, RECORD_NAME, publish_engine, read_published
from reid_core.engines.serving import serve
from reid_core.errors import SettingsError, WeightsError
from reid_core.methods import METHODS
from reid_core.model import TrainedModel, load_model
from reid_core.retrieval.encoder import Encoder, torch_encoder
from tests.reid_core.images import make_images
from tests.reid_core.test_export import make_model

CPU = torch.device("cpu")
ENGINES: list[EngineName] = list(FORMATS)
REAL_CROPS = Path(os.environ.get("REID_TEST_CROPS", Path(__file__).parents[2] / "data" / "pku_reid"))
"""Market-1501's folders of real people; without them those tests are skipped."""


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [image.path for image in make_images(tmp_path_factory.mktemp("pictures"), height=64, width=32)]


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small model of the method, made once."""
    folder = tmp_path_factory.mktemp("models")

    def find(name: str) -> Path:
        if not (folder / name).exists():
            make_model(METHODS[name], folder / name)
        return folder / name

    return find


def exact(folder: Path) -> tuple[TrainedModel, Encoder]:
    model = load_model(folder, CPU)
    return model, torch_encoder(model.network, model.manifest.preprocessing, CPU, torch.float32)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", METHODS)
def test_embeddings_and_maps_are_those_of_pytorch(
    name: str, engine: EngineName, model_of: Callable[[str], Path], paths: list[Path]
) -> None:
    folder = model_of(name)
    published = publish_engine(folder, paths, engine)
    assert (published.name, published.reason, published.images) == (engine, None, COMPARED_IMAGES)
    assert published.difference is not None
    assert published.difference < 1e-4
    assert read_published(folder) == published
    served = serve(folder, CPU, engine)
    model, wanted = exact(folder)
    with_maps = model.manifest.map_shape is not None
    assert (served.head is None) == (not with_maps)
    for count in (1, 5):
        images = torch.stack([wanted.prepare(open_image(path)) for path in paths[:count]])
        right = wanted.encode_prepared(images, with_maps=with_maps)
        found = served.encoder.encode_prepared(images, with_maps=with_maps)
        assert found.embeddings.numpy() == pytest.approx(right.embeddings.numpy(), abs=1e-4)
        assert (found.maps is None) == (right.maps is None)
        if found.maps is not None and right.maps is not None:
            assert found.maps.numpy() == pytest.approx(right.maps.numpy(), abs=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_mirror_images_are_averaged_by_the_encoder(engine: EngineName, tmp_path: Path, paths: list[Path]) -> None:
    make_model(METHODS["qaconv-gs"], tmp_path / "model", flip_average=True)
    assert publish_engine(tmp_path / "model", paths, engine).name == engine
    _, wanted = exact(tmp_path / "model")
    images = torch.stack([wanted.prepare(open_image(path)) for path in paths[:3]])
    found, right = (
        encoder.encode_prepared(images, with_maps=True)
        for encoder in (serve(tmp_path / "model", CPU, "auto").encoder, wanted)
    )
    assert found.embeddings.numpy() == pytest.approx(right.embeddings.numpy(), abs=1e-4)
    assert found.maps is not None
    assert right.maps is not None
    assert found.maps.numpy() == pytest.approx(right.maps.numpy(), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", METHODS)
def test_they_agree_on_crops_of_real_people_in_the_size_of_the_recipe(
    name: str, engine: EngineName, tmp_path: Path
) -> None:
    crops = sorted(REAL_CROPS.glob("query/*"))
    if not crops:
        pytest.skip(f"{REAL_CROPS} has no crops")
    recipe = METHODS[name].recipe
    changes = {"image": recipe.image.model_dump(), "backbone": recipe.backbone, "precision": "fp32"}
    make_model(METHODS[name], tmp_path / "model", **changes)
    published = publish_engine(tmp_path / "model", crops, engine)
    assert (published.name, published.reason) == (engine, None)
    assert published.difference is not None
    assert published.difference < 1e-3


def with_wrong_mean(engine: EngineName) -> Any:
    """A format whose files take ImageNet's mean off twice, as the exports of other projects have done."""
    right = FORMATS[engine]

    def write(network: ImageNetwork, preprocessing: Preprocessing, path: Path) -> None:
        wrong = replace(preprocessing, mean=tuple(2 * value for value in preprocessing.mean))
        right.write(ImageNetwork(network._network, wrong, with_maps=False), wrong, path)

    return replace(right, write=write)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_wrong_normalisation_is_found_and_never_served(
    engine: EngineName, tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    make_model(METHODS["bnneck"], folder)
    monkeypatch.setitem(files.FORMATS, engine, with_wrong_mean(engine))
    published = publish_engine(folder, paths, engine)
    assert (published.name, published.refused, published.files) == ("torch", True, {})
    assert "away from PyTorch on 16 images; 0.001 is allowed" in str(published.reason)
    assert sorted(path.name for path in folder.iterdir()) == ["engine.json", "manifest.json", "weights.safetensors"]
    _, wanted = exact(folder)
    assert torch.equal(serve(folder, CPU, "auto").encoder.embed_files(paths), wanted.embed_files(paths))
    with pytest.raises(SettingsError, match=f"published for torch and has no file for {engine}"):
        serve(folder, CPU, engine)


def test_a_network_that_cannot_be_written_is_left_to_pytorch(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(METHODS["bnneck"], tmp_path / "model")

    def forward(network: ImageNetwork, images: torch.Tensor) -> Any:
        return (torch.linalg.svdvals(images.float().mean(1)),)

    monkeypatch.setattr(ImageNetwork, "forward", forward)
    published = publish_engine(tmp_path / "model", paths, "openvino")
    assert (published.name, published.refused) == ("torch", True)
    assert "openvino cannot run the network" in str(published.reason)


def test_a_model_from_before_is_run_by_pytorch(tmp_path: Path, paths: list[Path]) -> None:
    make_model(METHODS["bnneck"], tmp_path / "model")
    published = read_published(tmp_path / "model")
    assert published.name == "torch"
    assert "published before models had engines" in str(published.reason)
    _, wanted = exact(tmp_path / "model")
    assert torch.equal(serve(tmp_path / "model", CPU, "auto").encoder.embed_files(paths), wanted.embed_files(paths))


def test_pytorch_can_be_asked_for_at_any_time(tmp_path: Path, paths: list[Path]) -> None:
    make_model(METHODS["bnneck"], tmp_path / "model")
    assert publish_engine(tmp_path / "model", paths, "torch").refused is False
    assert publish_engine(tmp_path / "model", paths, "auto").name == "openvino"
    _, wanted = exact(tmp_path / "model")
    assert torch.equal(serve(tmp_path / "model", CPU, "torch").encoder.embed_files(paths), wanted.embed_files(paths))
    with pytest.raises(SettingsError, match="published for openvino and has no file for onnxruntime"):
        serve(tmp_path / "model", CPU, "onnxruntime")
    with pytest.raises(SettingsError, match="openvino runs networks on CPUs, and the device is cuda"):
        serve(tmp_path / "model", torch.device("cuda"), "openvino")


def test_a_missing_package_is_named(tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    make_model(METHODS["bnneck"], folder)
    publish_engine(folder, paths, "openvino")
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(SettingsError, match="openvino is not installed") as caught:
        serve(folder, CPU, "auto")
    assert "REID_ENGINE=torch" in caught.value.hint
    published = publish_engine(folder, paths, "openvino")
    assert (published.name, published.refused) == ("torch", True)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_damaged_serving_file_is_refused(engine: EngineName, tmp_path: Path, paths: list[Path]) -> None:
    folder = tmp_path / "model"
    make_model(METHODS["bnneck"], folder)
    published = publish_engine(folder, paths, engine)
    damaged = folder / list(published.files)[-1]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(WeightsError, match=f"{damaged.name} does not match its checksum"):
        serve(folder, CPU, "auto")
    damaged.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        serve(folder, CPU, "auto")
    assert load_model(folder, CPU).manifest.method == "bnneck"


def test_a_record_that_is_no_record_is_refused(tmp_path: Path) -> None:
    make_model(METHODS["bnneck"], tmp_path / "model")
    (tmp_path / "model" / RECORD_NAME).write_text(json.dumps({"name": "openvino", "speed": 3}))
    with pytest.raises(WeightsError, match="record of the model's engine cannot be read"):
        read_published(tmp_path / "model")


def test_bf16_is_taken_where_pytorch_takes_it_and_on_processors_with_units_alone(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    make_model(METHODS["bnneck"], folder, image={"height": 128, "width": 64}, precision="auto")
    published = publish_engine(folder, paths, "auto")
    assert published.precision == ("bf16" if has_bf16_units() else "fp32")
    _, wanted = exact(folder)
    monkeypatch.setattr("reid_core.engines.serving.has_bf16_units", lambda: False)
    found = serve(folder, CPU, "auto").encoder.embed_files(paths)
    assert found.numpy() == pytest.approx(wanted.embed_files(paths).numpy(), abs=1e-4)
    make_model(METHODS["bnneck"], tmp_path / "plain", image={"height": 128, "width": 64}, precision="fp32")
    assert publish_engine(tmp_path / "plain", paths, "auto").precision == "fp32"
