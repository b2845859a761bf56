"""Pages of the documentation are walked from the first snippet to the last, as a newcomer does."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback.adbd import AdbDaemon
from loopback.phone import BENCHMARK_MODEL, LoopbackPhone, loopback_unavailable
from walks import on_phone, walk

from netlathe.profiler.protocol import PHONE_PLAN
from tests.documents import DOCS, python_blocks

NEEDS_PHONE = pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def daemon(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdbDaemon]:
    """A phone on 127.0.0.1, with fewer runs than a phone's own plan, and no round made again because this computer was
    busy."""
    plan = dataclasses.replace(PHONE_PLAN, runs=2, warmups=1, anchor_visits=1, redo_drift=None)
    monkeypatch.setattr("netlathe.profiler.phone.device.PHONE_PLAN", plan)
    with LoopbackPhone(tmp_path_factory.mktemp("phone")) as phone, AdbDaemon(phone) as found:
        yield found


def test_the_home_page_and_the_steps_of_the_installation_run(folder: Path) -> None:
    (home,) = walk(DOCS / "index.md", folder, {})
    assert len(re.findall(r"[\d.]+ ms \([\d.]+ to [\d.]+\) on a Pixel 4", home)) == 3
    (check,) = walk(DOCS / "install.md", folder, {})
    assert check.startswith("netlathe ")
    assert "local" in check


def test_a_device_of_ones_own_is_measured(folder: Path) -> None:
    (measured, _) = walk(DOCS / "extend/device.md", folder, {'space="tiny", device': 'space="tiny", blocks=4, device'})
    assert re.search(r"\d+ records", measured)


@pytest.mark.slow
def test_that_device_keeps_the_contract(folder: Path) -> None:
    """Both blocks of the page as one file of tests."""
    device, contract = python_blocks(DOCS / "extend/device.md")
    device = device.partition("torch.set_num_threads")[0]
    source = f"{device}\n{contract}".replace("with LocalDevice() as", "with TorchCPU() as")
    (folder / "test_mine.py").write_text(source)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    found = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
    assert "TorchCPU() as" in source


def test_an_op_of_ones_own_has_a_shape_a_torch_form_and_no_price(folder: Path) -> None:
    (found,) = walk(DOCS / "extend/op.md", folder, {})
    assert "((1, 16, 16, 16),)" in found
    assert "torch.Size([1, 16, 16, 16])" in found
    assert "mish" in found.splitlines()[-1]


def test_a_strategy_of_ones_own_finds_a_network_within_the_limit(folder: Path) -> None:
    (found,) = walk(DOCS / "extend/strategy.md", folder, {})
    name, macs = found.split()
    assert name.startswith("tiny-")
    assert 0 < float(macs) <= 5e6


@pytest.mark.slow
@pytest.mark.timeout(1800)
@NEEDS_PHONE
def test_the_commands_of_the_page_of_examples_run(folder: Path, daemon: AdbDaemon) -> None:
    """With eight phones known in place of 48."""
    shorter = {"--count 10": "--count 10 --known 8"}
    walk(DOCS / "examples.md", folder, shorter, command=on_phone(daemon.address, BENCHMARK_MODEL))
    pictures = {"kernels.png", "predicted.png", "new_phone.png", "search.png", "widths.png"}
    assert pictures <= {path.name for path in folder.rglob("*.png")}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@NEEDS_PHONE
def test_the_tutorial_of_a_model_on_a_phone_is_walked(folder: Path, daemon: AdbDaemon) -> None:
    shorter = {"--budget 100 --networks 4": "--budget 20 --networks 2 --rounds 3"}
    walk(DOCS / "tutorials/my-phone.md", folder, shorter, command=on_phone(daemon.address, BENCHMARK_MODEL))
    made = {"my_model.tflite", "times.csv", "check.json", "phone.sqlite", "phone.json"}
    assert made <= {path.name for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@NEEDS_PHONE
def test_the_tutorial_of_a_search_for_a_phone_is_walked(folder: Path, daemon: AdbDaemon) -> None:
    effort = "--start-epochs 1 --warmup-epochs 1 --epochs 1 --finalists 2 --train-epochs 1 --limit-images 64"
    shorter = {"--space tiny --output phone.sqlite": "--space tiny --networks 3 --rounds 3 --output phone.sqlite"}
    shorter |= {"--target-ms 0.3": f"--target-ms 50 {effort}"}
    walk(DOCS / "tutorials/search.md", folder, shorter, command=on_phone(daemon.address, BENCHMARK_MODEL))
    assert {"report.json", "network.tflite"} <= {path.name for path in (folder / "runs/mine").iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tutorial_of_a_compression_is_walked(folder: Path) -> None:
    shorter = {
        "--budget 120 --networks 6": "--budget 30 --networks 3 --rounds 4",
        "TrainConfig(epochs=4, learning_rate=0.02)": "TrainConfig(epochs=1, learning_rate=0.02)",
        "0.6 * ": "0.8 * ",
    }
    outputs = walk(DOCS / "tutorials/prune.md", folder, shorter)
    assert "ms measured" in "".join(outputs)
    assert (folder / "small.html").is_file()
