"""Every script of examples/ runs from the first line to its picture, and the notebook from cell to cell."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from pathlib import Path

import pytest
from loopback.adbd import AdbDaemon
from loopback.phone import BENCHMARK_MODEL, LoopbackPhone, loopback_unavailable
from PIL import Image

from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.networks import network
from netlathe.profiler.protocol import PHONE_PLAN
from tests.documents import ROOT

NOTEBOOK = ROOT / "examples/predict_to_page.ipynb"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(name: str, *given: str) -> None:
    import_module(f"examples.{name}").main(given)


def check_picture(path: Path) -> None:
    """It opens, and is not of one colour."""
    with Image.open(path) as image:
        assert image.width > 300
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 10


def test_every_script_is_run_here() -> None:
    text = Path(__file__).read_text()
    assert not [path.stem for path in (ROOT / "examples").glob("*.py") if f'run("{path.stem}"' not in text]


@pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))
def test_a_model_is_timed_on_a_phone_kernel_by_kernel(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = dataclasses.replace(PHONE_PLAN, runs=2, warmups=1, anchor_visits=1, redo_drift=None)
    monkeypatch.setattr("netlathe.profiler.phone.device.PHONE_PLAN", plan)
    with LoopbackPhone(folder / "phone") as phone, AdbDaemon(phone) as daemon:
        given = ("--device", daemon.address, "--benchmark-binary", str(BENCHMARK_MODEL), "--quick")
        run("time_on_phone", "mobilenet_v2_0.35_96", *given)
    told = capsys.readouterr().out
    assert "Pixel 8" in told
    assert "the 15 largest kernels: kernels.png" in told
    check_picture(folder / "kernels.png")


def test_networks_and_files_are_predicted_and_what_is_refused_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine.onnx").write_bytes(write_onnx(network("mobilenet_v2_0.75").graph()))
    run("predict_networks", "mobilenet_v2", "mine.onnx", "no_such_network")
    told = capsys.readouterr().out.splitlines()
    assert [" ms  (" in line for line in told[:3]] == [True, True, False]
    assert "refused" in told[2]
    check_picture(folder / "predicted.png")


def test_a_new_phone_is_known_from_ten_networks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With eight phones known in place of 48."""
    run("new_phone", "--known", "8")
    by_flops, by_netlathe, _, _ = capsys.readouterr().out.splitlines()
    shares = [int(line.split(": ")[1].split("%")[0]) for line in (by_flops, by_netlathe)]
    assert shares[0] < 60 < shares[1]
    check_picture(folder / "new_phone.png")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_network_is_searched_with_a_block_and_images_of_ones_own(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("search_from_python", "--quick")
    assert "of the test images right" in capsys.readouterr().out
    made = folder / "runs/from_python"
    assert (made / "run/network.onnx").is_file()
    check_picture(made / "run/search.png")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_model_of_digits_is_compressed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("compress_digits", "--quick")
    assert "measured, target" in capsys.readouterr().out
    check_picture(folder / "runs/compress_digits/run/widths.png")


@pytest.mark.slow
def test_the_notebook_runs_and_is_kept_without_outputs(folder: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not [cell for cell in notebook.cells if cell.get("outputs")]
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    told = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "mobilenet_v2 " in told
    assert "kB" in told
    check_picture(folder / "predicted.png")
