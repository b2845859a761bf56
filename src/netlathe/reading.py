"""Networks of any form as graphs: files, torch modules, names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Union

from netlathe.archspace.errors import FormatError
from netlathe.archspace.graph import Graph
from netlathe.made_modules import is_made_name, made_module
from netlathe.subjects import Given, find_subject, is_torch, weights_reader

if TYPE_CHECKING:
    import torch

    from netlathe.archspace.forms.interface import TrainedModel
    from netlathe.archspace.forms.torch_program import ExampleInputs
    from netlathe.archspace.forms.weights import Weights


def read(
    model: Given,
    example_inputs: ExampleInputs | None = None,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Graph:
    """The graph of a network: of a .onnx or .tflite file, a name (also timm:NAME and torchvision:NAME, where these are
    installed), FILE.py:FUNCTION, a run's folder, an architecture, a torch module or exported program.

    The function of FILE.py is called without arguments; it returns a torch module, a pair (module, example inputs) or
    an exported program.

    A module needs `example_inputs`, what its forward is called with: a tensor, several, or a mapping of names. `shapes`
    gives sizes that a file leaves open, by the names of its inputs and in the file's order of axes; the name "" is that
    of a single input. What netlathe has no op for is Opaque in the graph. Raises FormatError for what cannot be read,
    SpaceError for a name that is unknown.
    """
    _check_example_inputs(model, example_inputs)
    return find_subject(model, batch=None, shapes=shapes, example_inputs=example_inputs).graph


Trained = Union[str, Path, "torch.nn.Module", "torch.export.ExportedProgram"]
"""A model that has weights: its file, the name of what makes it, or the object itself."""


def read_weights(
    model: Trained,
    example_inputs: ExampleInputs | None = None,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> tuple[Graph, Weights]:
    """The graph of a trained network, as of `read`, and its weights: arrays by the names of the graph's nodes, in the
    graph's layout. Of a float32 .onnx or .tflite file, FILE.py:FUNCTION, timm:NAME or torchvision:NAME (with random
    weights), a torch module or an exported program.

    `write_onnx`, `write_tflite` and a `TorchGraph` after `load_weights` compute with them what the model does. The
    arguments are those of `read`. Raises FormatError where `read` does, and naming the layers whose weights cannot be
    read: ops that netlathe does not have, weights that are quantized already.
    """
    graph, weights, _ = read_trained(model, example_inputs, shapes=shapes)
    return graph, weights


def read_trained(
    model: Trained, example_inputs: ExampleInputs | None = None, *, shapes: Mapping[str, Sequence[int]] | None = None
) -> TrainedModel:
    """The graph and weights of `read_weights`, and the inputs and outputs of the model. Raises as it does."""
    _check_example_inputs(model, example_inputs)
    if isinstance(model, str) and is_made_name(model):
        made = made_module(model, shapes=shapes)
        return read_trained(made.module, made.inputs)
    if isinstance(model, str | Path):
        return weights_reader(Path(model))(Path(model), shapes=shapes)
    from netlathe.archspace.forms.torch_program import read_module_weights, read_program_weights

    if is_torch(model, "export", "ExportedProgram"):
        return read_program_weights(model)  # type: ignore[arg-type]
    if not is_torch(model, "nn", "Module"):
        raise FormatError(f"a model file, torch module or exported program is needed, got {model!r:.60}")
    if example_inputs is None:
        raise FormatError("a module needs example inputs: read_weights(module, torch.zeros(1, 3, 224, 224))")
    return read_module_weights(model, example_inputs)  # type: ignore[arg-type]


def _check_example_inputs(model: object, example_inputs: object) -> None:
    if example_inputs is not None and not is_torch(model, "nn", "Module"):
        raise FormatError("only a torch module takes example inputs; give a file's open sizes by shapes=")
