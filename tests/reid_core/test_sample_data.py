"""Drawn pedestrians: the same bytes for the same arguments, Market-1501's layout, and cameras that mislead pixels."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reid_core.errors import DatasetError
from reid_core.sample_data import write_sample_data

NAME = re.compile(r"(?P<identity>\d{4})_c(?P<camera>\d)s\d_\d{6}_\d{2}\.jpg")
FOLDERS = ("bounding_box_train", "query", "bounding_box_test")


@pytest.fixture(scope="module")
def lobby(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten people, three cameras, three images each."""
    folder = tmp_path_factory.mktemp("lobby")
    write_sample_data(folder, identities=10, cameras=3, pictures_per_camera=3, seed=5)
    return folder


def test_the_folders_and_names_are_those_of_market_1501(lobby: Path) -> None:
    assert sorted(path.name for path in lobby.iterdir()) == sorted(FOLDERS)
    assert all(NAME.fullmatch(path.name) for path in lobby.glob("*/*"))


def test_every_identity_has_its_images_from_every_camera(lobby: Path) -> None:
    seen = [_label(path) for path in lobby.glob("*/*") if _label(path)[0] != "0000"]
    assert len(seen) == 10 * 3 * 3
    assert {label: seen.count(label) for label in seen} == {
        (f"{n:04}", str(c)): 3 for n in range(1, 11) for c in range(1, 4)
    }


def test_nobody_is_in_training_and_in_the_test(lobby: Path) -> None:
    train = _identities(lobby / "bounding_box_train")
    test = _identities(lobby / "query") | _identities(lobby / "bounding_box_test")
    assert len(train) == 5
    assert not train & test


def test_every_query_has_its_person_in_the_gallery_from_another_camera(lobby: Path) -> None:
    queries = [_label(path) for path in (lobby / "query").iterdir()]
    gallery = [_label(path) for path in (lobby / "bounding_box_test").iterdir()]
    assert sorted(set(queries)) == sorted(queries)
    assert len(queries) == 5 * 3
    for identity, camera in queries:
        assert {other for person, other in gallery if person == identity} - {camera}


def test_a_few_distractors_are_in_the_gallery_only(lobby: Path) -> None:
    assert "0000" in _identities(lobby / "bounding_box_test")
    assert "0000" not in _identities(lobby / "query") | _identities(lobby / "bounding_box_train")


def test_images_have_the_size_asked_for(lobby: Path, tmp_path: Path) -> None:
    write_sample_data(tmp_path, identities=2, cameras=1, pictures_per_camera=2, height=60, width=31)
    assert {_load(path).size for path in lobby.glob("*/*")} == {(64, 128)}
    assert {_load(path).size for path in tmp_path.glob("*/*")} == {(31, 60)}


def test_the_same_arguments_give_the_same_bytes(lobby: Path, tmp_path: Path) -> None:
    write_sample_data(tmp_path, identities=10, cameras=3, pictures_per_camera=3, seed=5)
    assert _read(tmp_path) == _read(lobby)


def test_another_seed_gives_other_images(lobby: Path, tmp_path: Path) -> None:
    write_sample_data(tmp_path, identities=2, cameras=2, pictures_per_camera=2, seed=6)
    first = _read(lobby)
    assert all(content != first[name] for name, content in _read(tmp_path).items() if name in first)


def test_an_image_does_not_depend_on_how_many_there_are(lobby: Path, tmp_path: Path) -> None:
    write_sample_data(tmp_path, identities=3, cameras=2, pictures_per_camera=2, seed=5)
    more = _read(lobby)
    people = {name: content for name, content in _read(tmp_path).items() if "0000_" not in name}
    assert len(people) == 3 * 2 * 2
    assert all(more[name] == content for name, content in people.items())


def test_images_of_one_camera_look_more_alike_than_images_of_one_person(lobby: Path) -> None:
    paths = sorted(path for path in lobby.glob("*/*") if _label(path)[0] != "0000")
    pixels = np.stack([np.asarray(_load(path).resize((16, 32)), float).ravel() for path in paths])
    distances = np.linalg.norm(pixels[:, None] - pixels[None], axis=2)
    people, cameras = np.array([_label(path) for path in paths]).T
    same_person, same_camera = people[:, None] == people, cameras[:, None] == cameras
    assert distances[same_camera & ~same_person].mean() < distances[same_person & ~same_camera].mean()


def test_progress_is_told_after_every_image(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_sample_data(
        tmp_path, identities=2, cameras=1, pictures_per_camera=2, on_progress=lambda *step: told.append(step)
    )
    total = len(list(tmp_path.glob("*/*")))
    assert told == [(done, total) for done in range(1, total + 1)]


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="not an empty folder"):
        write_sample_data(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "sample"
    file.write_text("mine")
    with pytest.raises(DatasetError, match="not an empty folder"):
        write_sample_data(file)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"identities": 1}, "identities is 1; sample data can have 2 to 9999"),
        ({"cameras": 0}, "cameras is 0; sample data can have 1 to 9"),
        ({"cameras": 10}, "cameras is 10; sample data can have 1 to 9"),
        ({"pictures_per_camera": 1}, "pictures_per_camera is 1; sample data can have 2 to 99"),
        ({"seed": -1}, "seed is -1; sample data can have 0 to 4294967295"),
        ({"height": 8}, "height is 8; sample data can have 32 to 1024"),
        ({"width": 4000}, "width is 4000; sample data can have 16 to 512"),
    ],
)
def test_a_number_out_of_range_is_refused_before_anything_is_written(
    tmp_path: Path, numbers: dict[str, Any], message: str
) -> None:
    with pytest.raises(DatasetError, match=re.escape(message)):
        write_sample_data(tmp_path / "sample", **numbers)
    assert not (tmp_path / "sample").exists()


def _label(path: Path) -> tuple[str, str]:
    """Identity and camera."""
    name = NAME.fullmatch(path.name)
    assert name is not None
    return name["identity"], name["camera"]


def _identities(folder: Path) -> set[str]:
    return {_label(path)[0] for path in folder.iterdir()}


def _load(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _read(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*/*")}
