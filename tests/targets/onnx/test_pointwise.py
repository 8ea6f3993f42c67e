"""1x1 convolutions before an `If`: which are kept from becoming matrix products, and that TensorRT-RTX then builds."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemtl.errors import UnsupportedError
from edgemtl.targets import build_plan
from edgemtl.targets.onnx.pointwise import keep_convolutions

HALF = TensorProto.FLOAT16
GPUS = ("SM86",)


def before_a_branch(
    channels: tuple[int, int] = (256, 256), between: tuple[str, ...] = (), inside: str = "Relu", kind: int = HALF
) -> onnx.ModelProto:
    """A 1x1 convolution, operators `between`, and an `If` on the input `want` with one operator."""
    entering, leaving = channels
    number, shape = helper.tensor_dtype_to_np_dtype(kind), [1, leaving, 4, 4]
    weight = np.random.default_rng(0).normal(0, 0.05, (leaving, entering, 1, 1)).astype(number)
    nodes = [helper.make_node("Conv", ["image", "weight"], ["t0"], name="conv")]
    nodes += [helper.make_node(op, [f"t{at}"], [f"t{at + 1}"], name=op) for at, op in enumerate(between)]
    read = [f"t{len(between)}", "square"] if inside == "Conv" else [f"t{len(between)}"]
    square = numpy_helper.from_array(np.eye(leaving, dtype=number)[..., None, None], "square")
    run = helper.make_graph(
        [helper.make_node(inside, read, ["run"], name="read")],
        "run",
        [],
        [helper.make_tensor_value_info("run", kind, shape)],
        [square] if inside == "Conv" else [],
    )
    zero = helper.make_tensor("zero", kind, [1], [0])
    skip = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["shape"], ["skip"], name="skip", value=zero)],
        "skip",
        [],
        [helper.make_tensor_value_info("skip", kind, shape)],
        [helper.make_tensor("shape", TensorProto.INT64, [4], shape)],
    )
    nodes.append(helper.make_node("If", ["want"], ["output"], name="if", then_branch=run, else_branch=skip))
    image = helper.make_tensor_value_info("image", kind, [1, entering, 4, 4])
    want = helper.make_tensor_value_info("want", TensorProto.BOOL, [1])
    output = helper.make_tensor_value_info("output", kind, shape)
    graph = helper.make_graph(nodes, "net", [image, want], [output], [numpy_helper.from_array(weight, "weight")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


@pytest.mark.parametrize("between", [(), ("Relu",), ("HardSwish",)], ids=lambda names: names[0] if names else "alone")
def test_a_convolution_that_a_branch_is_fused_with_is_kept_and_computes_the_same(between: tuple[str, ...]) -> None:
    model = before_a_branch((512, 256), between)
    changed = keep_convolutions(model)
    onnx.checker.check_model(changed, full_check=True)
    assert changed is not model and "dilations" not in str(model.graph.node[0])
    assert [list(each.ints) for each in changed.graph.node[0].attribute if each.name == "dilations"] == [[2, 2]]
    image = np.random.default_rng(1).standard_normal((1, 512, 4, 4)).astype(np.float16)
    outputs = [
        onnxruntime.InferenceSession(each.SerializeToString()).run(None, {"image": image, "want": np.array([True])})[0]
        for each in (model, changed)
    ]
    assert np.abs(outputs[0]).max() > 0.5
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    "model",
    [
        before_a_branch((248, 256)),
        before_a_branch((256, 248)),
        before_a_branch(inside="Conv"),
        before_a_branch(kind=TensorProto.FLOAT),
    ],
    ids=["entering", "leaving", "convolution", "fp32"],
)
def test_others_are_left_as_they_are(model: onnx.ModelProto) -> None:
    assert keep_convolutions(model) is model


def test_tensorrt_rtx_builds_what_it_would_fail_on() -> None:
    """Once the plain graph is built too, `keep_convolutions` is not needed any more."""
    pytest.importorskip("tensorrt_rtx")
    model = before_a_branch()
    with pytest.raises(UnsupportedError, match="Myelin"):
        build_plan(model.SerializeToString(), GPUS)
    assert len(build_plan(keep_convolutions(model).SerializeToString(), GPUS)) > 1000
