"""Graph -> .tflite, written directly as a flatbuffer. It carries the graph as metadata, so read_tflite restores it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.structure import check_writable
from netlathe.archspace.forms.tflite_file import pack
from netlathe.archspace.forms.tflite_int8 import quantize, random_samples
from netlathe.archspace.forms.tflite_lowering import lower
from netlathe.archspace.forms.weights import FloatArray, Weights, check_weights, random_weights
from netlathe.archspace.graph import Graph

DESCRIPTION = "netlathe"
DTYPES = ("float32", "int8")


def write_tflite(
    graph: Graph,
    weights: Weights | None = None,
    *,
    seed: int = 0,
    dtype: str = "float32",
    samples: Iterable[Sequence[FloatArray]] | None = None,
) -> bytes:
    """The graph as a .tflite file of fixed batch; without weights, with random_weights(graph, seed).

    Its only signature is `serving_default`, from `input` to `output`. With dtype int8 all values are quantized, those
    of `input` and `output` too (see tflite_int8.py). Their scales come from what the network computes from `samples`:
    for each input, float32 values of its shape (NHWC, batch included). Standard normal values stand in for missing
    samples; they suit random weights and measuring. float32 needs none.

    Raises FormatError where check_weights does, for another dtype, beyond 2 GB, and in int8 for an op that has no int8
    form, for samples that do not fit, and for values that are not finite.
    """
    if dtype not in DTYPES:
        raise FormatError(f"a .tflite file is written in {' or '.join(DTYPES)}, got dtype {dtype!r}")
    check_writable(graph, "a .tflite form")
    weights = random_weights(graph, seed) if weights is None else weights
    check_weights(graph, weights)
    model = lower(graph, weights)
    if dtype == "int8":
        model = quantize(model, random_samples(model, seed) if samples is None else samples)
    return pack(model, DESCRIPTION)
