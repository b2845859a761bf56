"""Functions that exporters write as several ONNX ops and that runtimes compute as one: Gelu and LayerNorm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from onnx import NodeProto

from netlathe.archspace.forms.onnx_layers import add_layer_norm
from netlathe.archspace.forms.onnx_values import Reader, attributes_of
from netlathe.archspace.ops import Gelu

Read = Callable[[], None]
"""Function that adds a pattern to the graph."""

_CUBE = 0.044715
"""The factor of x^3 in the tanh form of Gelu."""


def find_patterns(reader: Reader, nodes: Iterable[NodeProto]) -> dict[int, Read]:
    """By id of each pattern's last node, what adds it; its other nodes then count as read."""
    found: dict[int, Read] = {}
    for node in nodes:
        if node.op_type in ("Erf", "Tanh"):
            _find_gelu(reader, node, found)
        elif node.op_type == "Sqrt":
            _find_layer_norm(reader, node, found)
    return found


def _number(reader: Reader, name: str) -> float | None:
    """The only value of a constant."""
    stored = reader.constant(name)
    if stored is None or stored.count != 1 or not stored.is_known:
        return None
    return float(stored.array("value").reshape(-1)[0])


def _is(value: float | None, wanted: float) -> bool:
    return value is not None and abs(value - wanted) <= 1e-3 * abs(wanted)


def _factor(reader: Reader, node: NodeProto | None) -> tuple[str, float] | None:
    """The value and the constant of a product or quotient with a constant."""
    if node is None or node.op_type not in ("Mul", "Div") or len(node.input) != 2:
        return None
    for place, other in ((1, 0), (0, 1)):
        number = _number(reader, node.input[place])
        if number and (node.op_type == "Mul" or place == 1):
            return node.input[other], number if node.op_type == "Mul" else 1 / number
    return None


def _find_gelu(reader: Reader, node: NodeProto, found: dict[int, Read]) -> None:
    """x / 2 * (1 + erf(x / sqrt(2))), or with tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)), in any order of factors."""
    scaled = reader.producers.get(node.input[0])
    before = _factor(reader, scaled)
    if before is None or scaled is None:
        return
    x, nodes = before[0], [node, scaled]
    if node.op_type == "Tanh":
        inner = _cubed(reader, x) if _is(before[1], math.sqrt(2 / math.pi)) else None
        if inner is None:
            return
        x, nodes = inner[0], [*nodes, *inner[1]]
    elif not _is(before[1], math.sqrt(0.5)):
        return
    behind = _halved_product(reader, node.output[0], x)
    if behind is None or any(reader.is_done(part) for part in (*nodes, *behind)):
        return
    *others, last = (*nodes, *behind)
    _replace(reader, found, others, last, x, Gelu(approximate=node.op_type == "Tanh"))


def _replace(
    reader: Reader, found: dict[int, Read], others: list[NodeProto], last: NodeProto, x: str, op: Gelu
) -> None:
    if not _is_closed(reader, others, last):
        return
    reader.mark_done(*others)

    def read() -> None:
        value = reader.value(x)
        reader.add(last, op, value.operand, axes=value.axes, transposed=value.is_transposed)

    found[id(last)] = read


def _is_closed(reader: Reader, others: list[NodeProto], last: NodeProto) -> bool:
    """Whether nobody but the pattern's own nodes takes what the inner ones give."""
    own = {id(node) for node in (*others, last)}
    given = [name for node in others for name in node.output if name]
    return all(name not in reader.outputs and all(id(user) in own for user in reader.users(name)) for name in given)


def _cubed(reader: Reader, name: str) -> tuple[str, list[NodeProto]] | None:
    """Operands of x + 0.044715 * x^3, or x * (1 + 0.044715 * x^2): x, and the nodes."""
    inner = reader.producers.get(name)
    if inner is None or inner.op_type not in ("Add", "Mul"):
        return None
    for x, other in (inner.input[:2], inner.input[1::-1]):
        nodes, waiting, factors = [inner], [other], []
        while waiting and len(nodes) < 6:
            taken = waiting.pop()
            part = reader.producers.get(taken)
            if taken == x:
                continue
            number = _number(reader, taken)
            if number is not None:
                factors.append(number)
            elif part is None or part.op_type not in ("Mul", "Pow", "Add"):
                break
            else:
                nodes.append(part)
                waiting += part.input
        else:
            if any(_is(factor, _CUBE) for factor in factors) and not waiting:
                return x, list({id(node): node for node in nodes}.values())
    return None


