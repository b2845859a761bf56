"""Inputs and outputs of a model as its caller sees them: their names, and the order of their axes, which a graph may
hold in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal, NamedTuple

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.layouts import Axes, in_file, plain
from netlathe.archspace.forms.structure import nchw, nchw_axis
from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import Shape, is_integer


@dataclass(frozen=True)
class Port:
    """An input or output of a model."""

    name: str
    place: int
    """Which of the graph's inputs or outputs it is; several outputs may be one of the graph's."""
    axes: Axes
    """For each of its axes, which of the graph's it is; the graph's others hold one value."""

    def shape(self, graph_shape: Shape) -> Shape:
        """Its shape where the graph's tensor has that one."""
        return in_file(graph_shape, self.axes)


@dataclass(frozen=True)
class Interface:
    """All that a caller of a model has to know."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def to_json(self) -> dict[str, Any]:
        return {side: [[*astuple(port)] for port in getattr(self, side)] for side in ("inputs", "outputs")}

    @classmethod
    def from_json(cls, content: Any, graph: Graph) -> Interface:
        """The one of `to_json`. Raises FormatError for what is none of that graph."""
        try:
            inputs = tuple(_port(one, graph.inputs) for one in content["inputs"])
            return cls(inputs, tuple(_port(one, graph.output_shapes) for one in content["outputs"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"not the inputs and outputs of a model ({error!r:.200})") from error


def _port(content: Any, shapes: Sequence[Shape]) -> Port:
    name, place, axes = content
    if not isinstance(name, str) or not is_integer(place, 0) or place >= len(shapes):
        raise ValueError(f"{content!r:.100} is no port")
    needed = {axis for axis, size in enumerate(shapes[place]) if size != 1}
    if len({*axes}) < len(axes) or not needed <= {*axes} <= {*range(len(shapes[place]))}:
        raise ValueError(f"axes {axes!r:.100} of a tensor of shape {shapes[place]}")
    return Port(name, place, tuple(axes))


class TrainedModel(NamedTuple):
    """A model as it was read."""

    graph: Graph
    weights: Weights
    interface: Interface | None
    """None where it is what netlathe's own forms of the graph have."""


Steps = list[tuple[Literal["Transpose", "Reshape"], Shape]]
"""Ops that make one tensor of another, by their names in ONNX: an order of axes, or a shape. None where they are the
same."""


def steps_in(port: Port, shape: Shape) -> Steps:
    """How netlathe's own forms, which have an image's channels first, get what the graph has in that shape (NHWC) from
    the port's tensor."""
    own, turned, order = _turned(port, shape)
    steps: Steps = [] if order == plain(len(order)) else [("Transpose", order)]
    return steps if turned == own else [*steps, ("Reshape", own)]


def steps_out(port: Port, shape: Shape) -> Steps:
    """The way back: how the port's tensor is made of the own forms'."""
    own, turned, order = _turned(port, shape)
    steps: Steps = [] if turned == own else [("Reshape", turned)]
    back = tuple([order.index(axis) for axis in range(len(order))])
    return steps if order == plain(len(order)) else [*steps, ("Transpose", back)]


def _turned(port: Port, shape: Shape) -> tuple[Shape, Shape, Axes]:
    """The own forms' shape, that without the axes that the port has not, and the port's axes in their order there."""
    places = [nchw_axis(axis, len(shape)) for axis in port.axes]
    order = tuple(sorted(range(len(places)), key=places.__getitem__))
    given = port.shape(shape)
    return nchw(shape), tuple([given[axis] for axis in order]), order
