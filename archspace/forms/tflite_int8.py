"""A float32 .tflite model -> the same in int8, op for op, as TFLite's specification of 8 bits has it: all or parts.

Static and full-integer: weights are int8 and symmetric, with a scale per output channel (of a fully connected layer:
one scale), biases int32, all else int8 with a scale and a zero point. So are the model's inputs and outputs: who runs
it hands over quantized values, and no op converts. The scales come from running the float32 model.
Specification: https://ai.google.dev/edge/litert/models/quantization_spec.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.tflite_file import Model, Operator, Quantization, Tensor, pack
from netlathe.archspace.forms.weights import FloatArray

Samples = Iterable[Sequence[FloatArray]]
"""Values for each of a model's inputs, time after time."""

Range = tuple[float, float]
"""A tensor's least and largest value, widened to include 0."""

_VERSIONS = {
    "ABS": 2, "ADD": 2, "AVERAGE_POOL_2D": 2, "BATCH_MATMUL": 2, "CONCATENATION": 2, "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3, "DEPTH_TO_SPACE": 1, "ELU": 1, "EXP": 2, "FULLY_CONNECTED": 4, "GELU": 2,
    "HARD_SWISH": 1, "L2_NORMALIZATION": 2, "LEAKY_RELU": 2, "LOGISTIC": 2, "MAXIMUM": 2, "MAX_POOL_2D": 2,
    "MEAN": 2, "MINIMUM": 2, "MIRROR_PAD": 2, "MUL": 2, "PAD": 2, "PADV2": 2, "PRELU": 1, "REDUCE_MAX": 2,
    "REDUCE_MIN": 2, "RELU": 2, "RELU6": 2, "RELU_0_TO_1": 1, "RELU_N1_TO_1": 1, "RESHAPE": 1, "RESIZE_BILINEAR": 2,
    "RESIZE_NEAREST_NEIGHBOR": 2, "SLICE": 2, "SOFTMAX": 2, "SPACE_TO_DEPTH": 2, "SPLIT": 2, "SPLIT_V": 2,
    "SQUARED_DIFFERENCE": 2, "STRIDED_SLICE": 2, "SUB": 2, "TANH": 2, "TRANSPOSE": 2, "TRANSPOSE_CONV": 3,
}  # fmt: skip
"""The ops that have an int8 form, each with its first version that does."""

_HYBRID_VERSIONS = {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 6, "FULLY_CONNECTED": 9}
"""The ops that compute float32 values with int8 weights, each with its first version that knows a scale per channel."""
_BORDERS = ("QUANTIZE", "DEQUANTIZE")
"""The ops that convert between integers and real values."""

_CHANNEL_AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}
"""The ops with weights, and where their kernels have the output channels."""
_LAYER_INPUTS = {"TRANSPOSE_CONV": (2, 1, 3)}
"""Where the values, the kernel and the bias are among an op's inputs, where not in this order."""

_SAME_SCALE = (
    "AVERAGE_POOL_2D", "CONCATENATION", "DEPTH_TO_SPACE", "MAXIMUM", "MAX_POOL_2D", "MINIMUM", "MIRROR_PAD", "PAD",
    "PADV2", "REDUCE_MAX", "REDUCE_MIN", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SLICE",
    "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "STRIDED_SLICE", "TRANSPOSE",
)  # fmt: skip
"""The ops whose results must have the scale and zero point of what they take."""
_JOINING = ("CONCATENATION", "MAXIMUM", "MINIMUM", "PADV2")
"""Those of them that take several."""

_FIXED = {
    "LOGISTIC": Quantization((1 / 256,), -128), "SOFTMAX": Quantization((1 / 256,), -128),
    "TANH": Quantization((1 / 128,), 0), "L2_NORMALIZATION": Quantization((1 / 128,), 0),
}  # fmt: skip
"""The ops whose result, in 0..1 or -1..1, must have this scale and zero point."""

