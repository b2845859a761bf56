"""Inputs and outputs of a model as its caller sees them: their names, and the order of their axes, which a graph may
hold in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.layouts import Axes, in_file
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
    kept = tuple(axis for axis, size in enumerate(shapes[place]) if size != 1)
    if len({*axes}) < len(axes) or not {*kept} <= {*axes} <= {*range(len(shapes[place]))}:
        raise ValueError(f"axes {axes!r:.100} of a tensor of shape {shapes[place]}")
    return Port(name, place, tuple(axes))


class TrainedModel(NamedTuple):
    """A model as it was read."""

    graph: Graph
    weights: Weights
    interface: Interface | None
    """None where it is what netlathe's own forms of the graph have."""


class Turn(NamedTuple):
    """A port's shape, and that of the tensor which netlathe's own forms have in its place, images with channels first.

    From the port to the own form: axes in `order`, then reshaped to `own`. Back: reshaped to `turned`, then axes in
    the order `back`.
    """

    port: Shape
    own: Shape
    order: Axes

    @property
    def turned(self) -> Shape:
        """The port's sizes in the own form's order."""
        return tuple([self.port[axis] for axis in self.order])

    @property
    def back(self) -> Axes:
        """The turned axes in the port's order."""
        return tuple([self.order.index(axis) for axis in range(len(self.order))])

    @property
    def is_turned(self) -> bool:
        """Whether axes stand in another order."""
        return self.order != tuple(range(len(self.order)))


def turn_of(port: Port, shape: Shape) -> Turn:
    """How the port's tensor and the own form's are made of each other, where the graph's has that shape (NHWC)."""
    places = [nchw_axis(axis, len(shape)) for axis in port.axes]
    return Turn(in_file(shape, port.axes), nchw(shape), tuple(sorted(range(len(places)), key=places.__getitem__)))
