"""What arguments alone show to be wrong is refused before anything heavy is imported, and before any work begins."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import netlathe as nl
from netlathe.archspace.blocks import ConvBlock, LinearHead
from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.graph import chain

NETWORK = chain([("a", ConvBlock(3, 8, 32, 32, 2).graph()), ("b", LinearHead(8, 10, 16, 16).graph())])
KNOWN = "pixel4-cpu-networks"
NO_FOLDER = "net.tflite/x"
"""Place of no file: a file stands where its folder would be."""
_TO_MEET = ["--predictor", KNOWN, "--target-ms", "30"]
_SEARCH = ["search", "--data", "digits", "--output", "run"]
_COMPRESS = ["compress", "net.tflite", "--output", "run", "--target"]
SEARCHES = {
    "predictor": ([*_SEARCH, "--predictor", "none", "--target-ms", "30"], "none: there is no such file"),
    "target": ([*_SEARCH, "--target", "none=30"], "none: there is no such file"),
    "space": ([*_SEARCH, *_TO_MEET, "--space", "none"], "unknown space 'none'"),
    "images": (["search", "--output", "run", *_TO_MEET, "--data", "none"], "none: no such file or folder"),
    "device": ([*_SEARCH, *_TO_MEET, "--device", "none"], "unknown device 'none'"),
    "profile": ([*_SEARCH, *_TO_MEET, "--device", "local", "--profile", "p.sqlite"], "there is no such profile file"),
    "binary": ([*_SEARCH, *_TO_MEET, "--device", "usb", "--benchmark-binary", "none"], "--benchmark-binary needs one"),
    "strategy": ([*_SEARCH, *_TO_MEET, "--strategy", "none"], "--strategy none: unknown"),
    "recipe": ([*_SEARCH, *_TO_MEET, "--recipe", "none"], "unknown recipe 'none'"),
    "limit": ([*_SEARCH, *_TO_MEET, "--limit", "none=3"], "--limit none: unknown"),
    "table": ([*_SEARCH, *_TO_MEET, "--limit", "none.csv:ms=3"], "none.csv: cannot be read as CSV"),
    "score": ([*_SEARCH, *_TO_MEET, "--strategy", "ego", "--score", "none.csv:a"], "none.csv: there is no such file"),
    "baselines": ([*_SEARCH, *_TO_MEET, "--baselines", "none"], "--baselines none: expected widths"),
    "tracker": ([*_SEARCH, *_TO_MEET, "--track", "none"], "--track 'none': there is no such tracker"),
    "output": (["search", "--data", "digits", "--output", NO_FOLDER, *_TO_MEET], "cannot be written"),
}
COMPRESSIONS = {
    "predictor": ([*_COMPRESS, "none=3"], "none: there is no such file"),
    "model": (["compress", "none.onnx", "--output", "run", "--target", f"{KNOWN}=3"], "none.onnx: there is no such"),
    "device": ([*_COMPRESS, f"{KNOWN}=3", "--device", "none"], "unknown device 'none'"),
    "images": ([*_COMPRESS, f"{KNOWN}=3", "--data", "none"], "none: no such file or folder"),
    "strategy": ([*_COMPRESS, f"{KNOWN}=3", "--strategy", "none"], "strategy 'none': unknown"),
    "recipe": ([*_COMPRESS, f"{KNOWN}=3", "--recipe", "none"], "unknown recipe 'none'"),
    "precision": ([*_COMPRESS, f"{KNOWN}=3", "--precisions", "none"], "precisions: the precision must be one of"),
    "normalization": ([*_COMPRESS, f"{KNOWN}=3", "--normalization", "none"], "normalization 'none'"),
    "costs": ([*_COMPRESS, f"{KNOWN}=3", "--costs", "none.csv", "--limit", "mJ=3"], "none.csv: cannot be read"),
    "tracker": ([*_COMPRESS, f"{KNOWN}=3", "--track", "none"], "there is no such tracker"),
    "output": (["compress", "net.tflite", "--target", f"{KNOWN}=3", "--output", NO_FOLDER], "cannot be written"),
}
OTHERS = {
    "profile's device": (["profile", "--device", "none", "--output", "p.sqlite"], "unknown device 'none'"),
    "profile's address": (["profile", "--device", "tcp:", "--output", "p.sqlite"], "is not the address of a phone"),
    "profile's space": (["profile", "--space", "none", "--output", "p.sqlite"], "unknown space 'none'"),
    "profile's output": (["profile", "--space", "tiny", "--output", NO_FOLDER], "cannot be written"),
    "fit's source": (["fit", "none.sqlite", "--output", "f.json"], "there is no such profile file"),
    "fit's table": (["fit", "none.csv", "--output", "f.json"], "none.csv: there is no such table"),
    "predict's predictor": (["predict", "mobilenet_v2", "--predictor", "none"], "none: there is no such file"),
    "predict's network": (["predict", "none", "--predictor", KNOWN], "unknown network 'none'"),
    "time's device": (["time", "net.tflite", "--device", "none"], "unknown device 'none'"),
    "time's profile": (["time", "net.tflite", "--profile", "none.sqlite"], "there is no such profile file"),
    "time's file": (["time", "none.tflite"], "none.tflite: there is no such file"),
    "check's device": (["check", "net.tflite", "--max-ms", "3", "--device", "none"], "unknown device 'none'"),
    "show's predictor": (["show", "mobilenet_v2", "--predictor", "none"], "none: there is no such file"),
    "compare's network": (["compare", "none", "--predictor", KNOWN], "unknown network 'none'"),
    "export's run": (["export", "none", "--output", "x.tflite"], "none: there is no such run"),
    "pareto's run": (["pareto", "none"], "neither this folder nor one right below it"),
    "report's subject": (["report", "none"], "none: there is no such run's folder, profile or predictor"),
    "recipe": (["recipes", "none"], "unknown recipe 'none'"),
    "demo's images": (["demo", "--data", "none", "--output", "run"], "none: no such file or folder"),
    "demo's output": (["demo", "--output", NO_FOLDER], "cannot be written"),
    "phone to clean": (["device", "clean", "--device", "none"], "is not the address of a phone"),
}
CASES = {
    **{f"search: {name}": case for name, case in SEARCHES.items()},
    **{f"compress: {name}": case for name, case in COMPRESSIONS.items()},
    **OTHERS,
}
PROGRAM = """
import json, sys
from typer.testing import CliRunner
from netlathe.cli.app import make_app

