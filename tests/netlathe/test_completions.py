"""What a shell offers: commands, options and known names, without what takes long to import."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from netlathe.archspace.networks import NETWORKS
from netlathe.cli.app import make_app
from netlathe.cli.completions import DEVICES, NAMES
from netlathe.predictor import shipped_names
from netlathe.profiler.devices import _OPENERS
from netlathe.runs.compression import strategies
from netlathe.search.strategies.blackbox.names import STRATEGIES
from netlathe.tracking import TRACKERS
from netlathe.training import RECIPES

PROGRAM = """
import sys
sys.argv = ["netlathe"]
from netlathe.cli import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


def ask(line: str) -> tuple[list[str], set[str]]:
    """What is offered for the last word of a line, and the modules that this took."""
    words = line.split(" ")
    environment = {
        **os.environ, "_NETLATHE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)
    }  # fmt: skip
    run = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    return run.stdout.split(), set(run.stderr.split())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("netlathe predict", ["predict", "predictors"]),
        ("netlathe predict mob", ["mobilenet_v2"]),
        ("netlathe predict mobilenet_v2 --predictor pixel4-g", ["pixel4-gpu"]),
        ("netlathe search --strategy e", ["ego", "evolution"]),
        ("netlathe show model.onnx --predi", ["--predictor"]),
        ("netlathe compress --recipe c", ["cifar"]),
        ("netlathe profile --space ke", ["kernels"]),
        ("netlathe predict ./my_file", []),
    ],
)
def test_names_are_offered_and_nothing_slow_is_imported(line: str, expected: list[str]) -> None:
    offered, modules = ask(line)
    assert offered == expected
    assert not modules & {"torch", "pandas", "scipy", "sklearn", "matplotlib", "optuna", "pyarrow", "onnx"}


def test_the_names_are_the_real_ones() -> None:
    assert {*DEVICES} - {"usb"} == _OPENERS.keys()
    assert list(NAMES["", "what"]()) == list(NETWORKS)
    assert list(NAMES["", "predictor"]()) == list(NAMES["predictors", "name"]()) == shipped_names()
    own = [strategies.INTEGER_PROGRAM, strategies.UNIFORM, strategies.NETADAPT]
    assert list(NAMES["compress", "strategy"]()) == [*own, *STRATEGIES]
    assert list(NAMES["search", "strategy"]()) == ["binarized", *STRATEGIES]
    assert list(NAMES["", "recipe"]()) == list(RECIPES)
    assert list(NAMES["", "track"]()) == list(TRACKERS)


def test_every_command_offers_names_where_it_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_NETLATHE_COMPLETE", "complete_bash")
    group: Any = typer.main.get_command(make_app())
    parameters = {(name, one.name): one for name, command in group.commands.items() for one in command.params}
    anywhere = {name for command, name in NAMES if not command}
    named = {key: one for key, one in parameters.items() if key in NAMES or key[1] in anywhere}
    assert len(named) > 20
    assert not {key for key, one in named.items() if not one._custom_shell_complete}
    assert {key for key in NAMES if key[0]} <= named.keys()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_a_name_with_the_script_that_is_shown(tmp_path: Path) -> None:
    program = tmp_path / "netlathe"
    program.write_text(f"#!{sys.executable}\nfrom netlathe.cli import main\nmain()\n")
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    settings: dict[str, Any] = {"env": environment, "capture_output": True, "text": True, "check": True}
    shown = subprocess.run([program, "--show-completion", "bash"], **settings).stdout
    asked = "COMP_WORDS=(netlathe predict mnas); COMP_CWORD=2; _netlathe_completion netlathe; echo ${COMPREPLY[@]}"
    run = subprocess.run(["bash", "-c", f"{shown}\n{asked}"], **settings)
    assert run.stdout.split() == ["mnasnet_b1"]
