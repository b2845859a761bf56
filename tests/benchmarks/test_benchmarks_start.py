"""Every benchmark and script starts: its imports resolve, and it understands the options that documents show for it."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [path for folder in ("benchmarks", "scripts", "examples") for path in sorted((ROOT / folder).rglob("*.py"))]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md"), *FILES]
COMMAND = re.compile(r"python -m\s+((?:benchmarks|scripts|examples)(?:\.\w+)*)((?: [^`#\n]*)?)")
INLINE_CODE = re.compile(r"(?<!`)`(?!`)(?:[^`\n]|\n(?!\n))+`(?!`)")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


MODULES = [module_name(path) for path in FILES if path.parent.name != "examples"]
RUNNABLE = [module_name(path).removesuffix(".__main__") for path in FILES if "__name__ ==" in path.read_text()]


class StoppedError(Exception):
    """Raised in the place of the work, once the options are understood."""


def start(name: str, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The module's own `main`, up to where its options are understood."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> None:
        raise StoppedError(parse(self, args, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    module = import_module(name if hasattr(import_module(name), "main") else f"{name}.__main__")
    module.main(arguments) if signature(module.main).parameters else module.main()


def on_one_line(text: str) -> str:
    """The text with every inline code span, which Markdown may break over lines, on one line."""
    return INLINE_CODE.sub(lambda span: " ".join(span[0].split()), text)


def documented() -> dict[str, set[str]]:
    """The arguments that documents and docstrings show with a module, those in brackets given."""
    found: dict[str, set[str]] = {}
    for name, arguments in (match for path in DOCUMENTS for match in COMMAND.findall(on_one_line(path.read_text()))):
        found.setdefault(name, set()).add(re.sub(r"[][]|\.\.\.", " ", arguments).strip())
    return found


@pytest.mark.parametrize("name", MODULES)
def test_every_module_of_the_benchmarks_and_scripts_is_imported(name: str) -> None:
    import_module(name)


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_benchmark_and_script_says_what_it_does(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        start(name, ["--help"], monkeypatch)
    assert not ended.value.code
    assert len(capsys.readouterr().out.splitlines()) > 5


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_documented_command_is_understood(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in documented()[name]:
        with monkeypatch.context() as patches, pytest.raises(StoppedError):
            start(name, shlex.split(arguments), patches)


def test_every_documented_module_can_be_run() -> None:
    assert set(RUNNABLE) == documented().keys()
