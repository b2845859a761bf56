"""Networks of any form as graphs: files, torch modules, names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from netlathe.archspace.errors import FormatError
from netlathe.archspace.graph import Graph
from netlathe.subjects import Given, find_subject, is_torch

if TYPE_CHECKING:
    from netlathe.archspace.forms.torch_program import ExampleInputs


def read(
    model: Given,
    example_inputs: ExampleInputs | None = None,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Graph:
    """The graph of a network: of a .onnx or .tflite file, a name (also timm:NAME and torchvision:NAME, where these are
    installed), a run's folder, an architecture, a torch module or exported program.

    A module needs `example_inputs`, what its forward is called with: a tensor, several, or a mapping of names. `shapes`
    gives sizes that a file leaves open, by the names of its inputs and in the file's order of axes; the name "" is that
    of a single input. What netlathe has no op for is Opaque in the graph. Raises FormatError for what cannot be read,
    SpaceError for a name that is unknown.
    """
    if example_inputs is not None and not is_torch(model, "nn", "Module"):
        raise FormatError("only a torch module takes example inputs; give a file's open sizes by shapes=")
    return find_subject(model, batch=None, shapes=shapes, example_inputs=example_inputs).graph