_SAMPLED_VALUES = 2**17  # in all inputs together: a large network runs on few samples, a small block on many
_MAX_BIAS = 2.0**30  # as an integer; int32 holds 2^31, and the sum of products is added
_LOWEST = -3e38  # stands around images before a max pool, and is the lowest int8 there, whatever the scale
_LEAST_SCALE = 1e-30  # of weights that are all zeros
_MIN_RESCALE = 2.0**-30  # from a layer's sums to its result; what runtimes take ends about there


def quantize(model: Model, samples: Samples, ranges: Mapping[str, Range] | None = None) -> Model:
    """The float32 model in int8: the same tensors and ops, by the same numbers.

    The scales come from what the model computes from the samples, or from the `ranges` of its tensors, by name. What
    converts does so still: its real values stay float32. Raises FormatError for an op that has no int8 form or takes
    such values, for samples that do not fit the inputs, and for values that are not finite.
    """
    real = _converted(model)
    chosen = {t for t, tensor in enumerate(model.tensors) if tensor.dtype == "FLOAT32"} - real
    _check(model, chosen)
    if not chosen:
        return model
    return _quantize(model, chosen, _ranges(model, samples) if ranges is None else _of_names(model, chosen, ranges))


def _converted(model: Model) -> set[int]:
    """The tensors of real values that are converted to integers or from them. Raises FormatError where another op has
    them, too."""
    borders = [operator for operator in model.operators if operator.kind in _BORDERS]
    real = {(o.inputs if o.kind == "QUANTIZE" else o.outputs)[0] for o in borders}
    for operator in model.operators:
        if operator.kind not in _BORDERS and not real.isdisjoint((*operator.inputs, *operator.outputs)):
            name = model.tensors[operator.outputs[0]].name
            raise FormatError(f"node {name!r}: the op {operator.kind} is beside one that converts: give precisions")
    return real


def quantize_marked(model: Model, by_name: Callable[[], Mapping[str, Range]]) -> Model:
    """The model with the tensors that are marked as INT8 and hold real values in int8, and all else as it is.

    The scales come from the ranges, by name, of the tensors of the same network in float32 (named_ranges). Raises
    FormatError as quantize does.
    """
    chosen = {t for t, tensor in enumerate(model.tensors) if tensor.dtype == "INT8"}
    if not chosen:
        return model
    _check(model, chosen)
    found = by_name()
    return _quantize(model, chosen, _of_names(model, chosen, found, _sources(model)))


def _of_names(
    model: Model, chosen: Set[int], ranges: Mapping[str, Range], sources: Mapping[int, int] | None = None
) -> dict[int, Range]:
    """The ranges of the `chosen` tensors by their names, or those of what they were converted from (`sources`). Raises
    FormatError where one is lacking."""
    names = {t: model.tensors[_source(t, sources or {})].name for t in chosen}
    if lacking := [name for name in names.values() if name not in ranges]:
        raise FormatError(f"there is no range of {lacking[0]!r:.80}: are these of the same network?")
    return {t: ranges[name] for t, name in names.items()}


def named_ranges(model: Model, samples: Samples) -> dict[str, Range]:
    """The range of every tensor of a float32 model, by name. Raises FormatError as quantize does."""
    found = _ranges(model, samples)
    return {tensor.name: found[t] for t, tensor in enumerate(model.tensors) if t in found}


@dataclass(frozen=True)
class SharedScale:
    """Scale and zero point that some tensors of an int8 file share: a value is scale * (integer - zero point)."""

    scale: float
    zero_point: int
    is_fixed: bool
    """Whether an op asks for them, whatever the values are."""
    names: tuple[str, ...]
    """The tensors whose ranges they follow from, as quantize takes them."""


