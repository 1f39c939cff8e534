"""Imported models: networks that were trained elsewhere, checked, in a folder and a row like those trained here."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError

from reid_core.data.preprocessing import Preprocessing, preprocessing_from_json
from reid_core.errors import CoreError, Fault, WeightsError
from reid_core.external import EXTERNAL, NETWORK_NAME
from reid_core.external.checking import FILE, Facts
from service.db import audit
from service.db.session import Database
from service.db.tables import Model
from service.errors import Problem, problem_at, problem_from_core
from service.models.bundle import Contents, open_bundle, refuse_bundle, save_calibrations, save_contents
from service.models.engines import engine_of_row
from service.models.import_schemas import BundleForm, NetworkForm, NetworkManifest, WeightsForm
from service.models.lifecycle import check_name_is_free, describe_file
from service.settings import Settings
from service.storage import claim, delete_tree, publish_folder

if TYPE_CHECKING:  # brings PyTorch
    from reid_core.engines.publishing import Published
    from reid_core.model import Manifest

logger = logging.getLogger(__name__)

_SUFFIX = "-import"

_NO_LINEAGE: dict[str, Any] = {"datasets": [], "parent": None, "init_from": None, "teacher": None}


@dataclass(frozen=True, slots=True)
class Upload:
    """A file with a network in it, where it lies, its name on the sender's machine, and what was said of it."""

    path: Path
    filename: str
    form: WeightsForm | NetworkForm | BundleForm


@contextmanager
def import_folder(settings: Settings, model_id: str) -> Iterator[Path]:
    """A folder for an import, which is gone at its end; `remove_lost_imports` leaves it alone until then."""
    folder = settings.uploads_dir / f"{model_id}{_SUFFIX}"
    with claim(folder):
        try:
            yield folder
        except BaseException:
            delete_tree(folder)
            raise


def remove_lost_imports(settings: Settings) -> None:
    """Removes the folders of imports whose process was killed."""
    for folder in settings.uploads_dir.glob(f"mdl_*{_SUFFIX}"):
        with claim(folder):
            pass


def import_model(
    database: Database, settings: Settings, model_id: str, folder: Path, upload: Upload, *, key_id: str | None
) -> Model:
    """The new model, made in `folder`.

    Raises:
        Problem: 422 where the file is not what was said of it, or cannot be used; 409 where the name is taken.
    """
    making, form = folder / "model", upload.form
    making.mkdir()
    contents = open_bundle(upload.path, folder) if isinstance(form, BundleForm) else None
    name = form.name or (contents.name if contents else None)
    with database.read() as session:
        check_name_is_free(session, name)
    origin = {"file": upload.filename, **describe_file(upload.path)}
    if contents is not None:
        manifest = _save_bundled(settings, making, contents)
        save_calibrations(making, contents)
    elif isinstance(form, WeightsForm):
        manifest = _save_weights(making, upload.path, form)
    elif isinstance(form, NetworkForm):
        manifest = _save_network(settings, making, upload.path, form.manifest)
    engine = _publish_engine(settings, making)
    lineage = {**(contents.lineage if contents else _NO_LINEAGE), "imported": origin}
    row = _row(model_id, making, name, manifest, lineage, engine)
    final = settings.models_dir / model_id
    publish_folder(making, final)
    try:
        _add(database, row, key_id)
    except BaseException:
        delete_tree(final)
        raise
    return row


def _save_bundled(settings: Settings, making: Path, contents: Contents) -> Manifest:
    """An ONNX network is checked as any other is, whatever the bundle says of it."""
    manifest = contents.manifest
    if manifest.get("method") != EXTERNAL:
        return save_contents(making, contents)
    output = manifest["settings"].get("output") if isinstance(manifest.get("settings"), dict) else None
    try:
        said = NetworkManifest.model_validate({"input": manifest.get("preprocessing"), "output": output})
    except ValidationError as error:
        fault = error.errors()[0]
        refuse_bundle("wrong-preprocessing", f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}", error)
    return _save_network(settings, making, contents.network, said)


