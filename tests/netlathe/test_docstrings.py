"""Docstrings stand alone: each begins with a noun or verb phrase that is understood without its neighbours."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.documents import ROOT

ROOMS = (
    "archspace",
    "compress",
    "training",
    "predictor",
    "profiler",
    "search",
    "src/netlathe",
    "benchmarks",
    "scripts",
    "examples",
)
NOT_ALONE = ("Of", "What")
"""First words that lean on the name or the line beside them."""


def docstrings(source: str) -> list[tuple[int, str]]:
    """(line, text) of every docstring, those of attributes included."""
    bodies = [node.body for node in ast.walk(ast.parse(source)) if isinstance(getattr(node, "body", None), list)]
    values = [one.value for body in bodies for one in body if isinstance(one, ast.Expr)]
    texts = [value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]
    return [(text.lineno, str(text.value).strip()) for text in texts]


def leaning(source: str) -> list[tuple[int, str]]:
    """Those that begin with a word that needs its neighbours."""
    return [(line, text) for line, text in docstrings(source) if text.partition(" ")[0] in NOT_ALONE]


def test_docstrings_of_modules_classes_functions_and_attributes_are_seen() -> None:
    source = '"""Of a."""\nclass A:\n    """What b."""\n    x = 1\n    """Of c."""\n'
    source += '    def f(self):\n        """Official."""\n'
    assert [line for line, _ in leaning(source)] == [1, 3, 5]
    assert len(docstrings(source)) == 4


def files(room: str) -> list[Path]:
    """The Python files of a room; links of src/netlathe lead to other rooms."""
    return [path for path in sorted((ROOT / room).rglob("*.py")) if path == path.resolve()]


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_stand_alone(room: str) -> None:
    paths = files(room)
    assert paths
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text[:60]}" for path in paths for line, text in leaning(path.read_text())
    ]
    assert not found, "\n".join(found)
