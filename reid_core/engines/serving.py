"""Serving: a published model as searches and index jobs use it, run by the engine that is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from reid_core.devices import has_bf16_units
from reid_core.engines import EngineChoice
from reid_core.engines.files import FORMATS, FileEngine, failures_of
from reid_core.engines.publishing import Published, read_published
from reid_core.errors import ExportFailed, Fault, SettingsError, WeightsError
from reid_core.external import EXTERNAL
from reid_core.matching import FoldedHead
from reid_core.model import Manifest, load_model, read_manifest
from reid_core.retrieval.encoder import Encoder
from reid_core.retrieval.store import file_sha256


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded model: images to embeddings and maps, and what scores pairs of its maps (None where it has none)."""

    encoder: Encoder
    head: FoldedHead | None


def serve(folder: Path, device: torch.device, asked: EngineChoice) -> Served:
    """Loads the model in `folder`.

    "auto" is PyTorch on CUDA, and on CPUs the engine that the model was published with. An imported ONNX network is
    run by ONNX Runtime whatever is asked for: it is all there is of it.

    Raises:
        SettingsError: the engine that is asked for, or was published with, is not installed; the model has no file for
            it; or it runs on CPUs alone.
        WeightsError: a file is missing, damaged, or does not fit the manifest.
    """
    manifest, published = read_manifest(folder), read_published(folder)
    if manifest.method == EXTERNAL or _by_torch(published, device, asked):
        model = load_model(folder, device)
        return Served(model.encoder(), model.matching_head())
    encoder = _open(folder, manifest, published)
    return Served(encoder, load_model(folder, device).matching_head() if manifest.map_shape else None)


def _by_torch(published: Published, device: torch.device, asked: EngineChoice) -> bool:
    if asked == "torch" or (asked == "auto" and (device.type == "cuda" or published.name == "torch")):
        return True
    if device.type == "cuda":
        raise _impossible("needs-cpu", f"{asked} runs networks on CPUs, and the device is {device}", "Use auto.")
    if asked not in ("auto", published.name):
        message = f"the model was published for {published.name} and has no file for {asked}"
        raise _impossible("no-such-file", message, "Use auto, or publish it again with this setting.")
    return False


def _open(folder: Path, manifest: Manifest, published: Published) -> Encoder:
    name, file = published.name, folder / FORMATS[published.name].names[0]
    _check_files(folder, published)
    precision = published.precision if published.precision and has_bf16_units() else "fp32"
    try:
        with failures_of(name):
            run = FORMATS[name].open(file, precision, torch.get_num_threads())
    except ExportFailed as error:
        detail = f"{error.detail[0].lower()}{error.detail[1:].removesuffix('.')}"
        raise _impossible("no-such-engine", detail, f"{error.hint} REID_ENGINE=torch does without it.") from error
    return Encoder(FileEngine(run), manifest.preprocessing)


def _check_files(folder: Path, published: Published) -> None:
    hint = "Restore the file, or do without it by REID_ENGINE=torch."
    try:
        for name, sha256 in published.files.items():
            if file_sha256(folder / name) != sha256:
                raise WeightsError(f"The model's {name} does not match its checksum.", hint=hint)
    except OSError as error:
        raise WeightsError(f"The model's serving file cannot be read: {error}.", hint=hint) from error


def _impossible(code: str, message: str, hint: str) -> SettingsError:
    fault = Fault("/engine", code, message)
    return SettingsError(f"REID_ENGINE cannot be had here: {message}.", faults=[fault], hint=hint)
