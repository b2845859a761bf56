"""Installed from a wheel, outside the checkout: one import name, typed, with its files, beside a user's own modules."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(*command: object, cwd: Path, extra: Mapping[str, str] | None = None) -> str:
    """Standard output of a command that must succeed. Nothing of this checkout is on its path."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")} | (extra or {})
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made from an unpacked source distribution as packagers make it."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("netlathe-*.whl")
    return wheel


def test_the_source_distribution_holds_its_tests_and_all_that_they_read(wheel: Path, tmp_path: Path) -> None:
    (archive,) = wheel.parent.glob("netlathe-*.tar.gz")
    with tarfile.open(archive) as content:
        content.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    rooms = ("archspace", "compress", "device_scripts", "predictor", "profiler", "search", "training")
    for name in run("git", "ls-files", ":!.gitignore", cwd=ROOT).split():
        is_room = name.split("/")[0] in rooms
        assert (unpacked / ("src/netlathe" if is_room else "") / name).exists(), name
    environment = {"PYTHONPATH": str(unpacked / "src")}
    collect = (sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", "-p", "no:cacheprovider")
    assert re.search(r"\d{4} tests collected|\d{4}/\d+ tests collected", run(*collect, cwd=unpacked, extra=environment))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The bin folder of a clean environment that holds netlathe from its wheel."""
    run(sys.executable, "-m", "venv", wheel.parent / "venv", cwd=wheel.parent)
    venv = wheel.parent / "venv" / "bin"
    pip = (venv / "pip", "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=wheel.parent)
    return venv


def test_the_top_level_of_the_wheel_is_netlathe_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"netlathe"}
    deep = {"netlathe/search/strategies/binarized/loop.py", "netlathe/profiler/adb/usb.py"}
    assert {"netlathe/py.typed", *deep} <= {*names}
    in_checkout = run("git", "ls-files", "data", "device_scripts", ":!data/latency", cwd=ROOT).split()
    assert {f"netlathe/{name}" for name in in_checkout} <= {*names}
    assert not [name for name in names if "__pycache__" in name or name.startswith("netlathe/tests")]


def test_data_and_device_scripts_are_found(installed: Path, tmp_path: Path) -> None:
    code = (
        "from netlathe.archspace.resources import data_path, device_script_path as script\n"
        "print(data_path('nas_bench_macro_cifar10.parquet'), script('describe.sh'))"
    )
    for path in run(installed / "python", "-c", code, cwd=tmp_path).split():
        assert Path(path).is_file()
        assert ROOT not in Path(path).parents


@pytest.mark.parametrize("name", ["archspace", "compress", "predictor", "profiler", "search", "training"])
def test_a_users_own_script_may_be_called_as_a_room_is(installed: Path, tmp_path: Path, name: str) -> None:
    script = tmp_path / f"{name}.py"
    script.write_text(
        "from netlathe.archspace.networks import network\n"
        "from netlathe.predictor import LatencyPredictor\n"
        "from netlathe.profiler import open_device\n"
        "from netlathe.search import search\n"
        "print(network('mobilenet_v2').name)\n"
    )
    assert run(installed / "python", script, cwd=tmp_path) == "mobilenet_v2\n"


def test_a_users_own_script_is_type_checked_strictly(installed: Path, tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "from netlathe.archspace.networks import network\n"
        "from netlathe.predictor import LatencyPredictor\n"
        "predictor = LatencyPredictor.load('pixel.json')\n"
        "latency_ms = predictor.predict([network('mobilenet_v2')])\n"
        "reveal_type(latency_ms.tolist()[0] + 1.0)\n"
    )
    checker = (sys.executable, "-m", "mypy", "--strict", "--python-executable", installed / "python")
    printed = run(*checker, script, cwd=tmp_path)
    assert "Success: no issues found" in printed


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
