"""Networks of any form as graphs: files, torch modules, names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from netlathe.archspace.errors import FormatError
from netlathe.archspace.graph import Graph
from netlathe.subjects import Given, find_subject

if TYPE_CHECKING:
    import torch

    from netlathe.archspace.forms.torch_program import ExampleInputs


def read(
    model: Given | torch.nn.Module | torch.export.ExportedProgram,
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
    if _is_torch(model, "nn", "Module"):
        from netlathe.archspace.forms.torch_program import read_module

        if example_inputs is None:
            raise FormatError("a module needs example inputs: read(module, torch.zeros(1, 3, 224, 224))")
        return read_module(model, example_inputs)  # type: ignore[arg-type]
    if example_inputs is not None:
        raise FormatError("only a torch module takes example inputs; give a file's open sizes by shapes=")
    if _is_torch(model, "export", "ExportedProgram"):
        from netlathe.archspace.forms.torch_program import read_program

        return read_program(model)  # type: ignore[arg-type]
    return find_subject(model, batch=None, shapes=shapes).graph  # type: ignore[arg-type]


def _is_torch(model: object, module: str, name: str) -> bool:
    """Whether it is an object of that class; torch is not imported for it."""
    import sys

    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, getattr(getattr(torch, module), name))
