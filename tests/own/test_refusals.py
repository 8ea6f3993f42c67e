"""Nets and declarations that are refused, each in one line that names the place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from own_nets import SIZE, model_of, saved, three_tasks, weight

from edgemtl.errors import UserError
from edgemtl.own import Declaration, DeclaredTask, OwnNet, open_net, propose_tasks, read_declaration, resolve

FLOAT = TensorProto.FLOAT
SCALE = [
    numpy_helper.from_array(np.array(0.1, np.float32), "s"),
    numpy_helper.from_array(np.array(0, np.uint8), "o"),
]


def one(op: str, domain: str = "") -> onnx.ModelProto:
    nodes = [helper.make_node(op, ["x"], ["y"], name="middle", domain=domain), helper.make_node("Relu", ["y"], ["z"])]
    return model_of(nodes, {"z": FLOAT}, domains=[domain] if domain else [])


def rounding() -> onnx.ModelProto:
    node = helper.make_node("QuantizeLinear", ["x", "s", "o"], ["y"], name="q")
    return model_of([node], {"y": TensorProto.UINT8}, SCALE)


def branch(value: float) -> onnx.GraphProto:
    tensor = numpy_helper.from_array(np.array([value], np.float32), "constant")
    node = helper.make_node("Constant", [], ["given"], value=tensor)
    return helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("given", FLOAT, [1])])


def conditional() -> onnx.ModelProto:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "limit"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], name="choice", then_branch=branch(1), else_branch=branch(2)),
    ]
    return model_of(nodes, {"y": FLOAT}, [numpy_helper.from_array(np.array(0, np.float32), "limit")])


def listed() -> onnx.ModelProto:
    """A list that begins empty, which no image changes."""
    nodes = [
        helper.make_node("SequenceEmpty", [], ["none"], name="begin"),
        helper.make_node("SequenceInsert", ["none", "x"], ["some"], name="fill"),
        helper.make_node("ConcatFromSequence", ["some"], ["y"], axis=0),
    ]
    return model_of(nodes, {"y": FLOAT})


def two_inputs() -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(name, FLOAT, [1, 3, 200, 300]) for name in ("x", "scale")]
    return model_of([helper.make_node("Add", ["x", "scale"], ["y"])], {"y": FLOAT}, inputs=inputs)


def rounded_weights(kind: int = TensorProto.INT8) -> onnx.ModelProto:
    eight = helper.make_tensor("w", kind, (4, 3, 1, 1), np.ones(12, np.int8))
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "s")
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["f"], name="restore"),
        helper.make_node("Conv", ["x", "f"], ["y"]),
    ]
    model = model_of(nodes, {"y": FLOAT}, [eight, scale])
    model.opset_import[0].version, model.ir_version = 21, 10  # the first that know four bits
    return model


REFUSED = {
    "custom": (one("Fancy", domain="my.domain"), "Fancy middle is a custom operator of my.domain"),
    "control": (conditional(), "If choice is control flow on values"),
    "random": (one("RandomNormalLike"), "RandomNormalLike middle is random, so that outputs change from call to call"),
    "rounded": (rounding(), "QuantizeLinear q rounds values already: the net is quantized"),
    "weights": (rounded_weights(), "DequantizeLinear restore reads weights of eight bits: the net is quantized"),
    "four": (
        rounded_weights(TensorProto.INT4),
        "DequantizeLinear restore reads weights of four bits: the net is quantized",
    ),
    "sized": (
        model_of([helper.make_node("NonZero", ["x"], ["y"], name="where")], {"y": TensorProto.INT64}),
        "NonZero where gives tensors whose size depends on the image",
    ),
    "list": (
        model_of([helper.make_node("SplitToSequence", ["x"], ["y"], name="parts")], {"y": FLOAT}),
        "SplitToSequence parts gives a list of tensors",
    ),
    "empty": (listed(), "SequenceEmpty begin gives a list of tensors"),
    "inputs": (two_inputs(), r"reads scale \(1x3x200x300\) beside its image: a bundle reads one image"),
    "depth": (model_of([helper.make_node("Relu", ["x"], ["y"])], {"y": FLOAT}, image=(1, 2, 8, 8)), "shape 1x2x8x8"),
    "row": (model_of([helper.make_node("Relu", ["x"], ["y"])], {"y": FLOAT}, image=(1, 3)), "shape 1x3"),
    "open": (three_tasks((1, 3, "h", "w")), "reads images of any size: say of which size .* --size"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_net_that_cannot_be_taken_is_refused_by_name(case: str, tmp_path: Path) -> None:
    model, words = REFUSED[case]
    with pytest.raises(UserError, match=words) as refusal:
        open_net(str(saved(model, tmp_path)))
    assert "theirs.onnx" in str(refusal.value) and "\n" not in str(refusal.value)


def flattened(batch: int, shape: tuple[int, int]) -> onnx.ModelProto:
    """A net whose file holds the sizes of what it flattens."""
    constants = [numpy_helper.from_array(np.array(shape), "shape"), weight("w", shape[1], 2)]
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    return model_of(nodes, {"y": FLOAT}, constants, (batch, 3, 8, 8))


def test_a_file_of_another_batch_or_size_is_taken_where_the_net_is_the_same(tmp_path: Path) -> None:
    ours, theirs = (open_net(str(saved(three_tasks((batch, 3, *SIZE)), tmp_path)), (32, 48)) for batch in (1, 10))
    assert theirs.size == (32, 48) and theirs.outputs == ours.outputs
    assert theirs.outputs["parsing"] == (1, 5, 32, 48)


def test_a_batch_or_a_size_that_does_not_fit_and_a_file_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="written for a batch of 2 images, and output y of one image alone is another"):
        open_net(str(saved(flattened(2, (-1, 96)), tmp_path)))
    with pytest.raises(UserError, match="written for images of 2x8x8 and does not run on one of 8x8: export it again"):
        open_net(str(saved(flattened(2, (2, 192)), tmp_path)))
    with pytest.raises(UserError, match="written for images of 1x8x8 and does not run on one of 32x32: drop --size"):
        open_net(str(saved(flattened(1, (1, 192)), tmp_path)), (32, 32))
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(UserError, match="is no ONNX model"):
        open_net(str(tmp_path / "text.onnx"))


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> OwnNet:
    return open_net(str(saved(three_tasks(), tmp_path_factory.mktemp("net"))))


def declared(**outputs: Sequence[str]) -> Declaration:
    return Declaration(tasks={name: DeclaredTask(outputs=tuple(own)) for name, own in outputs.items()})


@pytest.mark.parametrize(
    ("declaration", "words"),
    [
        (declared(a=["parsing"], b=["best", "pose.points"]), "output 'pose.score' of theirs.onnx belongs to no task"),
        (declared(a=["parsing", "best"], b=["parsing"]), "'parsing' of theirs.onnx is claimed by task a and by task b"),
        (declared(a=["parsin"]), "unknown output of task a: 'parsin': did you mean parsing"),
        (
            declared(a=["parsing", "best", "pose.score", "pose.points"]).model_copy(update={"unused": ("best",)}),
            "'best' of theirs.onnx is unused and claimed by task a",
        ),
    ],
)
def test_every_output_belongs_to_one_task(net: OwnNet, declaration: Declaration, words: str) -> None:
    with pytest.raises(UserError, match=words):
        resolve(net, declaration)


def test_a_kind_has_the_tensors_that_it_needs(net: OwnNet) -> None:
    tasks = propose_tasks(net).tasks
    for kind, outputs, words in (
        ("segmentation", ("pose.points",), "needs logits of shape 1x4xHxW, 'pose.points' is 1x4: choose another kind"),
        ("depth", ("parsing", "best"), "of kind depth has the outputs log_metres, 2 given"),
        ("depth", ("parsing",), "needs log_metres of shape 1x1xHxW"),
    ):
        changed = {"one": DeclaredTask(kind=kind, outputs=outputs)}
        unused = tuple(name for name in net.outputs if name not in outputs)
        with pytest.raises(UserError, match=words):
            resolve(net, Declaration(tasks=changed, unused=unused))
    assert set(tasks) == {"parsing", "pose", "best"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tasks: {}", "tasks: Dictionary should have at least 1 item"),
        ("tasks: {a: {outputs: [x], kinds: raw}}", "Extra inputs are not permitted"),
        ("tasks: {a: {outputs: []}}", "at least 1 item"),
        ("- a", "edgemtl tasks --net NET"),
        ("input: {std: [0.0, 1.0, 1.0]}\ntasks: {a: {outputs: [x]}}", r"input\.std\.0: Input should be greater than 0"),
        ("tasks: {a: [", "not valid YAML"),
    ],
)
def test_a_tasks_file_that_cannot_be_used_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as refusal:
        read_declaration(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_net_that_fails_on_an_image_is_refused(tmp_path: Path) -> None:
    model = model_of([helper.make_node("Conv", ["x", "w"], ["y"])], {"y": FLOAT}, [weight("w", 4, 5, 1, 1)])
    with pytest.raises(UserError, match=r"theirs.onnx does not run .*kernel channels"):
        open_net(str(saved(model, tmp_path)))
