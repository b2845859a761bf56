"""Installed from a wheel, outside the checkout, netlathe finds its files and runs its whole demo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(*command: object, cwd: Path) -> str:
    """Standard output of a command that must succeed. Nothing of this checkout is on its path."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a clean environment that holds netlathe from its wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("netlathe-*.whl")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    venv = folder / "venv" / "bin"
    run(venv / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=folder)
    return venv


def test_data_and_device_scripts_are_found(installed: Path, tmp_path: Path) -> None:
    code = (
        "from netlathe.archspace.resources import data_path, device_script_path as script\n"
        "print(data_path('nas_bench_macro_cifar10.parquet'), script('describe.sh'))"
    )
    for path in run(installed / "python", "-c", code, cwd=tmp_path).split():
        assert Path(path).is_file()
        assert ROOT not in Path(path).parents


def test_the_demo_ends_with_a_network_that_meets_its_target(installed: Path, tmp_path: Path) -> None:
    answer = json.loads(
        run(installed / "netlathe", "demo", "--output", "demo", "--json", cwd=tmp_path).splitlines()[-1]
    )
    baseline, found = answer["baseline"], answer["found"]
    assert answer["profile"]["blocks"] == 93
    assert found["predicted_ms"] <= answer["target_ms"] < baseline["predicted_ms"]
    assert found["measured_ms"] < baseline["measured_ms"]
    for network in (baseline, found):
        assert network["test_accuracy"] > 0.9
        assert network["tflite_accuracy"] == pytest.approx(network["test_accuracy"], abs=0.003)
    names = {str(p.relative_to(tmp_path / "demo")) for p in (tmp_path / "demo").rglob("*") if p.is_file()}
    assert names >= {
        "demo.json", "profile.sqlite", "predictor.json", "predicted_measured.png", "architectures.png",
        "found/architecture.json", "found/weights.npz", "found/network.tflite", "found/search.png", "found/search.json",
    }  # fmt: skip
    exported = run(
        installed / "netlathe", "export", "demo/found", "--format", "onnx", "--output", "n.onnx", "--json", cwd=tmp_path
    )
    assert json.loads(exported.splitlines()[-1])["bytes"] == (tmp_path / "n.onnx").stat().st_size