def shared_scales(model: Model) -> dict[int, SharedScale]:
    """The scale of each tensor of an int8 model's values, by number; one object for those that must have one scale."""
    weights = {t for o in model.operators if o.kind in _CHANNEL_AXES for t in _of_layer(o)[1:]}
    values = [t for t, tensor in enumerate(model.tensors) if tensor.dtype == "INT8" and t not in weights]
    leaders = _leaders(model, values)
    fixed = {leaders[o.outputs[0]] for o in _fixing(model) if o.outputs[0] in leaders}
    sources = _sources(model)
    found = {}
    for leader in set(leaders.values()):
        of_leader = model.tensors[leader].quantization
        assert of_leader is not None
        names = tuple(model.tensors[_source(t, sources)].name for t in values if leaders[t] == leader)
        found[leader] = SharedScale(of_leader.scales[0], of_leader.zero_point, leader in fixed, names)
    return {t: found[leader] for t, leader in leaders.items()}


def _sources(model: Model) -> dict[int, int]:
    """The tensor that each other one was converted from."""
    return {o.outputs[0]: o.inputs[0] for o in model.operators if o.kind in _BORDERS}


def _source(tensor: int, sources: Mapping[int, int]) -> int:
    """The tensor whose values these are, before any conversion."""
    while tensor in sources:
        tensor = sources[tensor]
    return tensor


def quantize_weights(model: Model, names: Collection[str]) -> Model:
    """The model with the float32 kernels of those names in int8, a scale for each output channel, and all else as is.

    A runtime computes such layers in what it calls hybrid kernels, or dynamic range. Raises FormatError for weights
    that are not finite, and for a layer that has no such kernel.
    """
    tensors, operators = list(model.tensors), list(model.operators)
    for index, operator in enumerate(operators):
        kernel = _of_layer(operator)[1] if operator.kind in _CHANNEL_AXES else -1
        if kernel < 0 or tensors[kernel].name not in names:
            continue
        if operator.kind not in _HYBRID_VERSIONS:
            raise FormatError(f"{tensors[kernel].name!r}: the op {operator.kind} has no form with int8 weights alone")
        scales = _channel_scales(tensors[kernel], operator.kind)
        tensors[kernel] = _quantized(tensors[kernel], "INT8", scales)
        version = max(operator.version, _HYBRID_VERSIONS[operator.kind])
        operators[index] = dataclasses.replace(operator, version=version)
    return dataclasses.replace(model, tensors=tuple(tensors), operators=tuple(operators))


def _channel_scales(kernel: Tensor, kind: str) -> Quantization:
    """Symmetric scales of a layer's weights, one for each output channel."""
    scales = np.maximum(_largest(kernel, kind) / 127, _LEAST_SCALE)
    if not np.isfinite(scales).all():
        raise FormatError(f"the weights {kernel.name!r} are not finite: they have no int8 form")
    return Quantization(tuple(scales.tolist()), 0, _CHANNEL_AXES[kind])


def _largest(kernel: Tensor, kind: str) -> NDArray[np.float64]:
    """The largest weight of each output channel, without its sign."""
    if kernel.data is None:
        raise FormatError(f"the weights {kernel.name!r} have no int8 form: they must be constants of a float32 model")
    others = tuple(axis for axis in range(kernel.data.ndim) if axis != _CHANNEL_AXES[kind])
    return np.asarray(np.abs(kernel.data).max(axis=others), np.float64)


def _quantize(model: Model, chosen: Set[int], ranges: Mapping[int, Range]) -> Model:
    """The model with the `chosen` tensors in int8, and biases of their layers in int32."""
    own = [o for o in model.operators if o.kind not in _BORDERS and not chosen.isdisjoint((*o.inputs, *o.outputs))]
    layers = [operator for operator in own if operator.kind in _CHANNEL_AXES]
    weights = {t for operator in layers for t in _of_layer(operator)[1:]}
    tensors = list(model.tensors)
    for t, quantization in _quantizations(model, sorted(chosen - weights), ranges).items():
        tensors[t] = _quantized(tensors[t], "INT8", quantization)
    for operator in layers:
        _, kernel, bias = _of_layer(operator)
        of_kernel, of_bias = _layer_quantizations(tensors, operator)
        tensors[kernel] = _quantized(tensors[kernel], "INT8", of_kernel)
        tensors[bias] = _quantized(tensors[bias], "INT32", of_bias)
    inside = {id(operator) for operator in own}
    operators = tuple(
        dataclasses.replace(o, version=max(o.version, _VERSIONS[o.kind])) if id(o) in inside else o
        for o in model.operators
    )
    return dataclasses.replace(model, tensors=tuple(tensors), operators=operators)


