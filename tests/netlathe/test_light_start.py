"""Nothing that predicts, profiles or times imports what takes long to import and is not needed there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from netlathe.archspace.blocks import ConvBlock, LinearHead
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.graph import chain

NETWORK = chain([("a", ConvBlock(3, 8, 32, 32, 2).graph()), ("b", LinearHead(8, 10, 16, 16).graph())])
LIBRARIES = {"sklearn", "scipy", "pandas", "xgboost", "torch", "matplotlib", "pyarrow", "optuna", "onnxruntime"}
HEAVY = LIBRARIES | {"ai_edge_litert.interpreter"}
PROGRAM = """
import sys
from netlathe.cli import main
sys.argv = ["netlathe", *sys.argv[1:]]
try:
    main()
finally:
    print(" ".join(sys.modules), file=sys.stderr)
"""


def imported(*words: object) -> set[str]:
    """The modules in memory at the end of a command that succeeds."""
    command = [sys.executable, "-c", PROGRAM, *map(str, words)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "NETLATHE_PAGES": "0"})
    return set(run.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("what", ["net.onnx", "net.tflite", "mobilenet_v2", "mbconv_k3_e6_s1_c16-16_56x56_relu6"])
def test_predicting_imports_nothing_heavy(what: str, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(write_onnx(NETWORK))
    (tmp_path / "net.tflite").write_bytes(write_tflite(NETWORK))
    given = tmp_path / what if what.startswith("net.") else what
    found = imported("predict", given, "--predictor", "pixel4-cpu-networks")
    assert "numpy" in found
    assert not HEAVY & found
    if what != "net.onnx":
        assert "onnx" not in found
    if what != "net.tflite":
        assert not any(name.startswith(("ai_edge_litert", "flatbuffers")) for name in found)


@pytest.mark.parametrize("words", [["predictors"], ["predictors", "pixel4-gpu"]])
def test_listing_predictors_imports_nothing_heavy(words: list[str]) -> None:
    assert not (HEAVY | {"onnx"}) & imported(*words)


def test_help_imports_no_numbers_and_no_ops() -> None:
    assert not (HEAVY | {"onnx", "numpy", "netlathe.archspace.ops"}) & imported("--help")


def test_the_package_imports_nothing_but_itself() -> None:
    program = "import sys; before = {*sys.modules}; import netlathe; print(*{*sys.modules} - before)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not (LIBRARIES | {"numpy", "typer", "rich", "onnx"}) & set(run.stdout.split())


@pytest.mark.parametrize(
    "words",
    [
        ["show", "mobilenet_v2", "--predictor", "pixel4-cpu-networks"],
        ["check", "mobilenet_v2", "--predictor", "pixel4-cpu-networks", "--max-ms", "99"],
        ["devices"],
    ],
    ids=lambda words: words[0],
)
def test_other_looks_import_nothing_heavy(words: list[str]) -> None:
    assert not (HEAVY | {"onnx"}) & imported(*words)


def test_profiling_timing_and_forecasts_import_their_runtime_alone(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(write_tflite(NETWORK))
    profile = (
        "profile", "--device", "local", "--models", tmp_path / "net.tflite", "--rounds", 3, "--networks", 0,
        "--output", tmp_path / "p.sqlite",
    )  # fmt: skip
    assert not LIBRARIES & imported(*profile, "--dry-run")
    runs = [profile, ("time", tmp_path / "net.tflite", "--budget-s", 1)]
    for words in runs:
        found = imported(*words)
        assert "ai_edge_litert.interpreter" in found
        assert not LIBRARIES & found


def test_a_few_shot_predictor_predicts_with_numpy_alone(tmp_path: Path) -> None:
    from netlathe.predictor import LatencyPredictor

    blocks = [ConvBlock(3, 8, size, size, 2) for size in (8, 16, 32, 64)]
    fitted = LatencyPredictor(prior="phones49").fit([*blocks, NETWORK], [0.1, 0.2, 0.4, 0.8, 1.0])
    assert fitted.prior_share_ > 0
    fitted.save(tmp_path / "few.json")
    found = imported("predict", "mobilenet_v2", "--predictor", tmp_path / "few.json")
    assert not HEAVY & found
