"""A model in one file: a zip archive, not compressed, of its weights, their manifest and where it comes from."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from pydantic import BaseModel, ValidationError, field_validator

from reid_core.calibration.record import FILE_NAME, read_calibrations
from reid_core.errors import Fault, WeightsError
from reid_core.external import EXTERNAL, NETWORK_NAME
from service.db.tables import Model
from service.errors import Problem, problem_at
from service.models.schemas import Lineage
from service.schemas import Name
from service.settings import Settings

if TYPE_CHECKING:  # brings PyTorch
    from reid_core.model import Manifest

FACTS, CALIBRATIONS, CARD = "bundle.json", FILE_NAME, "card.md"
_VERSION = 1
_MANIFEST, _WEIGHTS = "manifest.json", "weights.safetensors"
_NETWORKS = (_WEIGHTS, NETWORK_NAME)
_MOST_JSON_BYTES = 1024**2


class Facts(BaseModel):
    """The facts of a bundle that a model's row keeps, as answers show them."""

    name: Name
    lineage: Lineage

    @field_validator("lineage")
    @classmethod
    def _data_sets_have_ids(cls, lineage: Lineage) -> Lineage:
        if any("id" not in origin for origin in lineage.get("datasets", [])):
            raise ValueError("a data set without an id")
        return lineage


@dataclass(frozen=True, slots=True)
class Contents:
    """A bundle that was taken apart: where its network lies and, if it has one, the file of its calibrations; its
    manifest, and the name and lineage of the model."""

    network: Path
    calibrations: Path | None
    manifest: dict[str, Any]
    name: str
    lineage: dict[str, Any]


def write_bundle(model: Model, card: str, settings: Settings, sink: IO[bytes]) -> None:
    """Writes the model's bundle to `sink`, with its card for people; raises 404 where one of its files is gone.

    Exports and serving files are not in it: they are made again where it is taken in, and so is the card.
    """
    facts = {"version": _VERSION, "id": model.id, "name": model.name, "lineage": model.lineage}
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(FACTS, json.dumps(facts, indent=2))
        archive.writestr(CARD, card)
        for name in (_MANIFEST, NETWORK_NAME if model.method == EXTERNAL else _WEIGHTS, CALIBRATIONS):
            path = settings.models_dir / model.id / name
            if path.is_file():
                archive.write(path, name)
            elif name != CALIBRATIONS:
                raise Problem("not-found", f"File {name!r} of model {model.name!r} is gone from its folder.")


def open_bundle(path: Path, folder: Path) -> Contents:
    """Takes the bundle at `path` apart, its network into `folder`; raises 422 for anything but a bundle."""
    try:
        with zipfile.ZipFile(path) as archive:
            network = _check_entries(archive)
            facts, manifest = _read_json(archive, FACTS), _read_json(archive, _MANIFEST)
            taken_out = [_take_out(archive, name, folder) for name in (network, CALIBRATIONS)]
    except (zipfile.BadZipFile, OSError, ValueError, RecursionError) as error:
        refuse_bundle("unreadable", f"it cannot be read: {error}", error)
    if facts.get("version") != _VERSION:
        refuse_bundle("unknown-version", f"{FACTS} is not of version {_VERSION}")
    try:
        told = Facts.model_validate(facts)
    except ValidationError as error:
        fault = error.errors()[0]
        refuse_bundle("wrong-facts", f"{FACTS}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}", error)
    return Contents(folder / network, taken_out[1], manifest, told.name, dict(told.lineage))


def save_calibrations(making: Path, contents: Contents) -> None:
    """Puts the bundle's calibrations into `making`, if it has any; raises 422 where they cannot be read."""
    if contents.calibrations is None:
        return
    contents.calibrations.rename(making / CALIBRATIONS)
    try:
        read_calibrations(making)
    except WeightsError as error:
        raise problem_at("/bundle", error) from error


def save_contents(making: Path, contents: Contents) -> Manifest:
    """Writes weights and manifest of a bundled network of one of our methods into `making`.

    Raises:
        Problem: 422 where the weights are damaged or do not fit the manifest.
    """
    from reid_core.methods import find_method
    from reid_core.model import save_model
    from reid_core.retrieval.store import file_sha256
    from reid_core.training.imported import read_network

    manifest = contents.manifest
    if file_sha256(contents.network) != manifest.get("weights_sha256"):
        refuse_bundle("damaged", "the weights do not match the checksum in its manifest")
    try:
        method = find_method(str(manifest.get("method")))
        chosen = type(method.recipe).model_validate(manifest.get("settings"))
        network, num_classes = read_network(contents.network, method, chosen)
        preprocessing = _preprocessing(manifest)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        refuse_bundle("wrong-settings", f"its settings are not {method.name}'s: {where}: {fault['msg']}", error)
    except WeightsError as error:
        raise problem_at("/bundle", error) from error
    contents.network.unlink()
    return save_model(
        making,
        network,
        method=method.name,
        settings=chosen,
        num_classes=num_classes,
        preprocessing=preprocessing,
    )


def _preprocessing(manifest: dict[str, Any]) -> Any:
    from reid_core.data.preprocessing import preprocessing_from_json

    try:
        return preprocessing_from_json(manifest["preprocessing"])
    except (KeyError, TypeError, ValueError) as error:
        refuse_bundle("wrong-preprocessing", f"its preprocessing cannot be read: {error}", error)


def _check_entries(archive: zipfile.ZipFile) -> str:
    """The name of the network among the entries: these are those of a bundle, and no larger than the file."""
    entries = archive.infolist()
    names = sorted(entry.filename for entry in entries)
    needed = [name for name in names if name not in (CALIBRATIONS, CARD)]
    network = next((name for name in _NETWORKS if needed == sorted((FACTS, _MANIFEST, name))), None)
    if network is None:
        refuse_bundle(
            "other-files",
            f"it has to hold {FACTS}, {_MANIFEST}, one of {', '.join(_NETWORKS)}",
        )
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        refuse_bundle("compressed", "its files are compressed, those of a bundle are not")
    return network


def _take_out(archive: zipfile.ZipFile, name: str, folder: Path) -> Path | None:
    """The entry as a file in `folder`; None where there is no such entry."""
    if name not in archive.namelist():
        return None
    with archive.open(name) as source, (folder / name).open("wb") as file:
        shutil.copyfileobj(source, file)
    return folder / name


def _read_json(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    with archive.open(name) as file:
        text = file.read(_MOST_JSON_BYTES + 1)
    if len(text) > _MOST_JSON_BYTES:
        raise ValueError(f"{name} has more than {_MOST_JSON_BYTES:,} bytes")
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no object")
    return value


def refuse_bundle(code: str, message: str, cause: BaseException | None = None) -> NoReturn:
    """Raises the 422 problem of a bundle."""
    fault = Fault("/bundle", code, message)
    hint = "Send the file that GET /models/{id}/bundle gave, as it was."
    raise Problem("weights-unusable", f"The bundle cannot be used: {message}.", hint=hint, errors=[fault]) from cause