def _of_layer(operator: Operator) -> tuple[int, ...]:
    """A layer's values, kernel and bias."""
    return tuple(operator.inputs[place] for place in _LAYER_INPUTS.get(operator.kind, (0, 1, 2)))


def random_samples(model: Model, seed: int) -> Iterator[list[FloatArray]]:
    """From 2 to 32 samples of standard normal values; equal seeds give equal ones."""
    rng = np.random.default_rng(seed)
    shapes = [model.tensors[t].shape for t in model.inputs]
    count = _SAMPLED_VALUES // sum(map(math.prod, shapes))
    for _ in range(min(max(count, 2), 32)):
        yield [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]


def _check(model: Model, chosen: Set[int]) -> None:
    """Raises FormatError naming the first op of the `chosen` tensors that has no int8 form."""
    fixed: dict[int, Quantization] = {}  # tensors with the scale of probabilities and alike
    for operator in model.operators:
        results, kind = operator.outputs, operator.kind
        if kind in _BORDERS or chosen.isdisjoint((*operator.inputs, *results)):
            continue
        what = f"node {model.tensors[results[0]].name!r}: the op {kind} has no int8 form"
        if kind not in _VERSIONS:
            raise FormatError(what)
        values = [t for t in operator.inputs if t in chosen]
        found = {fixed.get(t) for t in values}
        if kind in _JOINING and len(found) > 1:
            raise FormatError(f"{what} where it joins a softmax or sigmoid, whose scale is fixed, with other values")
        if kind in _SAME_SCALE and (of_input := fixed.get(values[0])):
            fixed.update(dict.fromkeys(results, of_input))
        if kind in _FIXED:
            fixed.update(dict.fromkeys(results, _FIXED[kind]))


def _ranges(model: Model, samples: Samples) -> dict[int, Range]:
    """The range of every tensor: of a constant's values, or of what is computed from the samples."""
    interpreter = Interpreter(
        model_content=pack(model, ""), num_threads=1, experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )  # fmt: skip
    interpreter.allocate_tensors()
    ranges = {t: _widened((0.0, 0.0), tensor.data) for t, tensor in enumerate(model.tensors) if tensor.data is not None}
    computed = {t: (0.0, 0.0) for t, tensor in enumerate(model.tensors) if tensor.data is None}
    count = 0
    for sample in samples:
        _feed(interpreter, model, sample)
        interpreter.invoke()
        computed = {t: _widened(found, interpreter.get_tensor(t)) for t, found in computed.items()}
        count += 1
    if not count:
        raise FormatError("int8 scales come from samples, and there are none; give at least one")
    return ranges | computed


def _feed(interpreter: Interpreter, model: Model, sample: Sequence[FloatArray]) -> None:
    wanted = [model.tensors[t].shape for t in model.inputs]
    found = [(values.shape, str(values.dtype)) for values in sample]
    if found != [(shape, "float32") for shape in wanted]:
        raise FormatError(f"a sample must hold float32 values of shapes {wanted} for the inputs, got {found}")
    for t, values in zip(model.inputs, sample, strict=True):
        interpreter.set_tensor(t, values)


def _widened(found: Range, values: NDArray[Any]) -> Range:
    values = values[~(np.isfinite(values) & (values < _LOWEST))]
    low, high = np.minimum(found[0], values.min(initial=0)), np.maximum(found[1], values.max(initial=0))  # keep a nan
    return float(low), float(high)


