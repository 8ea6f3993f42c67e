"""Rules of TensorRT's generations as data: operators, constants, types and limits of its ONNX parser.

Sources: the operator lists and importers of onnx-tensorrt's branches 8.5 to 10.1, its change log, NVIDIA's guides to
quantized types, conditionals and migration up to 11.4, and issues where they say more (each named where it counts).
"""

from __future__ import annotations

from onnx import TensorProto

__all__ = ["AXES", "CONSTANT_INPUTS", "DLA_REMEDIES", "LIMITS", "OPERATORS", "REFUSED_TYPES", "REMEDIES", "RESIZE"]

_SINCE_8_5 = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu Clip Concat
Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal
Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool
GlobalMaxPool Greater GreaterOrEqual GridSample HardSigmoid HardSwish Identity If InstanceNormalization IsNaN LRN LSTM
LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean
MeanVarianceNormalization Min Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear RNN
RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
ReverseSequence RoiAlign Round Scan ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice
Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu
Unsqueeze Where Xor
"""
OPERATORS = {
    **dict.fromkeys(_SINCE_8_5.split(), "8.5"),
    **dict.fromkeys(("GroupNormalization", "IsInf", "LayerNormalization"), "8.6"),
    **dict.fromkeys(("CastLike", "Gelu", "Hardmax", "Mish"), "10.0"),
    "DeformConv": "10.1",
    **dict.fromkeys(("BlackmanWindow", "HammingWindow", "HannWindow"), "10.4"),
    "STFT": "10.5",
    "Attention": "10.14",
}
"""The first version whose parser reads each operator of ONNX; what is not listed is read by none."""

CONSTANT_INPUTS = {
    ("CumSum", 1): None,
    ("ReduceSum", 1): None,
    ("Slice", 3): "10.3",
    ("Squeeze", 1): None,
    ("TopK", 1): "8.6",
    ("Unsqueeze", 1): None,
}
"""Inputs, by operator and number, that must be constants, and the first version that takes others (None: none does)."""

REFUSED_TYPES: dict[int, str | None] = {
    TensorProto.DOUBLE: None,
    TensorProto.STRING: None,
    TensorProto.COMPLEX64: None,
    TensorProto.BFLOAT16: "10.0",
}
"""Types of tensors that are refused, and the first version that takes them (None: there is none)."""

RESIZE = {
    "mode": ("nearest", "linear"),
    "coordinate_transformation_mode": (
        "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners",
    ),
    "nearest_mode": ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"),
    "keep_aspect_ratio_policy": ("stretch",),
}  # fmt: skip
"""The values that each attribute of a `Resize` may have."""

AXES = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0}
"""The axis of a weight's output channels, along which its scales stand; of a `Gemm` with its weight transposed."""

LIMITS = {"rank": 8, "TopK": 3840}
"""The most dimensions of a tensor, and the most that a `TopK` gives."""

REMEDIES = {
    "opset": "export it with opset 17 (torch.onnx.export: opset_version=17), or choose a newer JetPack",
    "operator": "write it in operators that are there, or choose a newer JetPack or another target",
    "no operator": "write it in operators that are there, or choose another target",
    "domain": "write it in ONNX's own operators: no plugin is built on the board",
    "constant": "make that input a constant",
    "type": "write FP32, FP16, INT8 (rounded), INT32, INT64 or BOOL",
    "shape": "give every dimension a size: engines are built without profiles, and data must decide no shape",
    "limit": "split the operator, or shrink the tensor",
    "resize": "resize bilinearly at half pixels, or to the nearest at the floor",
    "scatter": "gather instead of scattering with a reduction",
    "zero point": "round symmetrically: signed, with a zero point that is there and 0",
    "scale": "give one positive constant a tensor, and one for each output channel of a weight",
    "rounded tensor": "let DequantizeLinear alone read it",
    "weights": "round what enters too: eight-bit weights are multiplied by eight-bit activations alone",
    "sum": "round both inputs of the sum, or neither: else it runs in float, and no sum is fused",
    "half scales": "keep scales in FP32 and opset 17, and let FP16 be a flag of the builder",
    "branches": "let both branches give tensors of other names, of one type and shape",
    "rounded in If": "round inside the branch, and keep its eight-bit weights there",
    "Attention in If": "write MatMul, Softmax and MatMul instead (NVIDIA/TensorRT#4739, #4757)",
    "If in If": "give each task an If of its own: nested, every branch costs time (NVIDIA/TensorRT#4059)",
}
"""The name of each rule, and what to do where a graph breaks it."""

DLA_REMEDIES = {
    "dla branch": "the DLA has no control flow: export one task alone (--layout plain --tasks NAME) to place it too",
    "dla operator": "choose blocks of convolutions with ReLU, ReLU6 or sigmoid, sums and pools, or leave it to the GPU",
    "dla shape": "keep maps of four dimensions, of sides up to 8192, or leave it to the GPU",
    "dla limit": "keep to the sizes that the DLA has, or leave it to the GPU",
}
"""The same for what the DLA refuses, which then runs on the GPU."""
