"""A tiny model, a small data set and images to upload, for the tests of galleries and search."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image

from reid_core.data.preprocessing import preprocessing_of
from reid_core.methods import METHODS
from reid_core.model import TrainedModel, load_model, save_model
from reid_core.retrieval.encoder import Encoder
from reid_core.settings import override
from service.db.ids import new_id, new_ids
from service.db.session import Database
from service.db.tables import Dataset, DatasetImage, Model
from service.settings import Settings
from tests.reid_core.images import make_images

SIZE = 512
MAP_SHAPE = (4, 2, 8)
MATCHER_SIZE = MAP_SHAPE[0] * MAP_SHAPE[2]
"""Of the vector that the matcher derives from its map."""


def save_tiny_model(folder: Path) -> None:
    """An untrained network that is quick and tells colours apart."""
    _save(folder, "bnneck", {"image": {"height": 32, "width": 16}})


def save_tiny_matcher(folder: Path) -> None:
    """An untrained network whose maps have `MAP_SHAPE`."""
    _save(folder, "qaconv-pk", {"image": {"height": 64, "width": 32}, "neck_channels": MAP_SHAPE[2]})


def _save(folder: Path, name: str, overrides: dict[str, Any]) -> None:
    method = METHODS[name]
    settings = override(method.recipe, {"backbone": "resnet18", **overrides})
    torch.manual_seed(0)
    network = method.build_network(settings, 4)
    folder.mkdir(parents=True)
    preprocessing = preprocessing_of(settings)
    save_model(folder, network, method=name, settings=settings, num_classes=4, preprocessing=preprocessing)


def add_model_row(
    database: Database, model_id: str, name: str = "tiny", *, method: str = "bnneck", size: int = SIZE
) -> Model:
    row = Model(
        id=model_id,
        name=name,
        method=method,
        settings={},
        lineage={},
        embedding_size=size,
        preprocessing={},
        files={"weights.safetensors": {"bytes": 1, "sha256": "0"}, "manifest.json": {"bytes": 1, "sha256": "0"}},
    )
    with database.write() as session:
        session.add(row)
    return row


def add_dataset(database: Database, folder: Path, **changes: Any) -> Dataset:
    """A registered data set with 4 identities on 2 cameras, 3 images each, as its gallery split."""
    images = make_images(folder)
    dataset = Dataset(
        id=new_id("ds"), name="lobby", path=str(folder), format="auto", state="ready", uploaded=False, **changes
    )
    rows = [
        DatasetImage(
            id=image_id,
            dataset_id=dataset.id,
            split="gallery",
            position=position,
            path=image.path.name,
            identity=image.identity,
            camera=image.camera,
        )
        for position, (image_id, image) in enumerate(zip(new_ids("img", len(images)), images, strict=True))
    ]
    with database.write() as session:
        session.add(dataset)
        session.flush()
        session.add_all(rows)
    return dataset


def load(settings: Settings, model_id: str) -> TrainedModel:
    """As a worker does."""
    return load_model(settings.models_dir / model_id, torch.device("cpu"))


def encoder_for(settings: Settings, model_id: str) -> Encoder:
    return load(settings, model_id).encoder()


def image_file(seed: int, format: str = "PNG", size: tuple[int, int] = (16, 32)) -> bytes:
    """An image of coloured stripes, another for every seed."""
    colours = np.random.default_rng(seed).integers(0, 255, (4, 1, 3), dtype=np.uint8)
    image = Image.fromarray(np.repeat(colours, 8, axis=0).repeat(16, axis=1)).resize(size)
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def make_gallery(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = client.post("/galleries", json={"name": "hall", "model": "tiny", **fields})
    assert answer.status_code in (201, 202), answer.text
    body: dict[str, Any] = answer.json()
    return body


def upload(
    client: httpx.Client, gallery: str, contents: Sequence[bytes], metadata: Sequence[dict[str, Any]] | None = None
) -> httpx.Response:
    """Adds images called `0.png`, `1.png`, ..."""
    files = [("files", (f"{number}.png", content, "image/png")) for number, content in enumerate(contents)]
    data = {} if metadata is None else {"metadata": json.dumps(metadata)}
    return client.post(f"/galleries/{gallery}/images", files=files, data=data)


def added_ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 201, answer.text
    return [item["image"] for item in answer.json()["added"]]


def found_ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [result["image_id"] for result in answer.json()["results"]]


def files_containing(folder: Path, needle: bytes) -> list[str]:
    """Names of the files anywhere in `folder` that hold these bytes."""
    return [str(path) for path in sorted(folder.rglob("*")) if path.is_file() and needle in path.read_bytes()]