HEAVY = {"torch", "sklearn", "scipy", "pandas", "pyarrow", "matplotlib", "optuna", "onnx", "ai_edge_litert.interpreter"}
for words in json.load(sys.stdin):
    found = CliRunner().invoke(make_app(only=words[0]), words)
    print(json.dumps([found.exit_code, found.output, sorted(HEAVY & sys.modules.keys())]))
"""
"""Runs commands in one process: what one has imported, the later ones show as well."""


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, list[str]]]:
    """Exit code, output, and heavy libraries imported up to then, by case."""
    folder = tmp_path_factory.mktemp("refused")
    (folder / "net.tflite").write_bytes(write_tflite(NETWORK))
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=json.dumps([words for words, _ in CASES.values()]), cwd=folder,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [one.name for one in folder.iterdir()] == ["net.tflite"], "a refused command left files"
    return dict(zip(CASES, map(json.loads, found.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_command_refuses_before_it_imports_what_takes_seconds(
    refused: dict[str, tuple[int, str, list[str]]], case: str
) -> None:
    code, output, imported = refused[case]
    words = " ".join(output.split())
    assert CASES[case][1] in words
    assert words.count("Error: ") == 1
    assert code == (2 if case.startswith("check") else 1)
    assert imported == []


class Strict(nl.Listener):
    """Listener that no work may tell anything."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("step", "phase", "note", "working", "progress", "watching"):
            raise AssertionError(f"the work had begun: {name}")
        return super().__getattribute__(name)


TARGET = nl.Target(KNOWN, 30.0)
CALLS: dict[str, Callable[[nl.Listener], object]] = {
    "search: predictor": lambda to: nl.search("tiny", "digits", target=nl.Target("none", 3), output="r", progress=to),
    "search: device": lambda to: nl.search("tiny", "digits", target=TARGET, output="r", device="none", progress=to),
    "search: space": lambda to: nl.search("none", "digits", target=TARGET, output="r", progress=to),
    "search: images": lambda to: nl.search("tiny", "none", target=TARGET, output="r", progress=to),
    "search: profile": lambda to: nl.search(
        "tiny", "digits", target=TARGET, output="r", device="local", profile="none.sqlite", progress=to
    ),
    "compress: device": lambda to: nl.compress("net.tflite", target=TARGET, output="r", device="none", progress=to),
    "compress: images": lambda to: nl.compress("net.tflite", target=TARGET, output="r", data="none", progress=to),
    "compress: precision": lambda to: nl.compress(
        "net.tflite", target=TARGET, output="r", precisions=["none"], progress=to
    ),
    "compress: model": lambda to: nl.compress("none.tflite", target=TARGET, output="r", progress=to),
    "profile: device": lambda to: nl.profile("p.sqlite", device="none", progress=to),
    "profile: second device": lambda to: nl.profile("p.sqlite", device=["local", "none"], progress=to),
    "fit: source": lambda to: nl.fit("none.sqlite", "f.json", progress=to),
    "fit: prior": lambda to: nl.fit("net.csv", "f.json", prior="none", progress=to),
    "time: device": lambda to: nl.time("net.tflite", device="none", progress=to),
    "time: profile": lambda to: nl.time("net.tflite", profile="none.sqlite", progress=to),
    "time: options": lambda to: nl.time("net.tflite", delegate="gpu", progress=to),
    "check: device": lambda to: nl.check("net.tflite", device="none", max_ms=3, progress=to),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_function_refuses_before_it_works(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.tflite").write_bytes(write_tflite(NETWORK))
    (tmp_path / "net.csv").write_text("network,latency_ms\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NetlatheError):
        CALLS[call](Strict())
    assert sorted(one.name for one in tmp_path.iterdir()) == ["net.csv", "net.tflite"]
