"""TFLite's ops -> Graph, one op after the other: how files that do not carry their graph are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from netlathe.archspace.errors import FormatError, GraphError
from netlathe.archspace.forms.tflite_file import Model, Operator
from netlathe.archspace.forms.tflite_folding import fold
from netlathe.archspace.forms.tflite_ops import READERS
from netlathe.archspace.forms.tflite_values import ForeignOpError, Reader, input_shapes
from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import MOST_NODES, Graph

_MOST_PROBLEMS = 5
"""That an error tells, of those of a file; the ops that most of them are of come first."""


def read_structure(model: Model, shapes: Mapping[str, Sequence[int]] | None = None, batch: int = 1) -> Graph:
    """The graph of a foreign file, without BatchNorm, grouped by Graph.scoped.

    What netlathe has no op for becomes an Opaque of the op's name, with the shapes that the file records. Raises
    FormatError naming the ops that do not hold together, and for open sizes that are not given.
    """
    return _read_all(Reader(model, input_shapes(model, shapes, batch)))[0]


def read_structure_with_weights(
    model: Model, shapes: Mapping[str, Sequence[int]] | None = None, batch: int = 1
) -> tuple[Graph, Weights]:
    """The same graph, and its weights. Raises FormatError also for ops that netlathe does not have, and for weights
    that are no float32 ones."""
    return _read_all(Reader(model, input_shapes(model, shapes, batch), carries=True))


def _read_all(reader: Reader) -> tuple[Graph, Weights]:
    model = reader.model
    if len(model.operators) > MOST_NODES:
        raise FormatError(f"the file has {len(model.operators)} ops, more than the {MOST_NODES} that netlathe takes")
    problems: dict[str, list[str]] = {}
    for index, operator in enumerate(model.operators):
        problem = _problem(reader, index, operator)
        if problem:
            problems.setdefault(operator.kind, []).append(problem)
            try:
                reader.add_opaque(operator)  # so that problems behind it are told, too
            except (FormatError, GraphError, LookupError):
                break
    if problems:
        raise FormatError(_told(problems))
    return reader.finish()


def _told(problems: Mapping[str, list[str]]) -> str:
    """All problems of a file; of each kind of op the first, the most frequent kinds before others."""
    kinds = sorted(problems.values(), key=len, reverse=True)
    told = [f"{found[0]}{f' (and {len(found) - 1} more of its kind)' if len(found) > 1 else ''}" for found in kinds]
    left = f"; and {len(told) - _MOST_PROBLEMS} other kinds of ops" if len(told) > _MOST_PROBLEMS else ""
    return "; ".join(told[:_MOST_PROBLEMS]) + left


def _problem(reader: Reader, index: int, operator: Operator) -> str:
    """Fault of an op, which else is read; '' for nothing."""
    where = f"op {index} ({operator.kind:.60})"
    try:
        _read(reader, index, operator)
    except (FormatError, GraphError) as error:
        return f"{where}: {error}"
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError) as error:
        return f"{where} is malformed: {error!r:.200}"
    return ""


def _read(reader: Reader, index: int, operator: Operator) -> None:
    if reader.is_done(index):
        return
    known = not operator.is_custom
    if known and fold(reader, operator):
        return
    try:
        if not known or operator.kind not in READERS:
            raise ForeignOpError("netlathe has no such op")
        READERS[operator.kind](reader, operator)
    except ForeignOpError as error:
        if reader.carries:
            raise FormatError(f"{error}, so that its weights cannot be read") from None
        for tensor in operator.inputs:
            if tensor >= 0 and reader.constant(tensor) is None:
                reader.operand(tensor)  # raises where nothing has computed it
        reader.add_opaque(operator)