def _halved_product(reader: Reader, name: str, x: str) -> list[NodeProto] | None:
    """The nodes of x / 2 * (1 + name), from the sum on."""
    plus = reader.sole_user(name)
    if plus is None or plus.op_type != "Add" or not any(_is(_number(reader, n), 1) for n in plus.input):
        return None
    nodes, last, half, times = [], plus, False, False
    while not (half and times):
        nodes.append(last)
        user = reader.sole_user(last.output[0])
        if user is None or user.op_type not in ("Mul", "Div") or len(user.input) != 2:
            return None
        other = user.input[1 if user.input[0] == last.output[0] else 0]
        producer = reader.producers.get(other)
        scaled = _factor(reader, producer)
        number = _number(reader, other)
        if number is not None and not half and _is(number if user.op_type == "Mul" else 1 / number, 0.5):
            half = True
        elif other == x and not times:
            times = True
        elif producer is not None and scaled and scaled[0] == x and _is(scaled[1], 0.5) and not half and not times:
            nodes.append(producer)
            half = times = True
        else:
            return None
        last = user
    return [*nodes, last]


def _find_layer_norm(reader: Reader, root: NodeProto, found: dict[int, Read]) -> None:
    """(x - mean) / sqrt(variance + epsilon) over the last axes, times and plus constants of their shape."""
    plus, quotient = reader.producers.get(root.input[0]), reader.sole_user(root.output[0])
    if plus is None or plus.op_type != "Add" or quotient is None or quotient.op_type != "Div":
        return
    epsilon = next((n for n in (_number(reader, name) for name in plus.input) if n is not None), None)
    variance = next((p for name in plus.input if (p := reader.producers.get(name)) is not None), None)
    if epsilon is None or variance is None or variance.op_type != "ReduceMean":
        return
    square, moved = reader.producers.get(variance.input[0]), reader.producers.get(quotient.input[0])
    if square is None or moved is None or moved.op_type != "Sub" or not _is_square(reader, square):
        return
    centred = reader.producers.get(square.input[0])  # exporters compute the difference twice, or once
    if centred is None or centred.op_type != "Sub" or centred.input != moved.input:
        return
    x, mean = centred.input[0], reader.producers.get(centred.input[1])
    if mean is None or mean.op_type != "ReduceMean" or mean.input[0] != x or quotient.input[1] != root.output[0]:
        return
    parts = {id(n): n for n in (mean, centred, moved, square, variance, plus, root)}
    if _is_closed(reader, [*parts.values()], quotient):
        _replace_norm(reader, found, [*parts.values()], quotient, epsilon)


def _replace_norm(
    reader: Reader, found: dict[int, Read], parts: list[NodeProto], quotient: NodeProto, epsilon: float
) -> None:
    mean, variance = (node for node in parts if node.op_type == "ReduceMean")
    x = mean.input[0]
    axes = [sorted(reader.constant_axes(node)) for node in (mean, variance)]
    keeps = all(attributes_of(node).get("keepdims", 1) for node in (mean, variance))
    count = len(axes[0])
    if not count or axes[0] != axes[1] or not keeps:
        return
    if axes[0] != [*range(-count, 0)]:
        return
    scale = _affine(reader, quotient.output[0], "Mul")
    bias = _affine(reader, scale.output[0], "Add") if scale else None
    last = bias or quotient
    before = [*parts, *((quotient, scale) if bias and scale else ())]

    affine = [_other(quotient, scale), _other(scale, bias)] if scale and bias else []

    def read() -> None:
        add_layer_norm(reader, last, x, count, epsilon, affine=affine, into=last.output[0])

    reader.mark_done(*before)
    found[id(last)] = read


def _other(before: NodeProto, node: NodeProto) -> str:
    """The operand that is not what another node gives."""
    (name,) = [n for n in node.input if n != before.output[0]]
    return str(name)


def _affine(reader: Reader, name: str, kind: str) -> NodeProto | None:
    """The product or sum with a constant that alone takes a value."""
    user = reader.sole_user(name)
    if user is None or user.op_type != kind or reader.is_done(user):
        return None
    others = [reader.constant(n) for n in user.input if n != name]
    return user if len(others) == 1 and others[0] is not None else None


def _is_square(reader: Reader, node: NodeProto) -> bool:
    if node.op_type == "Pow":
        return _is(_number(reader, node.input[1]), 2)
    return bool(node.op_type == "Mul" and node.input[0] == node.input[1])