def _save_network(settings: Settings, making: Path, file: Path, said: NetworkManifest) -> Manifest:
    from reid_core.model import save_external_model

    network = file.rename(making / NETWORK_NAME)
    preprocessing = preprocessing_from_json(said.input.model_dump(mode="json"))
    facts = _check_apart(settings, network, preprocessing, said)
    return save_external_model(making, facts, preprocessing)


def _check_apart(settings: Settings, network: Path, preprocessing: Preprocessing, manifest: NetworkManifest) -> Facts:
    """Checks the network in a process of its own: a hostile file may bring that down, not the service."""
    command = [sys.executable, "-P", "-m", "reid_core.external.checking", str(network)]
    limit = settings.import_seconds
    asked = {"input": preprocessing.as_json(), "output": manifest.output, "threads": settings.threads, "seconds": limit}
    try:
        ended = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired as error:
        message = f"its check takes longer than REID_IMPORT_SECONDS = {limit:g}"
        raise _unchecked("too-slow", message, "Raise that setting.") from error
    if ended.returncode != 0:
        logger.warning("the check of a network ended with %s: %s", ended.returncode, ended.stderr[-2000:])
        message = f"its process ended with {ended.returncode}"
        hint = "The log has what it said. A network too large for this machine's memory ends so, and a damaged file."
        raise _unchecked("check-failed", message, hint)
    found = json.loads(ended.stdout)
    if "refused" in found:
        refused = found["refused"]
        fault = Fault(**refused["fault"])
        raise Problem("weights-unusable", refused["detail"], hint=refused["hint"], errors=[fault])
    return Facts(**found["facts"])


def _unchecked(code: str, message: str, hint: str) -> Problem:
    detail = f"The network cannot be checked: {message}."
    return Problem("weights-unusable", detail, hint=hint, errors=[Fault(FILE, code, message)])


def _save_weights(making: Path, file: Path, form: WeightsForm) -> Manifest:
    from reid_core.data.preprocessing import preprocessing_of
    from reid_core.methods import find_method
    from reid_core.model import save_model
    from reid_core.settings import override
    from reid_core.training.imported import read_network

    try:
        method = find_method(form.method)
    except CoreError as error:
        raise problem_at("/method", error) from error
    try:
        chosen = override(method.recipe, method.with_preset(form.settings))
        network, num_classes = read_network(file, method, chosen)
    except WeightsError as error:
        raise problem_at("/weights", error) from error
    except CoreError as error:
        raise problem_from_core(error, below="/settings") from error
    return save_model(
        making,
        network,
        method=method.name,
        settings=chosen,
        num_classes=num_classes,
        preprocessing=preprocessing_of(chosen),
    )


def _publish_engine(settings: Settings, making: Path) -> Published:
    """Compares on drawn people: there is no data set."""
    from reid_core.engines.publishing import COMPARED_IMAGES, publish_engine
    from reid_core.sample_data import draw_people

    return publish_engine(making, draw_people(COMPARED_IMAGES), settings.engine)


def _row(
    model_id: str, making: Path, name: str | None, manifest: Manifest, lineage: dict[str, Any], engine: Published
) -> Model:
    return Model(
        id=model_id,
        name=name or f"{manifest.method}-{model_id[-8:]}",
        method=manifest.method,
        settings=dict(manifest.settings),
        lineage=lineage,
        embedding_size=manifest.embedding_size,
        preprocessing=manifest.preprocessing.as_json(),
        files={path.name: describe_file(path) for path in sorted(making.iterdir())},
        engine=engine_of_row(engine),
    )


def _add(database: Database, row: Model, key_id: str | None) -> None:
    with database.write() as session:
        check_name_is_free(session, row.name)
        session.add(row)
        try:
            session.flush()
        except IntegrityError as error:  # another has taken it since
            raise Problem("name-taken", f"There is a model called {row.name!r} already.") from error
        audit.record(session, key_id=key_id, action="model.import", target=row.id, method=row.method)
