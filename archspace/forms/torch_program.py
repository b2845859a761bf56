"""A torch module, or a program that torch.export made of one -> Graph, by way of ONNX in memory."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.interface import Interface, Steps, TrainedModel, steps_in, steps_out
from netlathe.archspace.forms.onnx_structure import read_structure, read_structure_with_weights
from netlathe.archspace.forms.structure import nchw
from netlathe.archspace.forms.torch import TorchGraph
from netlathe.archspace.graph import Graph

EXPORTER = "onnxscript"
"""The package that torch's ONNX exporter needs."""

ExampleInputs = Tensor | Sequence[Any] | Mapping[str, Any]
"""Arguments of a module's forward: one tensor, several arguments, or arguments by name."""


def read_module(module: nn.Module, example_inputs: ExampleInputs) -> Graph:
    """The graph of a module in eval mode, for inputs of these shapes. The module stays as it is.

    Raises FormatError, with torch's own reason, for a module that torch cannot export, and where the exporter's package
    is not installed.
    """
    return read_program(_program_of(module, example_inputs), type(module).__name__)


def read_module_weights(module: nn.Module, example_inputs: ExampleInputs) -> TrainedModel:
    """The graph of a module in eval mode, its weights and its interface, as of onnx.read_onnx_weights.

    The module stays as it is. Raises FormatError as read_module does, and for weights that cannot be read.
    """
    return read_program_weights(_program_of(module, example_inputs), type(module).__name__)


def save_module(module: nn.Module, example_inputs: ExampleInputs, path: Path) -> None:
    """Writes a module in eval mode as an .onnx file, for inputs of these shapes. Raises FormatError as read_module
    does."""
    name = type(module).__name__
    exported = _exported(_program_of(module, example_inputs), name)
    _quietly(name, lambda: exported.save(path))


def save_program(network: TorchGraph, path: Path, interface: Interface | None = None) -> None:
    """Writes a network as a program of torch.export (.pt2), for inputs of the graph's own shapes, with these inputs and
    outputs. Raises FormatError as read_module does."""
    graph = network.graph
    if interface is None:
        program = _program_of(network, tuple(torch.zeros(nchw(shape)) for shape in graph.inputs))
    else:
        shapes = [port.shape(graph.inputs[port.place]) for port in interface.inputs]
        program = _program_of(_AsGiven(network, interface), tuple(map(torch.zeros, shapes)))
    _quietly(type(network).__name__, lambda: torch.export.save(program, path))


class _AsGiven(nn.Module):
    """A network with the inputs and outputs of the model that it was made of; of any batch."""

    def __init__(self, network: TorchGraph, interface: Interface) -> None:
        super().__init__()
        self.layers = network.layers  # all that has parameters, which so keep their names
        self._network, self._outputs = (network,), interface.outputs
        self._inputs = sorted(enumerate(interface.inputs), key=lambda one: one[1].place)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The outputs as the model gives them: one, or several."""
        (network,) = self._network
        graph = network.graph
        turned = [_stepped(inputs[at], steps_in(port, graph.inputs[port.place])) for at, port in self._inputs]
        found = network(*turned)
        found = found if isinstance(found, tuple) else (found,)
        shapes = graph.output_shapes
        outputs = [_stepped(found[port.place], steps_out(port, shapes[port.place])) for port in self._outputs]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def _stepped(x: Tensor, steps: Steps) -> Tensor:
    for kind, numbers in steps:
        x = x.permute(numbers) if kind == "Transpose" else x.reshape(-1, *numbers[1:])
    return x


def _program_of(module: nn.Module, example_inputs: ExampleInputs) -> torch.export.ExportedProgram:
    args = (example_inputs,) if isinstance(example_inputs, Tensor) else example_inputs
    positional, named = ((), dict(args)) if isinstance(args, Mapping) else (tuple(args), {})
    with _in_eval_mode(module), torch.no_grad():
        program = _quietly(type(module).__name__, lambda: torch.export.export(module, positional, named))
    assert isinstance(program, torch.export.ExportedProgram)
    return program


def read_program(program: torch.export.ExportedProgram, name: str = "the program") -> Graph:
    """The graph of an exported program. Raises FormatError as read_module does."""
    return read_structure(_model_of(program, name))


def read_program_weights(program: torch.export.ExportedProgram, name: str = "the program") -> TrainedModel:
    """The graph of an exported program, its weights and its interface, as of onnx.read_onnx_weights.

    Raises FormatError as read_module_weights does.
    """
    return read_structure_with_weights(_model_of(program, name))


def _model_of(program: torch.export.ExportedProgram, name: str) -> ModelProto:
    exported = _exported(program, name)
    try:
        model = exported.model_proto
    except ValueError as error:  # protobuf ends at 2 GB
        raise FormatError(f"{name}: its weights are more than a model of 2 GB holds ({error!s:.100})") from error
    assert isinstance(model, ModelProto)
    return model


def _exported(program: torch.export.ExportedProgram, name: str) -> Any:
    if find_spec(EXPORTER) is None:
        raise FormatError(f"torch's exporter needs {EXPORTER}: pip install {EXPORTER}")
    return _quietly(name, lambda: _to_onnx(program))


def _to_onnx(program: torch.export.ExportedProgram) -> Any:
    """By torch's exporter; for what it has no translation of, such as attention of other ranks, in simpler ops."""
    try:
        return torch.onnx.export(program, dynamo=True, verbose=False)
    except torch.onnx.OnnxExporterError:
        with sdpa_kernel(SDPBackend.MATH):
            simpler = program.run_decompositions()
        return torch.onnx.export(simpler, dynamo=True, verbose=False)


def _quietly(name: str, export: Any) -> Any:
    """Program that torch exports, without what its exporter says of itself on the way."""
    said, level = StringIO(), logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(said), redirect_stderr(said):
            warnings.simplefilter("ignore")
            return export()
    except Exception as error:  # whatever a user's own forward may raise
        raise FormatError(f"{name}: torch cannot export it: {_reason(error)}") from error
    finally:
        logging.disable(level)


def _reason(error: BaseException) -> str:
    """The first line of what began it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:300]


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Each part gets its own mode back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
