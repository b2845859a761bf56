"""Graph -> .tflite, written directly as a flatbuffer. It carries the graph as metadata, so read_tflite restores it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from netlathe.archspace.errors import FormatError, GraphError
from netlathe.archspace.forms.structure import check_writable
from netlathe.archspace.forms.tflite_file import pack
from netlathe.archspace.forms.tflite_int8 import (
    Range,
    Samples,
    SharedScale,
    named_ranges,
    quantize,
    quantize_marked,
    quantize_weights,
    random_samples,
    shared_scales,
)
from netlathe.archspace.forms.tflite_lowering import kernel_name, lower, lowered
from netlathe.archspace.forms.weights import FloatArray, Weights, check_weights, random_weights
from netlathe.archspace.graph import Graph
from netlathe.archspace.precisions import Precision, has_borders, is_mixed, mixed, precisions_of, unmixed

DESCRIPTION = "netlathe"
DTYPES = tuple(map(str, Precision))


def write_tflite(
    graph: Graph,
    weights: Weights | None = None,
    *,
    seed: int = 0,
    dtype: str = "float32",
    samples: Iterable[Sequence[FloatArray]] | None = None,
    precisions: Mapping[str, str] | None = None,
    ranges: Mapping[str, Range] | None = None,
) -> bytes:
    """The graph as a .tflite file of fixed batch; without weights, with random_weights(graph, seed).

    Its only signature is `serving_default`, from `input` to `output`. With dtype int8 all values are quantized, those
    of `input` and `output` too (see tflite_int8.py). Their scales come from what the network computes from `samples`:
    for each input, float32 values of its shape (NHWC, batch included). Standard normal values stand in for missing
    samples; they suit random weights and measuring. Other dtypes need none: with float16 and int8-weights, the weights
    of layers alone are stored so.

    `precisions` gives nodes, by name, a precision of their own, as mixed() does, which may also be given the graph that
    it made: int8 nodes are quantized as in an int8 file, between ops that convert, and the file takes and gives
    float32, unless all nodes are int8: that is the file of dtype int8. Weights are always given in float32. `ranges`,
    as tflite_ranges finds them, take the samples' place.

    Raises FormatError where check_weights does, for another dtype, beyond 2 GB, for precisions that mixed() refuses or
    that stand beside dtype int8, and in int8 for an op that has no int8 form, for samples that do not fit, and for
    values that are not finite.
    """
    if dtype not in DTYPES:
        raise FormatError(f"a .tflite file is written in one of {', '.join(DTYPES)}, got dtype {dtype!r}")
    if dtype in (Precision.FLOAT16, Precision.INT8_WEIGHTS) and precisions is None and not is_mixed(graph):
        dtype, precisions = "float32", dict.fromkeys((node.name for node in graph.nodes), dtype)
    if precisions is not None:
        graph = _in_precisions(graph, precisions)
    if not is_mixed(graph):
        return _write(graph, weights, seed, dtype, samples, ranges)
    if dtype != "float32":
        raise FormatError(f"dtype {dtype!r} is of a whole file, and this graph has precisions of its own: leave it out")
    if {*precisions_of(graph).values()} == {Precision.INT8} and not has_borders(graph):
        return _write(unmixed(graph), weights, seed, "int8", samples, ranges)
    return _write_mixed(graph, weights, seed, samples, ranges)


def tflite_ranges(graph: Graph, weights: Weights, samples: Iterable[Sequence[FloatArray]]) -> dict[str, Range]:
    """The least and largest value of each tensor of the graph's float32 file, by name, among what it computes from the
    samples: what write_tflite finds scales from, once for many files. Raises FormatError as write_tflite does."""
    return named_ranges(lower(graph, _checked(graph, weights, 0)), samples)


def tflite_scales(graph: Graph, weights: Weights, ranges: Mapping[str, Range]) -> dict[int, SharedScale]:
    """The scale of each of the graph's tensors, by number, in the file that write_tflite makes of these weights and
    ranges; one object for those that must have one scale.

    A float32 graph stands for its file of dtype int8; one of several precisions for its own, in which tensors of
    float32 have no scale. An op has that of the activation which it applies. Raises FormatError as write_tflite does.
    """
    if is_mixed(graph):
        model, places = lowered(graph, _checked(unmixed(graph), weights, 0))
        model = quantize_marked(model, lambda: ranges)
    else:
        model, places = lowered(graph, _checked(graph, weights, 0))
        model = quantize(model, (), ranges)
    found = shared_scales(model)
    return {tensor: found[place] for tensor, place in enumerate(places) if place in found}


def _in_precisions(graph: Graph, precisions: Mapping[str, str]) -> Graph:
    try:
        return mixed(graph, precisions)
    except GraphError as error:
        raise FormatError(str(error)) from error


def _write(
    graph: Graph,
    weights: Weights | None,
    seed: int,
    dtype: str,
    samples: Samples | None,
    ranges: Mapping[str, Range] | None = None,
) -> bytes:
    """The file of one precision throughout."""
    model = lower(graph, _checked(graph, weights, seed))
    if dtype == "int8":
        model = quantize(model, random_samples(model, seed) if samples is None else samples, ranges)
    return pack(model, DESCRIPTION)


def _write_mixed(
    graph: Graph, weights: Weights | None, seed: int, samples: Samples | None, ranges: Mapping[str, Range] | None
) -> bytes:
    plain = unmixed(graph)
    weights = _checked(plain, weights, seed)

    def found() -> Mapping[str, Range]:
        if ranges is not None:
            return ranges
        in_float32 = lower(plain, weights)
        return named_ranges(in_float32, random_samples(in_float32, seed) if samples is None else samples)

    model = quantize_marked(lower(graph, weights), found)
    narrow = [name for name, precision in precisions_of(graph).items() if precision is Precision.INT8_WEIGHTS]
    return pack(quantize_weights(model, {kernel_name(name) for name in narrow}), DESCRIPTION)


def _checked(graph: Graph, weights: Weights | None, seed: int) -> Weights:
    """The weights, or random ones."""
    check_writable(graph, "a .tflite form")
    weights = random_weights(graph, seed) if weights is None else weights
    check_weights(graph, weights)
    return weights
