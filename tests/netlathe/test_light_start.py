"""Predicting imports numpy and the reader of the file, and nothing that takes long to import."""

import subprocess
import sys
from pathlib import Path

import pytest

from netlathe.archspace.blocks import ConvBlock, LinearHead
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.graph import chain

NETWORK = chain([("a", ConvBlock(3, 8, 32, 32, 2).graph()), ("b", LinearHead(8, 10, 16, 16).graph())])
HEAVY = {"sklearn", "scipy", "pandas", "xgboost", "torch", "matplotlib", "pyarrow", "ai_edge_litert.interpreter"}
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
    run = subprocess.run(command, capture_output=True, text=True, check=True)
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


def test_help_imports_no_numbers() -> None:
    assert not (HEAVY | {"onnx", "numpy"}) & imported("--help")


def test_a_few_shot_predictor_predicts_with_numpy_alone(tmp_path: Path) -> None:
    from netlathe.predictor import LatencyPredictor

    blocks = [ConvBlock(3, 8, size, size, 2) for size in (8, 16, 32, 64)]
    fitted = LatencyPredictor(prior="phones49").fit([*blocks, NETWORK], [0.1, 0.2, 0.4, 0.8, 1.0])
    assert fitted.prior_share_ > 0
    fitted.save(tmp_path / "few.json")
    found = imported("predict", "mobilenet_v2", "--predictor", tmp_path / "few.json")
    assert not HEAVY & found
