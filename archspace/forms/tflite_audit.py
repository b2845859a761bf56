"""The precision of each op of a .tflite file, read off its tensors: what a file computes in, not what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from netlathe.archspace.forms.structure import precision_of, read_source
from netlathe.archspace.forms.tflite_file import Model, Operator, unpack

_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
_KERNELS = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}
"""The ops with weights, and where their kernels are among their inputs."""


class AuditedOp(NamedTuple):
    """One op of a file."""

    name: str
    """Name of its first result; in files of netlathe that of a node, or one that begins with it and a dot."""
    kind: str
    """Schema name of the op, such as CONV_2D."""
    precision: str
    """float32, int8, ...; "float32 with int8 weights" where only the weights are narrower, or stored as float16 and
    widened; "float32 to int8" of an op that converts."""
    has_weights: bool
    """Whether it is a convolution or a fully connected layer."""

    @property
    def converts(self) -> bool:
        """Whether the op does no more than convert real values to integers, or back."""
        return self.kind in _CONVERSIONS


def audit_tflite(data: bytes | Path) -> tuple[AuditedOp, ...]:
    """The precision of each op of a .tflite file, in the order in which they run.

    An op's precision is the dtype of its result. Raises FormatError for what is no .tflite file.
    """
    return read_source(data, lambda content: _audit(unpack(content)))


def _audit(model: Model) -> tuple[AuditedOp, ...]:
    found = []
    widened = {op.outputs[0]: op.inputs[0] for op in model.operators if op.kind == "DEQUANTIZE"}
    stored = {result: t for result, t in widened.items() if model.tensors[t].data is not None}
    for operator in model.operators:
        name = model.tensors[operator.outputs[0]].name if operator.outputs else ""
        has_weights = operator.kind in _KERNELS and len(operator.inputs) > 1
        precision = _precision(model, operator, stored if has_weights else None)
        found.append(AuditedOp(name, operator.kind, precision, has_weights))
    return tuple(found)


def _precision(model: Model, operator: Operator, stored: Mapping[int, int] | None) -> str:
    """`stored` are the constants of tensors that one op widens, where the op has weights."""
    result = _dtype(model, operator.outputs[0]) if operator.outputs else ""
    if operator.kind in _CONVERSIONS:
        return f"{_dtype(model, operator.inputs[0])} to {result}"
    if stored is None:
        return precision_of(result, "")
    kernel = operator.inputs[_KERNELS[operator.kind]]
    return precision_of(result, _dtype(model, stored.get(kernel, kernel)))


def _dtype(model: Model, tensor: int) -> str:
    return model.tensors[tensor].dtype.lower()
