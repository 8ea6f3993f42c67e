"""ONNX files as strangers have them: sizes left open, outputs listed twice, names of any length, '' as a name."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemtl.errors import UserError
from edgemtl.profiling import bounded as _bounded
from edgemtl.profiling import count_graph, profile
from edgemtl.profiling.inputs import InputChoice, ModelInput, made_up
from edgemtl.profiling.names import short_names
from edgemtl.profiling.profiler import _told_inputs, _wanted, visits
from edgemtl.profiling.subjects import ProfiledModel, open_subject

Info = onnx.ValueInfoProto


def weight(name: str, *shape: int) -> TensorProto:
    rng = np.random.default_rng(len(name))
    return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)


def whole(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def tensor(name: str, shape: Any, kind: int = TensorProto.FLOAT) -> Info:
    return helper.make_tensor_value_info(name, kind, shape)


def save(
    path: Path, nodes: list[onnx.NodeProto], inputs: list[Info], outputs: list[str], weights: list[TensorProto]
) -> Path:
    infos = [tensor(name, None) for name in outputs]
    graph = helper.make_graph(nodes, "g", inputs, infos, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def settled(path: Path, **shapes: tuple[int, ...]) -> ProfiledModel:
    """The file opened and run once, with sizes that were chosen."""
    subject = open_subject(path, choice=InputChoice(shapes))
    subject.settle()
    return subject


def macs(path: Path, **shapes: tuple[int, ...]) -> int:
    """MACs of all outputs, with sizes that were chosen."""
    cost = count_graph(path, choice=settled(path, **shapes).choice)
    assert cost.notes == ()
    return cost.total.flops // 2


def conv(source: str, target: str, name: str = "w") -> onnx.NodeProto:
    return helper.make_node("Conv", [source, name], [target], name=f"/{target[:300]}/Conv", pads=[1] * 4)


W = weight("w", 4, 3, 3, 3)


def test_an_omitted_optional_tensor_joins_no_heads(tmp_path: Path) -> None:
    nodes = [
        conv("x", "t"),
        helper.make_node("Conv", ["t", "wb"], ["b1"], name="/text/Conv", strides=[2, 2]),
        helper.make_node("Reshape", ["b1", "sq"], ["b2"]),
        helper.make_node("LSTM", ["b2", "W", "R"], ["", "hb"], hidden_size=8),
        helper.make_node("Squeeze", ["hb", "ax"], ["text"]),
        helper.make_node("Resize", ["t", "", "sc"], ["u"]),
        helper.make_node("Conv", ["u", "wa"], ["seg"], name="/seg/Conv"),
    ]
    scale = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "sc")
    weights = [W, weight("wb", 8, 4, 2, 2), whole("sq", 64, 1, 8), weight("W", 1, 32, 8), weight("R", 1, 32, 8)]
    weights += [whole("ax", 0), scale, weight("wa", 2, 4, 1, 1)]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [1, 3, 16, 16])], ["text", "seg"], weights)
    cost = count_graph(path)
    trunk, text, seg = 256 * 4 * 27, 64 * 8 * 16 + 64 * 2 * 32 * 8, 1024 * 2 * 4
    assert cost.trunk.flops == 2 * trunk
    assert {task: count.flops for task, count in cost.tasks.items()} == {"text": 2 * text, "seg": 2 * seg}
    kinds = {each.op for each in open_subject(path).operators(["seg"], 1)}
    assert "LSTM" not in kinds and any("Conv" in kind for kind in kinds)


def test_an_output_that_is_listed_twice_is_one_task(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [conv("x", "y")], [tensor("x", [1, 3, 8, 8])], ["y", "y"], [W])
    found = profile(path, runs=2)
    assert found.tasks == ("y",) and found.counts is not None
    assert found.counts.total.macs == 4 * 27 * 64
    three = [conv("x", "y"), helper.make_node("Relu", ["y"], ["z"])]
    path = save(tmp_path / "three.onnx", three, [tensor("x", [1, 3, 8, 8])], ["y", "z", "y"], [W])
    assert open_subject(path).tasks == ("y", "z")


@pytest.mark.parametrize("length", [80, 3000])
def test_names_of_any_length(tmp_path: Path, length: int) -> None:
    first, second = "a" * length, "a" * (length - 41) + "b" + "a" * 40
    nodes = [conv("x", first), helper.make_node("Relu", [first], [second], name="n" * length + "/Relu")]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [1, 3, 8, 8])], [first, second], [W])
    found = profile(path, runs=2, tasks=[first, second])
    assert len(set(found.tasks)) == 2 and all(len(task) <= 90 for task in found.tasks)
    assert found.counts is not None and found.counts.trunk.macs == 4 * 27 * 64
    assert _wanted(open_subject(path), first) == found.tasks[:1]


def test_short_forms_that_coincide_are_numbered() -> None:
    names = ["x" * 100, "x" * 101, "y", "y"]
    assert list(short_names(names).values()) == ["x" * 100, "x" * 101, "y"]
    assert [len(name) for name in short_names(names)] == [79, 83, 1]
    many = short_names(["x" * length for length in range(100, 3100)])
    assert len(many) == 3000 and list(many)[-1].endswith("x (3000)")


def test_a_batch_below_zero_is_open(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [conv("x", "y")], [tensor("x", [-1, 3, 8, 8])], ["y"], [W])
    assert settled(path).settle()[0] == [] and settled(path).choice.shapes == {"x": (1, 3, 8, 8)}
    assert macs(path) == 4 * 27 * 64
    gemm = helper.make_node("Gemm", ["x", "m"], ["y"])
    path = save(tmp_path / "gemm.onnx", [gemm], [tensor("x", [-1, 8])], ["y"], [weight("m", 8, 4)])
    assert macs(path) == 32


def test_open_height_and_width_are_chosen_or_assumed_and_said(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [conv("x", "y")], [tensor("x", ["n", 3, "h", "w"])], ["y"], [W])
    assumed = profile(path, runs=2)
    assert assumed.inputs == {"x": (1, 3, 256, 256)}
    assert assumed.notes == (
        "sizes that the file leaves open were assumed, 'x' as 1x3x256x256: choose with --shape x=1x3x256x256",
    )
    assert assumed.counts is not None and assumed.counts.total.macs == 4 * 27 * 256 * 256
    for name in ("x", ""):
        assert settled(path, **{name: (2, 3, 48, 64)}).choice.shapes == {"x": (2, 3, 48, 64)}
        assert settled(path, **{name: (2, 3, 48, 64)}).settle()[0] == []
        assert macs(path, **{name: (2, 3, 48, 64)}) == 2 * 4 * 27 * 48 * 64
    with pytest.raises(UserError, match=r"--shape x=1x4x48x64 does not fit m\.onnx, whose input 'x' is \?x3x\?x\?"):
        settled(path, x=(1, 4, 48, 64))
    with pytest.raises(UserError, match="does not fit"):
        settled(path, x=(3, 48, 64))


def test_sizes_that_the_net_does_not_take_end_in_one_line(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [1, None])], ["y"], [whole("s", 1, 10)])
    with pytest.raises(UserError, match=r"does not run on x=1x128 .*choose sizes with --shape") as error:
        settled(path)
    assert "\n" not in str(error.value)
    assert settled(path, x=(1, 10)).choice.shapes == {"x": (1, 10)}


def test_a_net_that_takes_one_size_alone_gets_it(tmp_path: Path) -> None:
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "m"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", ["n", 3, "h", "w"])], ["y"], [weight("m", 3 * 224 * 224, 2)])
    assert settled(path).choice.shapes == {"x": (1, 3, 224, 224)}
    assert macs(path) == 2 * 3 * 224 * 224
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [1, None, 3])], ["y"], [whole("s", 1, 32, 3)])
    assert settled(path).choice.shapes == {"x": (1, 32, 3)}


@pytest.mark.parametrize(
    ("axes", "sizes"),
    [
        (["n", "h", "w", 3], (1, 256, 256, 3)),
        ([None, None, None, None], (1, 3, 256, 256)),
        (["n", "length", 16], (1, 128, 16)),
        ([-1, -1], (1, 128)),
        (["n"], (1,)),
        ([3, "batch", "length"], (3, 1, 128)),
        ([None, None, None, "h", "w"], (1, 3, 64, 64, 64)),
        ([], ()),
        ([0, 3], (0, 3)),
        ([1, 3, -1, 8], (1, 3, 256, 8)),
    ],
)
def test_what_open_axes_become(tmp_path: Path, axes: list[Any], sizes: tuple[int, ...]) -> None:
    path = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], [tensor("x", axes)], ["y"], [])
    assert settled(path).choice.shapes == {"x": sizes}


def test_axes_of_one_name_have_one_size(tmp_path: Path) -> None:
    inputs = [tensor("ids", ["n", "length"], TensorProto.INT64), tensor("mask", ["length"])]
    nodes = [helper.make_node("Gather", ["m", "ids"], ["e"]), helper.make_node("ReduceSum", ["mask"], ["s"])]
    nodes += [helper.make_node("MatMul", ["e", "w"], ["p"]), helper.make_node("Mul", ["p", "s"], ["y"])]
    weights = [weight("m", 5, 8), weight("w", 8, 4)]
    path = save(tmp_path / "m.onnx", nodes, inputs, ["y"], weights)
    assert settled(path).choice.shapes == {"ids": (1, 128), "mask": (128,)}
    assert macs(path) == 128 * 8 * 4
    assert settled(path, mask=(7,)).choice.shapes == {"ids": (1, 7), "mask": (7,)}
    with pytest.raises(UserError, match=r"has 2 inputs: say which, --shape NAME=SIZES, of ids, mask"):
        settled(path, **{"": (1, 7)})


def test_ids_are_zero_where_a_table_has_one_row(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gather", ["m", "ids"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [tensor("ids", [1, 4], TensorProto.INT64)], ["y"], [weight("m", 1, 8)])
    assert settled(path).choice.integers == 0
    assert profile(path, runs=2).opening is not None


def test_inputs_that_nobody_reads_and_inputs_of_other_types(tmp_path: Path) -> None:
    inputs = [tensor("x", [1, 3, 8, 8]), tensor("unread", ["k", "h", "w", 4]), tensor("flag", [], TensorProto.BOOL)]
    inputs += [tensor("level", [2], TensorProto.UINT16), tensor("text", ["m"], TensorProto.STRING)]
    inputs.append(tensor("half", [1, 4, 8, 8], TensorProto.FLOAT16))
    nodes = [conv("x", "y"), helper.make_node("Cast", ["half"], ["h"], to=TensorProto.FLOAT)]
    nodes.append(helper.make_node("Add", ["y", "h"], ["z"]))
    path = save(tmp_path / "m.onnx", nodes, inputs, ["y", "z"], [W])
    found = profile(path, runs=2)
    assert found.inputs["unread"] == (1, 256, 256, 4) and found.inputs["text"] == (1,)
    assert found.counts is not None and found.counts.trunk.macs == 4 * 27 * 64
    assert [mode.name for mode in found.modes] == ["all tasks", "only y", "only z"]


def test_what_cannot_be_made_up_ends_in_one_line(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [3], TensorProto.BFLOAT16)], ["y"], [])
    with pytest.raises(UserError, match=r"'x' of m\.onnx is of type tensor\(bfloat16\)"):
        settled(path)
    huge = (ModelInput("x", "tensor(float)", (1, 20_000, 20_000), ()),)
    with pytest.raises(UserError, match=r"'x' of f is 1x20000x20000: at most 268435456 values"):
        made_up(huge, 1, "f")


def test_sequences_and_what_is_optional(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    maybe = helper.make_value_info("o", helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [2])))
    nodes = [helper.make_node("MatMul", ["x", "m"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [2, 4]), sequence, maybe], ["y"], [weight("m", 4, 5)])
    assert macs(path) == 40


def test_a_loop_without_an_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bounded, "LIMIT_S", 0.3)
    ends = [tensor("i", [], TensorProto.INT64), tensor("go", [], TensorProto.BOOL), tensor("s", [2, 4])]
    nodes = [helper.make_node("MatMul", ["s", "m"], ["p"]), helper.make_node("Identity", ["go"], ["on"])]
    body = helper.make_graph(nodes, "body", ends, [tensor("on", [], TensorProto.BOOL), tensor("p", [2, 4])])
    loop = helper.make_node("Loop", ["", "yes", "x"], ["y"], "/y", body=body)
    yes = numpy_helper.from_array(np.array(True), "yes")
    path = save(tmp_path / "m.onnx", [loop], [tensor("x", [2, 4])], ["y"], [weight("m", 4, 4), yes])
    with pytest.raises(UserError, match=r"m\.onnx: one run took longer than 0 s and was stopped"):
        settled(path)
    cost = count_graph(path)
    assert not cost.total.exact and cost.total.params == 16
    assert cost.notes == ("Loop '/y': its FLOPs are not counted, how often it runs is not known",)


def outside(tensor: TensorProto, location: str) -> TensorProto:
    """The constant with its values in another file."""
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def test_files_of_weights_that_are_no_files_are_not_opened(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        [conv("x", "y")],
        [tensor("x", [1, 3, 8, 8])],
        ["y"],
        [outside(weight("w", 4, 3, 3, 3), "w")],
    )
    os.mkfifo(tmp_path / "w")
    with pytest.raises(UserError, match=r"cannot read weights of the ONNX file .*: it is a pipe"):
        profile(path, runs=2)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors divide without a trap")
def test_a_file_that_crashes_the_runtime_as_it_is_opened_is_one_line(tmp_path: Path) -> None:
    divided = helper.make_node("Div", ["least", "minus"], ["folded"])
    nodes = [divided, conv("x", "y"), helper.make_node("Identity", ["folded"], ["z"])]
    weights = [W, whole("least", -(2**63)), whole("minus", -1)]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [1, 3, 8, 8])], ["y"], weights)
    with pytest.raises(UserError, match=r"m\.onnx crashes its runtime \(signal \d+\): it is damaged"):
        profile(path, runs=2)


def repeated(turns: str) -> onnx.NodeProto:
    ends = [tensor("i", [], TensorProto.INT64), tensor("go", [], TensorProto.BOOL), tensor("s", [2, 4])]
    nodes = [helper.make_node("MatMul", ["s", "m"], ["p"]), helper.make_node("Identity", ["go"], ["on"])]
    body = helper.make_graph(nodes, "body", ends, [tensor("on", [], TensorProto.BOOL), tensor("p", [2, 4])])
    return helper.make_node("Loop", [turns, "", "x"], ["looped"], "/looped", body=body)


def test_turns_and_shapes_that_stand_in_another_file(tmp_path: Path) -> None:
    (tmp_path / "n").write_bytes(np.array(3, np.int64).tobytes())
    (tmp_path / "s").write_bytes(np.array([2, 4], np.int64).tobytes())
    turns = numpy_helper.from_array(np.array(3, np.int64), "n")
    nodes = [
        repeated("n"),
        helper.make_node("ConstantOfShape", ["s"], ["b"], "/b"),
        helper.make_node("Add", ["looped", "b"], ["y"]),
    ]
    weights = [weight("m", 4, 4), outside(turns, "n"), outside(whole("s", 2, 4), "s")]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [2, 4])], ["y"], weights)
    cost = count_graph(path)
    assert not cost.total.exact and cost.total.params == 16
    assert cost.notes == (
        "Loop '/looped': its FLOPs are not counted, how often it runs is not known",
        "ConstantOfShape '/b': its parameters and bytes are not counted, its shape stands in another file",
    )


def test_more_than_a_profile_holds_is_said(tmp_path: Path) -> None:
    branches = [
        helper.make_graph([node], name, [], [tensor("looped", [2, 4])])
        for name, node in (("then", repeated("n")), ("else", helper.make_node("Relu", ["x"], ["looped"])))
    ]
    node = helper.make_node("If", ["no"], ["y"], then_branch=branches[0], else_branch=branches[1])
    no, n = numpy_helper.from_array(np.array(False), "no"), numpy_helper.from_array(np.array(10**18, np.int64), "n")
    path = save(tmp_path / "m.onnx", [node], [tensor("x", [2, 4])], ["y"], [no, n, weight("m", 4, 4)])
    found = profile(path, runs=2)
    assert found.counts is not None and (found.counts.total.flops, found.counts.total.params) == (None, 16)
    assert f"FLOPs are left out above {10**18}" in found.notes
    listed, notes = _told_inputs(InputChoice({f"x{number}": (1,) for number in range(10_002)}))
    assert len(listed) == 10_000 and notes == ["2 more inputs are left out"]
    assert _told_inputs(InputChoice({"x": (1, 2)})) == ({"x": (1, 2)}, [])


def test_more_outputs_than_can_be_timed_alone(tmp_path: Path) -> None:
    names = [f"y{number}" for number in range(40)]
    nodes = [helper.make_node("Relu", ["x"], [name]) for name in names]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [2])], names, [])
    with pytest.raises(UserError, match=r"has 40 outputs.*at most 32 of them, for example --tasks y0,y1"):
        profile(path, runs=2)
    found = profile(path, runs=2, tasks=["y3", "y1"])
    assert found.tasks == ("y1", "y3") and found.counts is not None and list(found.counts.tasks) == ["y1", "y3"]


def test_weights_outside_of_the_file(tmp_path: Path) -> None:
    nodes = [conv("x", "t"), helper.make_node("Relu", ["t"], ["y"]), conv("t", "z", "v")]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [1, 3, "h", 8])], ["y", "z"], [W, weight("v", 2, 4, 3, 3)])
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="m.data", size_threshold=0)
    found = profile(path, runs=2, shapes={"x": (1, 3, 8, 8)})
    assert found.counts is not None and found.counts.trunk.macs == 4 * 27 * 64
    assert found.counts.total.weight_bytes == 4 * (108 + 72)


def test_a_size_of_zero_is_said(tmp_path: Path) -> None:
    gemm = helper.make_node("MatMul", ["x", "m"], ["y"])
    path = save(tmp_path / "m.onnx", [gemm], [tensor("x", [0, 8])], ["y"], [weight("m", 8, 4)])
    cost = count_graph(path, choice=settled(path).choice)
    assert cost.total.flops == 0 and cost.notes == ("MatMul 'y': it multiplies nothing, a tensor of it is empty",)


def test_what_cannot_be_counted_is_null_in_the_parts_that_hold_it(tmp_path: Path) -> None:
    far = helper.make_node("CDist", ["rows", "rows"], ["far"], name="/far/CDist", domain="com.microsoft")
    nodes = [conv("x", "y"), helper.make_node("Reshape", ["x", "s"], ["rows"]), far]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", [1, 3, 8, 8])], ["y", "far"], [W, whole("s", -1, 8)])
    found = profile(path, runs=2)
    assert found.counts is not None and any("CDist" in note for note in found.notes)
    assert (found.counts.total.macs, found.counts.tasks["far"].macs) == (None, None)
    assert found.counts.tasks["y"].macs == 4 * 27 * 64
    assert (found.counts.total.params, found.counts.total.weight_bytes) == (108, 4 * 108 + 16)


@pytest.mark.parametrize(
    ("runs", "drawn"), [(1, 2), (2, 2), (10, 10), (12, 12), (13, 14), (34, 34), (46, 48), (50, 50), (200, 200)]
)
def test_as_many_samples_as_were_asked_for_or_the_next_number_that_divides(runs: int, drawn: int) -> None:
    rounds, burst = visits(runs)
    assert 2 * rounds * burst == drawn and burst <= 20


def test_other_numbers_of_samples_are_said(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [conv("x", "y")], [tensor("x", [1, 3, 8, 8])], ["y"], [W])
    found = profile(path, runs=13)
    assert found.latency.n == 14
    assert found.notes == ("14 samples were drawn for 13: every set of tasks has as many forwards as backwards",)
