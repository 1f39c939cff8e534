"""ONNX files made elsewhere are checked with reasons, and embed as their own numbers say."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from PIL import Image

from reid_core.data.preprocessing import NO_NORMALISATION, Preprocessing, open_image
from reid_core.errors import ExportFailed, WeightsError
from reid_core.export import Format, export_model
from reid_core.external import NETWORK_NAME
from reid_core.external.checking import NetworkRefused, check_network
from reid_core.methods import METHODS
from reid_core.model import TrainedModel, load_model, save_external_model
from reid_core.retrieval.encoder import torch_encoder
from tests.reid_core.onnx_files import EMBEDDING_SIZE, INPUT, OUTPUT, embed, make_nodes, make_weights, write_network
from tests.reid_core.test_export import as_input, make_model, make_paths, run_onnx, run_openvino
from tests.waiting import HANG_SECONDS

SEEN = Preprocessing(64, 32)
CAFFE = replace(SEEN, mean=(103.0, 116.0, 123.0), std=(1.0, 1.0, 2.0), colour="BGR", range=(0, 255))
AVERAGED = replace(CAFFE, flip_average=True)
FREE = ("height", "width")


def import_network(folder: Path, preprocessing: Preprocessing, **changes: Any) -> TrainedModel:
    folder.mkdir(parents=True)
    file = write_network(folder / NETWORK_NAME, **changes)
    save_external_model(folder, check_network(file, preprocessing, None), preprocessing)
    return load_model(folder, torch.device("cpu"))


def expected(paths: Sequence[Path], seen: Preprocessing) -> np.ndarray[Any, Any]:
    """By Pillow and numpy alone."""
    images = np.stack([np.asarray(open_image(path).resize((32, 64), Image.Resampling.BILINEAR)) for path in paths])
    pixels = images.transpose(0, 3, 1, 2).astype(np.float32)
    ordered = pixels[:, ::-1] if seen.colour == "BGR" else pixels
    scaled = ordered / 255 if seen.range == (0, 1) else ordered
    inputs = ((scaled - np.reshape(seen.mean, (3, 1, 1))) / np.reshape(seen.std, (3, 1, 1))).astype(np.float32)
    if not seen.flip_average:
        return embed(inputs)
    both = embed(inputs) + embed(np.ascontiguousarray(inputs[..., ::-1]))
    return np.asarray(both / np.linalg.norm(both, axis=1, keepdims=True))


@pytest.mark.parametrize("seen", [SEEN, CAFFE, AVERAGED])
@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_images_reach_the_network_as_its_manifest_says(seen: Preprocessing, batch: int | str, tmp_path: Path) -> None:
    model, paths = import_network(tmp_path / "model", seen, batch=batch), make_paths(tmp_path / "pictures")
    found = model.encoder().embed_files(paths[:7]).numpy()
    assert found == pytest.approx(expected(paths[:7], seen), abs=1e-5)
    assert (model.manifest.method, model.manifest.embedding_size, model.matching_head()) == (
        "external",
        EMBEDDING_SIZE,
        None,
    )


def test_the_check_says_what_it_found(tmp_path: Path) -> None:
    facts = check_network(write_network(tmp_path / "a.onnx", size=FREE, batch=2), SEEN, None)
    products = 24 * (3 * 8 * 8) * (64 // 8) * (32 // 8) + 24 * 24
    assert (facts.output, facts.embedding_size, facts.batch, facts.opset) == (OUTPUT, 24, 2, 13)
    assert (facts.weights, facts.operations) == (24 * 3 * 8 * 8 + 24 * 24, 2 * products)
    assert facts.activations == 2 * 24 * 8 * 4 + 3 * 24


RANDOM = [*make_nodes()[:-1], helper.make_node("RandomUniformLike", ["flat"], [OUTPUT])]
TRAINING = [
    *make_nodes()[:-1],
    helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[0]),
    helper.make_node("Sub", ["flat", "mean"], ["centred"]),
    helper.make_node("MatMul", ["centred", "matrix"], ["late"]),
    helper.make_node("Add", ["late", "bias"], [OUTPUT]),
]
CONSTANT = [
    *make_nodes()[:-1],
    helper.make_node("Mul", ["flat", "zero"], ["n"]),
    helper.make_node("Add", ["n", "bias"], [OUTPUT]),
]
NOTHING = [*make_nodes()[:-1], helper.make_node("Mul", ["flat", "zero"], [OUTPUT])]
INFINITE = [*make_nodes()[:-1], helper.make_node("Div", ["flat", "zero"], [OUTPUT])]
FLAT = [helper.make_node("Conv", [INPUT, "kernel"], [OUTPUT], strides=[8, 8])]
PLAIN = [
    helper.make_node("Cast", [INPUT], ["cast"], to=onnx.TensorProto.FLOAT),
    helper.make_node("Flatten", ["cast"], [OUTPUT]),
]
CUSTOM = [helper.make_node("Magic", [INPUT], [OUTPUT], domain="my.own")]
UNKNOWN = [helper.make_node("Magic", [INPUT], [OUTPUT])]
EXTRA = {"zero": np.zeros(1, np.float32), "bias": np.ones(24, np.float32)}

REFUSED: list[tuple[dict[str, Any], str, str, str]] = [
    ({"size": (128, 32)}, "/manifest/input/height", "other-size", "height 64, the network takes images of height 128"),
    ({"size": (64, 48)}, "/manifest/input/width", "other-size", "width 32, the network takes images of width 48"),
    ({"shape": ["n", 64, 32, 3]}, "/onnx", "input-shape", "64 channels (channels come last in it)"),
    ({"shape": ["n", 1, 64, 32]}, "/onnx", "input-shape", "1 channels"),
    ({"nodes": PLAIN, "shape": ["n", 3]}, "/onnx", "input-shape", "has 2 dimensions"),
    ({"nodes": PLAIN, "image_type": onnx.TensorProto.DOUBLE}, "/onnx", "input-type", "tensor(double)"),
    ({"nodes": RANDOM}, "/onnx", "not-deterministic", "other embeddings each time"),
    ({"nodes": TRAINING, **EXTRA}, "/onnx", "depends-on-batch", "away from that among others"),
    ({"nodes": CONSTANT, **EXTRA}, "/manifest/output", "constant", "the same embedding"),
    ({"nodes": NOTHING, **EXTRA}, "/onnx", "zero", "nothing but zeros"),
    ({"nodes": INFINITE, **EXTRA}, "/onnx", "not-finite", "not finite"),
    ({"nodes": FLAT}, "/manifest/output", "output-shape", "(N, 24, 8, 4)"),
    ({"outputs": (OUTPUT, "flat")}, "/manifest/output", "which-output", "'feature', 'flat'"),
]


@pytest.mark.parametrize(("changes", "pointer", "code", "said"), REFUSED)
def test_a_network_that_gives_no_embeddings_of_images_is_refused_with_the_reason(
    changes: dict[str, Any], pointer: str, code: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(NetworkRefused) as caught:
        check_network(write_network(tmp_path / "a.onnx", **changes), SEEN, None)
    assert (caught.value.fault.pointer, caught.value.fault.code) == (pointer, code)
    assert said in caught.value.detail


def test_an_output_is_chosen_by_name_and_others_are_listed(tmp_path: Path) -> None:
    file = write_network(tmp_path / "a.onnx", outputs=("flat", OUTPUT))
    assert check_network(file, SEEN, "flat").output == "flat"
    with pytest.raises(NetworkRefused, match="no output 'embedding'; there is 'flat', 'feature'"):
        check_network(file, SEEN, "embedding")


def test_a_network_that_takes_bytes_normalises_them_itself(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["bytes"], [INPUT], to=onnx.TensorProto.FLOAT), *make_nodes()]
    images = helper.make_tensor_value_info("bytes", onnx.TensorProto.UINT8, ["n", 3, 64, 32])
    model = onnx.load(write_network(tmp_path / "a.onnx", nodes=nodes))
    model.graph.input[0].CopyFrom(images)
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(NetworkRefused, match="normalised values do not fit") as caught:
        check_network(tmp_path / "a.onnx", SEEN, None)
    assert caught.value.fault.code == "normalised-twice"
    plain = replace(SEEN, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), range=(0, 255))
    assert check_network(tmp_path / "a.onnx", plain, None).embedding_size == EMBEDDING_SIZE


def with_other_file(file: Path) -> None:
    model = onnx.load(file)
    onnx.save(model, file, save_as_external_data=True, location="weights.bin", size_threshold=0)


def with_a_branch_in_another_file(file: Path) -> None:
    """The tensor that lies elsewhere is an attribute of a node of a branch."""
    elsewhere = helper.make_tensor("elsewhere", onnx.TensorProto.FLOAT, [1], [0.0])
    elsewhere.ClearField("float_data")
    elsewhere.data_location = onnx.TensorProto.EXTERNAL
    elsewhere.external_data.add(key="location", value="/etc/hostname")
    told = helper.make_tensor_value_info("told", onnx.TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Constant", [], ["told"], value=elsewhere)], "branch", [], [told])
    model = onnx.load(file)
    model.graph.node.append(helper.make_node("If", ["yes"], ["x"], then_branch=branch, else_branch=branch))
    onnx.save(model, file)


UNUSABLE = {
    "empty": (lambda file: file.write_bytes(b""), "not an ONNX file"),
    "random": (lambda file: file.write_bytes(bytes(range(256)) * 9), "not an ONNX file"),
    "a zip": (lambda file: file.write_bytes(b"PK\3\4" + bytes(300)), "not an ONNX file"),
    "cut off": (lambda file: file.write_bytes(file.read_bytes()[:-2000]), "not an ONNX file"),
    "weights elsewhere": (with_other_file, "'kernel' lie in another file"),
    "weights of a branch elsewhere": (with_a_branch_in_another_file, "'elsewhere' lie in another file"),
    "operator of their own": (lambda file: write_network(file, nodes=CUSTOM), "'Magic' is of 'my.own'"),
    "no operator": (lambda file: write_network(file, nodes=UNKNOWN), "cannot load"),
    "an old opset": (lambda file: write_network(file, opset=6), "opset 6; 7 is the least"),
    "a new opset": (lambda file: write_network(file, opset=99), "cannot load"),
    "other weights": (lambda file: write_network(file, matrix=np.ones((7, 7), np.float32)), "cannot"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_file_that_cannot_be_loaded_safely_is_refused_with_the_reason(kind: str, tmp_path: Path) -> None:
    file = write_network(tmp_path / "a.onnx")
    spoil, said = UNUSABLE[kind]
    spoil(file)
    with pytest.raises(WeightsError) as caught:
        check_network(file, SEEN, None)
    assert said in caught.value.detail
    assert caught.value.hint
    assert str(tmp_path) not in caught.value.detail


def test_the_check_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    file = write_network(tmp_path / "a.onnx")
    assert check_apart(file, SEEN)["facts"]["embedding_size"] == EMBEDDING_SIZE
    refused = check_apart(file, replace(SEEN, width=33))["refused"]
    assert refused["fault"]["pointer"] == "/manifest/input/width"
    assert refused["detail"] == "The manifest says width 33, the network takes images of width 32 alone."


def check_apart(file: Path, seen: Preprocessing) -> Any:
    command = [sys.executable, "-m", "reid_core.external.checking", str(file)]
    asked = json.dumps({"input": seen.as_json(), "output": None, "threads": 1, "seconds": 100})
    return json.loads(subprocess.run(command, input=asked, capture_output=True, text=True, check=True).stdout)


def test_its_process_ends_also_where_nobody_waits_for_it(tmp_path: Path) -> None:
    """A network that never ends: a loop whose condition stays true."""
    kinds = {"BOOL": ("before", "going"), "INT64": ("number",), "FLOAT": ("given", "kept")}
    types = {name: getattr(onnx.TensorProto, kind) for kind, names in kinds.items() for name in names}
    shapes = {name: ["n", EMBEDDING_SIZE] for name in kinds["FLOAT"]}
    known = {name: helper.make_tensor_value_info(name, kind, shapes.get(name, [])) for name, kind in types.items()}
    steps = [helper.make_node("Identity", [old], [new]) for old, new in (("before", "going"), ("given", "kept"))]
    body = helper.make_graph(
        steps, "body", [known["number"], known["before"], known["given"]], [known["going"], known["kept"]]
    )
    loop = helper.make_node("Loop", ["", "true", "flat"], ["late"], body=body)
    nodes = [*make_nodes()[:-1], loop, helper.make_node("MatMul", ["late", "matrix"], [OUTPUT])]
    file = write_network(tmp_path / "a.onnx", nodes=nodes, true=np.array(True))
    command = [sys.executable, "-m", "reid_core.external.checking", str(file)]
    asked = json.dumps({"input": SEEN.as_json(), "output": None, "threads": 1, "seconds": 2})
    ended = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert ended.returncode == -signal.SIGALRM, ended.stderr


def test_a_file_that_has_changed_is_not_loaded(tmp_path: Path) -> None:
    import_network(tmp_path / "model", SEEN)
    write_network(tmp_path / "model" / NETWORK_NAME, size=FREE)
    with pytest.raises(WeightsError, match="do not match their checksum"):
        load_model(tmp_path / "model", torch.device("cpu"))


@pytest.mark.parametrize(("seen", "opset"), [(SEEN, 7), (AVERAGED, 20)])
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_an_external_network_is_exported_with_what_stands_around_it(
    seen: Preprocessing, opset: int, format: Format, tmp_path: Path
) -> None:
    """Its embeddings are very short, which their direction does not suffer from."""
    short = make_weights()["matrix"] * np.float32(1e-8)
    model = import_network(tmp_path / "model", seen, size=FREE, opset=opset, matrix=short)
    paths = make_paths(tmp_path / "pictures")
    files, agreement = export_model(model, format, tmp_path, paths)
    (embeddings,) = (run_onnx if format == "onnx" else run_openvino)(files, as_input(paths, model))
    assert embeddings == pytest.approx(expected(paths, seen), abs=1e-4)
    assert agreement.pictures == len(paths)


def with_weights_as_inputs(file: Path) -> None:
    """As exporters wrote files before version 4 of the format."""
    model = onnx.load(file)
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    onnx.save(model, file)


def with_half_floats(file: Path) -> None:
    write_network(file, image_type=onnx.TensorProto.FLOAT16, nodes=after_cast())
    model = onnx.load(file)
    model.graph.node.append(helper.make_node("Cast", ["late"], [OUTPUT], to=onnx.TensorProto.FLOAT16))
    model.graph.node[-2].output[0] = "late"
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, file)


def after_cast() -> list[onnx.NodeProto]:
    first, *others = make_nodes()
    first.input[0] = "cast"
    return [helper.make_node("Cast", [INPUT], ["cast"], to=onnx.TensorProto.FLOAT), first, *others]


@pytest.mark.parametrize(("change", "rounding"), [(with_weights_as_inputs, 1e-4), (with_half_floats, 2e-3)])
def test_files_of_old_exporters_and_of_half_floats_are_served_and_exported(
    change: Callable[[Path], None], rounding: float, tmp_path: Path
) -> None:
    folder, paths = tmp_path / "model", make_paths(tmp_path / "pictures")
    folder.mkdir()
    change(write_network(folder / NETWORK_NAME))
    save_external_model(folder, check_network(folder / NETWORK_NAME, AVERAGED, None), AVERAGED)
    model = load_model(folder, torch.device("cpu"))
    assert model.encoder().embed_files(paths).numpy() == pytest.approx(expected(paths, AVERAGED), abs=rounding)
    files, agreement = export_model(model, "onnx", tmp_path, paths)
    assert agreement.embeddings < rounding
    (embeddings,) = run_onnx(files, as_input(paths, model))
    assert embeddings == pytest.approx(expected(paths, AVERAGED), abs=rounding)


def test_an_export_of_ours_comes_back(tmp_path: Path) -> None:
    """Its images are bytes, which it normalises itself."""
    ours, paths = make_model(METHODS["bnneck"], tmp_path / "ours"), make_paths(tmp_path / "pictures")
    (file,), _ = export_model(ours, "onnx", tmp_path, paths)
    folder = tmp_path / "back"
    folder.mkdir()
    file.rename(folder / NETWORK_NAME)
    size = ours.manifest.preprocessing
    plain = Preprocessing(size.height, size.width, *NO_NORMALISATION, range=(0, 255))
    save_external_model(folder, check_network(folder / NETWORK_NAME, plain, None), plain)
    back = load_model(folder, torch.device("cpu")).encoder().embed_files(paths)
    exact = torch_encoder(ours.network, size, ours.device, torch.float32)
    assert back.numpy() == pytest.approx(exact.embed_files(paths).numpy(), abs=1e-4)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_the_way_to_have_it(package: str, tmp_path: Path) -> None:
    file = write_network(tmp_path / "a.onnx")
    code = f"""
import sys
sys.modules["{package}"] = None
from reid_core.external.checking import _main
print(_main(sys.argv[1], {{"input": {SEEN.as_json()}, "output": None, "threads": 1}}))
"""
    told = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True).stdout
    assert package in told
    assert 'pip install "reid-search[export]"' in told


def test_a_network_of_a_fixed_batch_is_not_exported(tmp_path: Path) -> None:
    model, paths = import_network(tmp_path / "model", SEEN, batch=1), make_paths(tmp_path / "pictures")
    with pytest.raises(ExportFailed, match="takes images by 1 alone"):
        export_model(model, "onnx", tmp_path, paths)


def test_two_inputs_are_too_many(tmp_path: Path) -> None:
    second = helper.make_tensor_value_info("cameras", onnx.TensorProto.FLOAT, ["n", 24])
    nodes = [*make_nodes()[:-1], helper.make_node("Add", ["flat", "cameras"], [OUTPUT])]
    model = onnx.load(write_network(tmp_path / "a.onnx", nodes=nodes))
    model.graph.input.append(second)
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(NetworkRefused, match="this one has 'crops', 'cameras'"):
        check_network(tmp_path / "a.onnx", SEEN, None)
