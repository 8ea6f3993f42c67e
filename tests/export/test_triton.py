"""A model repository: what Triton reads of it, held against the fields of its own model_config.proto; its builds."""

from __future__ import annotations

import shlex
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from edgemtl.bundle import read_manifest
from edgemtl.devices import load_device
from edgemtl.errors import UserError
from edgemtl.export import Evidence, ExportRequest, Plain, Tolerance, export_triton
from edgemtl.runtime import Engine
from edgemtl.targets import lint
from edgemtl.tasks import by_tensor
from edgemtl.testing import images, samples_for, small_net

NET = small_net("fused", widths=(16, 24))
SAMPLES = samples_for(NET, 3)
EVIDENCE = Evidence(SAMPLES, SAMPLES, tolerance=Tolerance(reduced_metric=2.0))
ORIN = load_device("jetson-orin-nano")
REQUEST = ExportRequest("tensorrt", ORIN, jetpack="6.2")
NAMES = [task.name for task in NET.tasks]
MESSAGES: dict[str, dict[str, tuple[str, int]]] = {
    "Input": {"name": ("string", 1), "data_type": ("DataType", 2), "dims": ("int64*", 4)},
    "Output": {"name": ("string", 1), "data_type": ("DataType", 2), "dims": ("int64*", 3)},
    "Specific": {"versions": ("int64*", 1)},
    "Policy": {"specific": ("Specific", 3)},
    "Group": {"name": ("string", 1), "count": ("int32", 2), "kind": ("Kind", 4)},
    "Config": {
        "name": ("string", 1), "platform": ("string", 2), "version_policy": ("Policy", 3),
        "max_batch_size": ("int32", 4), "input": ("Input*", 5), "output": ("Output*", 6),
        "instance_group": ("Group*", 7), "default_model_filename": ("string", 8),
    },
}  # fmt: skip
"""What is used of Triton's model_config.proto: types by field, `*` where repeated, with their numbers."""
ENUMS = {
    "DataType": {"TYPE_INVALID": 0, "TYPE_UINT8": 2, "TYPE_INT64": 9, "TYPE_FP32": 11},
    "Kind": {"KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2},
}


@cache
def config_class() -> Any:
    """The message of a model's configuration."""
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="inference", syntax="proto3")
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    plain = {"string": 9, "int64": 3, "int32": 5}
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (kind, number) in fields.items():
            bare = kind.rstrip("*")
            made = message.field.add(name=field, number=number, label=3 if kind.endswith("*") else 1)
            made.type = plain.get(bare, 14 if bare in ENUMS else 11)
            if bare not in plain:
                made.type_name = f".inference.{bare}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.Config"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton") / "repository"
    precision = {"engine": "fp16", **dict.fromkeys(list(NET.blocks)[::2], "int8")}
    export_triton(NET, precision, REQUEST, folder, EVIDENCE)
    return folder


def test_it_has_a_model_of_all_tasks_and_one_of_each(repository: Path) -> None:
    manifest = read_manifest(repository)
    assert manifest.layout == "triton" and manifest.modes == (tuple(NAMES), *((name,) for name in NAMES))
    models = {path.parent.name: path for path in repository.glob("models/*/config.pbtxt")}
    assert set(models) == {"all-tasks", *NAMES}
    for name, path in models.items():
        config = text_format.Parse(path.read_text(), config_class()())
        assert (config.name, config.platform, config.max_batch_size) == (name, "tensorrt_plan", 0)
        assert list(config.version_policy.specific.versions) == [1]
        assert (path.parent / "1").is_dir() and config.default_model_filename == "model.plan"
        (graph,) = (path.parent / "1").glob("*.onnx")
        model = onnx.load(graph)
        assert lint(model, "10.3") == [] and not [node for node in model.graph.node if node.op_type == "If"]
        for declared, infos in ((config.input, model.graph.input), (config.output, model.graph.output)):
            assert [each.name for each in declared] == [info.name for info in infos]
            shapes = [[size.dim_value for size in info.type.tensor_type.shape.dim] for info in infos]
            assert [list(each.dims) for each in declared] == shapes
            assert {each.data_type for each in declared} == {ENUMS["DataType"]["TYPE_FP32"]}
        assert len(config.output) == (len(NAMES) if name == "all-tasks" else 1)


