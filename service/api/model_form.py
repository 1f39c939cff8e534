"""The form that a model is imported by: one file with the network, and the fields that say what it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from reid_core.data.labels import MAX_LABEL, normal_label
from reid_core.errors import Fault
from service.api.contents import check
from service.api.forms import Form, read_form
from service.errors import Problem, invalid_request
from service.models.import_schemas import BundleForm, NetworkForm, WeightsForm
from service.models.importing import Upload
from service.settings import Settings
from service.storage import ensure_free_space

_FORMS: dict[str, type[WeightsForm | NetworkForm | BundleForm]] = {
    "weights": WeightsForm,
    "onnx": NetworkForm,
    "bundle": BundleForm,
}
_NETWORKS = {
    "weights": {"type": "string", "format": "binary", "description": "a safetensors file of a method's network"},
    "onnx": {"type": "string", "format": "binary", "description": "an ONNX file"},
    "bundle": {"type": "string", "format": "binary", "description": "what GET /models/{id}/bundle gave"},
}
_JSON_FIELDS = ("manifest", "settings")
"""Fields that are JSON. They may come as files too: `curl -F manifest=@manifest.json` sends them so."""

_COPIES = 2
"""The form on disk, and the network taken out of it."""


def _schema(kind: str) -> dict[str, Any]:
    """The form's schema, in one piece: what it refers to would be looked for elsewhere in the description."""
    whole = _FORMS[kind].model_json_schema()
    parts = whole.pop("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, list):
            return [inlined(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return inlined(parts[value["$ref"].rpartition("/")[2]])
        return {name: inlined(item) for name, item in value.items()}

    schema: dict[str, Any] = inlined(whole)
    schema["properties"][kind] = _NETWORKS[kind]
    schema["required"] = [*schema.get("required", []), kind]
    return schema


IMPORT_BODY = {
    "required": True,
    "content": {"multipart/form-data": {"schema": {"oneOf": [_schema(kind) for kind in _FORMS]}}},
}
"""The request body as OpenAPI describes it."""


async def receive_model(request: Request, folder: Path, settings: Settings) -> Upload:
    """The upload, its file written to `folder` as it arrives.

    Raises:
        Problem: as `read_form`; 422 without exactly one network or for wrong fields, 507 when the disk gets too full.
    """

    def ensure_room(needed_bytes: int) -> None:
        ensure_free_space(folder, needed_bytes=needed_bytes, min_free_bytes=settings.min_free_bytes)

    announced = request.headers.get("content-length", "")
    ensure_room(_COPIES * int(announced) if announced.isdecimal() else 0)
    with (folder / "form").open("w+b") as sink:
        form = await read_form(request, sink, _admit, before_write=ensure_room)
        return await run_in_threadpool(_take, form, folder, settings)


def _admit(name: str, number: int) -> None:
    known = (*_FORMS, *_JSON_FIELDS)
    if name not in known:
        raise invalid_request(f"/{name}", "unknown", f"the files of this form are {', '.join(known)}")
    if number > 1 + len(_JSON_FIELDS):
        raise invalid_request(f"/{name}", "repeated", "exactly one network is needed")


def _take(form: Form, folder: Path, settings: Settings) -> Upload:
    networks = [file.field for file in form.files if file.field in _FORMS]
    if len(networks) != 1:
        message = f"exactly one of the files {', '.join(_FORMS)}"
        faults = [Fault(f"/{name}", "one-of", message) for name in _FORMS]
        hint = "Send safetensors as weights with its method, ONNX as onnx with its manifest, or a bundle."
        raise Problem("invalid-request", "A model is imported from one file.", hint=hint, errors=faults)
    (kind,) = networks
    fields: dict[str, Any] = {}
    for name, text in _texts(form, settings):
        if name in fields:
            raise invalid_request(f"/{name}", "repeated", "each field is given once")
        fields[name] = _parsed(text, name) if name in _JSON_FIELDS else text
    checked = check(_FORMS[kind], fields)
    ((filename, content),) = form.open_files(kind)
    with (folder / kind).open("wb") as file:
        shutil.copyfileobj(content, file)
    return Upload(folder / kind, _readable(filename), checked)


def _texts(form: Form, settings: Settings) -> Iterator[tuple[str, str | bytes]]:
    yield from form.texts
    for file in form.files:
        if file.field not in _JSON_FIELDS:
            continue
        if file.end - file.start > settings.max_json_bytes:
            detail = f"{file.field} has more than REID_MAX_JSON_BYTES = {settings.max_json_bytes:,} bytes."
            raise Problem("too-large", detail)
        yield file.field, form.open_files(file.field)[0][1].read()


def _parsed(text: str | bytes, field: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid_request(f"/{field}", "json-invalid", f"{field} is not JSON: {error}") from error


def _readable(filename: str) -> str:
    """The last part of a file's name, as a row may keep it."""
    name = PurePosixPath(filename.replace("\\", "/")).name
    return normal_label("".join(character for character in name if character.isprintable()))[:MAX_LABEL]