def _quantizations(model: Model, values: Iterable[int], ranges: Mapping[int, Range]) -> dict[int, Quantization]:
    """Scale and zero point of each of the tensors `values`, from its range, united with those that must share them."""
    leaders = _leaders(model, values)
    united: dict[int, Range] = {}
    for t, leader in leaders.items():
        united[leader] = _widened(united.get(leader, (0.0, 0.0)), np.array(ranges[t]))
    shared = {t: _quantization(found, model.tensors[t].name) for t, found in united.items()}
    shared |= {leaders[o.outputs[0]]: _FIXED[o.kind] for o in _fixing(model) if o.outputs[0] in leaders}
    return {t: shared[leader] for t, leader in leaders.items()}


def _fixing(model: Model) -> list[Operator]:
    """The ops whose results have scales of their own."""
    return [operator for operator in model.operators if operator.kind in _FIXED]


def _leaders(model: Model, values: Iterable[int]) -> dict[int, int]:
    """One of the tensors that must share scale and zero point, the same for all of them, for each of `values`."""
    leaders = {t: t for t in values}  # followed from tensors that must share, they end at the same one

    def leader(tensor: int) -> int:
        while leaders[tensor] != tensor:
            tensor = leaders[tensor]
        return tensor

    for operator in model.operators:
        if operator.kind in _SAME_SCALE:
            for t in leaders.keys() & {*operator.inputs, *operator.outputs[1:]}:
                leaders[leader(t)] = leader(operator.outputs[0])
    return {t: leader(t) for t in leaders}


def _quantization(found: Range, name: str) -> Quantization:
    """Spreads a range over the 256 values."""
    low, high = found
    if not math.isfinite(high - low):
        raise FormatError(f"{name!r} takes values that are not finite: it has no int8 form; check weights and samples")
    if high - low < 1e-30:  # zeros, a relu that lets nothing pass: any scale will do, and runtimes want one like others
        high = 1.0
    scale = (high - low) / 255
    return Quantization((scale,), round(-128 - low / scale))


def _layer_quantizations(tensors: Sequence[Tensor], operator: Operator) -> tuple[Quantization, Quantization]:
    """Quantizations of a layer's kernel and bias. The bias is added to sums of products, and so has the scale of
    products.

    Where weights are tiny beside the bias, their scale is what makes the bias fit into int32.
    """
    x, kernel, bias = (tensors[t] for t in _of_layer(operator))
    result = tensors[operator.outputs[0]]
    largest = _largest(kernel, operator.kind)
    if x.quantization is None or result.quantization is None or bias.data is None:
        raise FormatError(f"the weights {kernel.name!r} have no int8 form: they must be constants of a float32 model")
    (scale_in,), (scale_out,) = x.quantization.scales, result.quantization.scales
    least = np.maximum(np.abs(bias.data) / _MAX_BIAS, scale_out * _MIN_RESCALE) / scale_in
    scales = np.maximum(largest / 127, least)
    if operator.kind == "FULLY_CONNECTED":  # older runtimes know only one
        scales = scales.max(keepdims=True)
    if not np.isfinite(scales).all():
        raise FormatError(f"the weights {kernel.name!r} or their bias are not finite: they have no int8 form")
    of_kernel = Quantization(tuple(scales.tolist()), 0, _CHANNEL_AXES[operator.kind])
    return of_kernel, Quantization(tuple((scales * scale_in).tolist()), 0)


def _quantized(tensor: Tensor, dtype: str, quantization: Quantization) -> Tensor:
    data = tensor.data
    if data is not None:
        shape = [-1 if a == quantization.axis and len(quantization.scales) > 1 else 1 for a in range(data.ndim)]
        integers = np.rint(data / np.reshape(quantization.scales, shape)) + quantization.zero_point
        limits = np.iinfo(dtype.lower())
        data = np.clip(integers, limits.min, limits.max).astype(limits.dtype)
    return dataclasses.replace(tensor, dtype=dtype, data=data, quantization=quantization)