def test_a_model_answers_its_tasks(repository: Path) -> None:
    image = images(1)
    with torch.no_grad():
        expected = by_tensor(NET(image))
    for name in ("all-tasks", "depth"):
        (graph,) = (repository / "models" / name / "1").glob("*.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(graph.read_bytes(), options, providers=["CPUExecutionProvider"])
        (value,), exact = session.run(["depth"], {"image": image.numpy()}), expected["depth"].numpy()
        assert np.linalg.norm(value - exact) < 0.3 * np.linalg.norm(exact)


def test_the_script_builds_every_model_where_triton_looks_for_it(repository: Path, tmp_path: Path) -> None:
    """By a `trtexec` that writes down how it was called."""
    words = tmp_path / "calls"
    tool = tmp_path / "trtexec"
    tool.write_text(f'#!/bin/sh\necho "$PWD $@" >> {shlex.quote(str(words))}\n')
    tool.chmod(0o755)
    script = repository / "models/build.sh"
    subprocess.run(["sh", str(script)], check=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    calls = [line.split() for line in words.read_text().splitlines()]
    assert [Path(call[0]).relative_to(repository / "models").as_posix() for call in calls] == [
        f"{name}/1" for name in ("all-tasks", *NAMES)
    ]
    for folder, *options in calls:
        assert "--saveEngine=model.plan" in options and "--stronglyTyped" in options
        (onnx_file,) = (option.removeprefix("--onnx=") for option in options if option.startswith("--onnx="))
        assert (Path(folder) / onnx_file).is_file()
        pool = "--memPoolSize=workspace:"
        (workspace,) = (int(option.removeprefix(pool)) for option in options if option.startswith(pool))
        assert 16 <= workspace <= 1024, "MiB"
        assert "--timingCacheFile=../../timings.cache" in options, "one for all models"


def test_pictures_in_and_predictions_out(tmp_path: Path) -> None:
    layout = Plain("depth", normalisation=True, postprocessing=True, form="triton")
    manifest = export_triton(NET, "fp32", REQUEST, tmp_path / "out", EVIDENCE, layout)
    config = text_format.Parse((tmp_path / "out/models/all-tasks/config.pbtxt").read_text(), config_class()())
    assert [path.name for path in tmp_path.glob("out/models/*/")].count("all-tasks") == 1
    assert manifest.modes == (("depth",),)
    (image,) = config.input
    assert image.data_type == ENUMS["DataType"]["TYPE_UINT8"] and list(image.dims)[-1] == 3


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (ExportRequest("onnxruntime"), "--layout triton given for onnxruntime: .* --target tensorrt"),
        (ExportRequest(("tensorrt", "onnxruntime"), ORIN, jetpack="6.2"), "given for tensorrt and onnxruntime"),
        (ExportRequest("tensorrt", ORIN), "without a JetPack, whose trtexec builds its engines: add --jetpack 6.2"),
        (
            ExportRequest("tensorrt", load_device("jetson-agx-orin"), jetpack="6.2", dla=True),
            "trtexec reads no scales for INT8 on the DLA",
        ),
    ],
)
def test_what_triton_cannot_serve_is_one_line(request_: ExportRequest, expected: str, tmp_path: Path) -> None:
    precision = {"engine": "fp16", **dict.fromkeys(NET.blocks, "int8")}
    with pytest.raises(UserError, match=expected) as error:
        export_triton(NET, precision, request_, tmp_path / "out", EVIDENCE)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_a_repository_is_written_whole_and_opened_by_triton_alone(repository: Path) -> None:
    with pytest.raises(UserError, match=r"is there already, .*choose another --out"):
        export_triton(NET, "fp16", REQUEST, repository, EVIDENCE)
    with pytest.raises(UserError, match="has the layout triton"):
        Engine(repository)
