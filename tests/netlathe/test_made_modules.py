"""FILE.py:FUNCTION wherever a network may be named: a module, a pair, a program, and what goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_cli import answer, refusal

import netlathe as nl
from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.torch import TorchGraph, load_weights
from netlathe.archspace.graph import Graph

LAYERS = """
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))
"""
MODELS = """
from dataclasses import dataclass

import torch

from layers import Small

@dataclass
class Size:
    pixels: int = 12

    def images(self, count=1):
        return torch.zeros(count, 3, self.pixels, self.pixels)

def bare():
    return Small()

def pair():
    module = Small()
    for parameter in module.parameters():
        torch.nn.init.constant_(parameter, 0.5)
    return module, Size().images()

def program():
    return torch.export.export(Small().eval(), (Size().images(),))

def number():
    return 3

def broken():
    raise ValueError("no weights at hand")

def leaves():
    raise SystemExit("trained already")
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "layers.py").write_text(LAYERS)
    (tmp_path / "models.py").write_text(MODELS)
    return tmp_path / "models.py"


def kinds(graph: Graph) -> list[str]:
    return [type(node.op).__name__ for node in graph.nodes]


@pytest.mark.parametrize("name", ["pair", "program"])
def test_what_a_function_returns_is_read_at_its_own_size(models: Path, name: str) -> None:
    graph = nl.read(f"{models}:{name}")
    assert graph.inputs == ((1, 12, 12, 3),)
    assert kinds(graph) == ["Conv2d", "Activation", "GlobalAvgPool", "FullyConnected"]


@pytest.mark.parametrize("name", ["bare", "pair"])
def test_a_shape_that_is_given_is_the_one_that_a_module_is_read_at(models: Path, name: str) -> None:
    assert nl.read(f"{models}:{name}", shapes={"": (1, 3, 9, 7)}).inputs == ((1, 9, 7, 3),)


def test_its_weights_are_those_of_the_module(models: Path) -> None:
    graph, weights = nl.read_weights(f"{models}:pair")
    with torch.no_grad():
        module = TorchGraph(graph).eval()
        load_weights(module, weights)
        found = module(torch.ones(1, 3, 12, 12))
    # of ones: 27 halves and an offset of a half in the convolution, then eight halves of that and an offset
    assert found.tolist() == [[0.5 * 8 * 14 + 0.5] * 2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bare", r"models.py:bare: nothing tells the size of its input: .*--shape 1x3x224x224"),
        ("number", r"models.py:number: must return a torch module, a pair .* got 3$"),
        ("broken", r"models.py: line \d+: ValueError: no weights at hand$"),
        ("leaves", r"models.py: line \d+: SystemExit: trained already$"),
        ("pear", r"models.py: has no function 'pear' \(did you mean 'pair'\?\)"),
    ],
)
def test_a_function_that_makes_no_module_is_told(models: Path, name: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        nl.read(f"{models}:{name}")


def test_a_program_takes_no_other_size(models: Path) -> None:
    with pytest.raises(FormatError, match="an exported program has its sizes; leave --shape out"):
        nl.read(f"{models}:program", shapes={"": (1, 3, 9, 7)})


def test_a_file_that_is_missing_or_no_python_is_told(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nowhere\.py: there is no such file"):
        nl.read(f"{tmp_path / 'nowhere.py'}:make")
    path = tmp_path / "wrong.py"
    path.write_text("def make(:\n")
    with pytest.raises(FormatError, match=r"wrong\.py: .*SyntaxError"):
        nl.read(f"{path}:make")


def test_commands_take_it(models: Path) -> None:
    assert answer("show", f"{models}:pair")["macs"] == 100 * 27 * 8 + 8 * 2
    assert "no weights at hand" in refusal("show", f"{models}:broken")
