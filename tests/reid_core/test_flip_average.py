"""Flip averaging: an image and its mirror image are embedded alike, by a setting that goes with the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from reid_core.data.preprocessing import Preprocessing, preprocessing_from_json, preprocessing_of
from reid_core.data.tensors import normalise
from reid_core.methods import METHODS
from reid_core.methods.bnneck import BnneckSettings
from reid_core.model import MANIFEST_NAME, TrainedModel, load_model, save_model
from reid_core.network import Output
from reid_core.retrieval.encoder import Encoding, torch_encoder
from reid_core.sampling import Draw, Epoch
from reid_core.settings import TrainingSettings, override
from reid_core.training.loop import Plan, fit
from tests.reid_core.images import make_images as make_person_images

CPU = torch.device("cpu")
PLAIN = Preprocessing(16, 8)
AVERAGED = replace(PLAIN, flip_average=True)


class Tiny(nn.Module):
    """Tells left from right: its map has unit vectors, its embedding has weights of its own for every location."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 5, 3, padding=1)
        self.projection = nn.Linear(5 * 16 * 8, 6)

    def forward(self, images: Tensor) -> Output:
        feature_map = functional.normalize(self.convolution(images), dim=1)
        return Output(self.projection(feature_map.flatten(1)), feature_map=feature_map)


def make_images() -> Tensor:
    return torch.randint(0, 256, (4, 3, 16, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def encode(preprocessing: Preprocessing, images: Tensor) -> Encoding:
    return torch_encoder(Tiny(), preprocessing, CPU, torch.float32).encode_prepared(images, with_maps=True)


def maps_of(encoding: Encoding) -> Tensor:
    assert encoding.maps is not None
    return encoding.maps


def test_the_embedding_is_the_mean_with_that_of_the_mirror_image() -> None:
    images, network = make_images(), Tiny()
    with torch.no_grad():
        outputs = [network(normalise(one, PLAIN)).embedding for one in (images, images.flip(-1))]
    units = [output / output.norm(dim=1, keepdim=True) for output in outputs]
    mean = (units[0] + units[1]) / 2
    torch.testing.assert_close(encode(AVERAGED, images).embeddings, mean / mean.norm(dim=1, keepdim=True))
    assert not torch.allclose(encode(AVERAGED, images).embeddings, units[0], atol=1e-2)


def test_maps_are_averaged_where_the_same_place_meets_itself() -> None:
    images, network = make_images(), Tiny()
    with torch.no_grad():
        seen = network(normalise(images, PLAIN)).feature_map
        mirrored = network(normalise(images.flip(3), PLAIN)).feature_map
    got = maps_of(encode(AVERAGED, images))
    for column in range(8):
        mean = (seen[..., column] + mirrored[..., 7 - column]) / 2  # (N, c, h)
        torch.testing.assert_close(got[:, :, column], functional.normalize(mean, dim=1).transpose(1, 2))
    torch.testing.assert_close(got.norm(dim=3), torch.ones(4, 16, 8))


def test_an_image_and_its_mirror_image_are_encoded_alike() -> None:
    images = make_images()
    one, other = (encode(AVERAGED, each) for each in (images, images.flip(3)))
    torch.testing.assert_close(one.embeddings, other.embeddings)
    torch.testing.assert_close(maps_of(one), maps_of(other).flip(2))
    assert not torch.allclose(encode(PLAIN, images).embeddings, encode(PLAIN, images.flip(3)).embeddings, atol=1e-2)


def test_without_the_setting_an_image_is_seen_once_as_it_is() -> None:
    images, network = make_images(), Tiny()
    got = torch_encoder(network, PLAIN, CPU, torch.float32).encode_prepared(images, with_maps=True)
    inputs = normalise(images, PLAIN).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        output = network(inputs)
    assert torch.equal(got.embeddings, functional.normalize(output.embedding, dim=1))
    assert torch.equal(maps_of(got), output.feature_map.permute(0, 2, 3, 1))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_the_setting_and_it_is_off_but_for_mgn(name: str) -> None:
    recipe = METHODS[name].recipe
    assert preprocessing_of(recipe).flip_average == (name in ("mgn", "ptl-mgn"))
    assert not preprocessing_of(METHODS[name].choose_settings({"preset": "small"})).flip_average
    assert preprocessing_of(override(recipe, {"flip_average": True})).flip_average


def save(folder: Path, *, flip_average: bool) -> TrainingSettings:
    changes = {"backbone": "resnet18", "image": {"height": 32, "width": 16}, "flip_average": flip_average}
    method = METHODS["bnneck"]
    settings = override(method.recipe, changes)
    torch.manual_seed(0)
    folder.mkdir()
    save_model(
        folder,
        method.build_network(settings, 2),
        method=method.name,
        settings=settings,
        num_classes=2,
        preprocessing=preprocessing_of(settings),
    )
    return settings


def embed(model: TrainedModel, *, flip_average: bool | None = None) -> Tensor:
    image = torch.arange(3 * 32 * 16, dtype=torch.int64).remainder(251).to(torch.uint8).reshape(1, 3, 32, 16)
    return model.encoder(flip_average=flip_average).embed_prepared(image)


def test_a_model_averages_as_its_manifest_says_unless_told_otherwise(tmp_path: Path) -> None:
    save(tmp_path / "plain", flip_average=False)
    save(tmp_path / "averaged", flip_average=True)
    plain, averaged = (load_model(tmp_path / name, CPU) for name in ("plain", "averaged"))
    assert not torch.allclose(embed(plain), embed(averaged), atol=1e-3)
    assert torch.equal(embed(plain, flip_average=True), embed(averaged))
    assert torch.equal(embed(averaged, flip_average=False), embed(plain))


def test_a_manifest_of_an_earlier_version_does_not_average(tmp_path: Path) -> None:
    settings = save(tmp_path / "model", flip_average=False)
    file = tmp_path / "model" / MANIFEST_NAME
    manifest = json.loads(file.read_text())
    del manifest["preprocessing"]["flip_average"], manifest["settings"]["flip_average"]
    file.write_text(json.dumps(manifest))
    model = load_model(tmp_path / "model", CPU)
    assert model.manifest.preprocessing == preprocessing_of(settings)
    assert model.settings == settings


def test_samplers_and_the_finished_model_encode_as_the_settings_say(tmp_path: Path) -> None:
    method = METHODS["bnneck"]
    seen: list[tuple[Tensor, Tensor]] = []

    def draw_batches(settings: BnneckSettings, epoch: Epoch) -> Draw:
        again = torch_encoder(epoch.network, preprocessing_of(settings), CPU, torch.float32)
        paths = [image.path for image in images[:3]]
        seen.append((epoch.encode([0, 1, 2]).embeddings, again.embed_files(paths)))
        return method.draw_batches(settings, epoch)

    changes = {"backbone": "resnet18", "image": {"height": 32, "width": 16}, "batch": {"identities": 2}}
    settings = override(
        method.recipe, {**changes, "schedule": {"epochs": 1}, "flip_average": True, "precision": "fp32"}
    )
    images = make_person_images(tmp_path / "pictures", identities=2)
    result = fit(Plan(replace(method, draw_batches=draw_batches), settings, images, 0, CPU), tmp_path)
    ((ours, expected),) = seen
    torch.testing.assert_close(ours, expected)
    assert result.preprocessing.flip_average


def test_the_setting_survives_the_manifest() -> None:
    assert preprocessing_from_json(AVERAGED.as_json()) == AVERAGED
