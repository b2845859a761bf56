"""The commands of README and of the guides are run, on small models and images, with few rounds and epochs."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from loopback.adbd import AdbDaemon
from loopback.phone import BENCHMARK_MODEL, LoopbackPhone, loopback_unavailable
from PIL import Image
from walks import is_commands, is_runnable, on_phone, walk

import netlathe as nl
from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv, Skip
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.profiler.protocol import PHONE_PLAN
from tests.documents import DOCS, DOCUMENTS, README, snippets

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
NEEDS_PHONE = pytest.mark.skipif(loopback_unavailable() is not None, reason=str(loopback_unavailable()))
SIZE = 16
EFFORT: dict[str, str] = {
    "profile": "--rounds 3",
    "fit": "--residual none --splits configuration",
    "search": "--start-epochs 1 --warmup-epochs 1 --epochs 1 --finalists 2 --train-epochs 1 --threads 1",
    "compress": "--finalists 2 --train-epochs 1 --threads 1",
    "time": "--budget-s 1",
    "check": "--budget-s 1",
}
"""Options that make each command short, behind those that a page shows."""
COMPRESS = DOCS / "compress.md"
SEARCH = "search --space tiny --predictor tiny.json --target-ms 50 --data my_images/"


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the guides' commands are given: models, images, a profile and predictors of this computer, two runs."""
    folder = tmp_path_factory.mktemp("things")
    space = nl.load_space("tiny", resolution=SIZE)
    graph = space.architecture(space.reference).graph()
    for name in ("my_model", "model", "other", "a", "models/one"):
        (folder / f"{name}.onnx").parent.mkdir(exist_ok=True)
        (folder / f"{name}.onnx").write_bytes(write_onnx(graph))
    for name in ("my_model", "model", "a", "b", "models/two"):
        (folder / f"{name}.tflite").write_bytes(write_tflite(graph))
    rng = np.random.default_rng(0)
    for label in range(3):
        (folder / f"my_images/{label}").mkdir(parents=True)
        for number in range(24):
            pixels = np.clip(rng.normal(60 + 70 * label, 20, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"my_images/{label}/{number}.png")
    nl.profile(folder / "my_cpu.sqlite", space="tiny", networks=3, rounds=3)
    for name in ("my_cpu", "tiny"):
        nl.fit(folder / "my_cpu.sqlite", folder / f"{name}.json", residual="none", splits=["configuration"])
    shutil.copy(folder / "my_cpu.sqlite", folder / "tiny.sqlite")
    usual_ms = nl.predict(space.architecture(space.reference), folder / "my_cpu.json").latency_ms
    config = nl.SearchConfig(start_epochs=1, warmup_epochs=0, epochs=1, finalists=2)
    for name in ("mine", "other"):
        nl.search(
            space, folder / "my_images", target=nl.Target(folder / "my_cpu.json", ms=2 * usual_ms), config=config,
            training=nl.TrainConfig(epochs=1), output=folder / "runs" / name,
        )  # fmt: skip
    return folder


@pytest.fixture
def folder(things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the things, which is the current folder."""
    shutil.copytree(things, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def phone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Makes commands use a phone on 127.0.0.1, with little effort."""
    plan = dataclasses.replace(PHONE_PLAN, runs=2, warmups=1, anchor_visits=1, redo_drift=None)
    monkeypatch.setattr("netlathe.profiler.phone.device.PHONE_PLAN", plan)
    with LoopbackPhone(tmp_path_factory.mktemp("phone")) as found, AdbDaemon(found) as daemon:
        yield on_phone(daemon.address, BENCHMARK_MODEL)


def short(line: str) -> str:
    """A command with little effort."""
    return f"{line} {EFFORT.get(line.split()[1], '')}" if line.startswith("netlathe ") else line


def test_every_page_with_commands_is_walked_here_or_with_the_tutorials() -> None:
    """What is not run has a reason on the page."""
    text = "".join((Path(__file__).parent / f"test_{name}.py").read_text() for name in ("guides", "pages"))
    pages = [path for path in DOCUMENTS if any(is_runnable(one) and is_commands(one) for one in snippets(path))]
    names = [str(path.relative_to(README.parent if path == README else DOCS)) for path in pages]
    assert len(names) > 10
    assert not [name for name in names if f'"{name}"' not in text and name != "README.md"]


def test_the_guide_to_predicting(folder: Path) -> None:
    walk(DOCS / "predict.md", folder, {}, command=short, python=False)
    assert (folder / "latencies.csv").is_file()


def test_the_guide_to_timing(folder: Path) -> None:
    walk(DOCS / "time-and-compare.md", folder, {}, command=short, python=False)


@NEEDS_PHONE
def test_the_guide_to_checks(folder: Path, phone: Callable[[str], str]) -> None:
    shorter = {"--max-slower 5%": "--max-slower 900%", "--device usb --max-ms 30": "--device usb --max-ms 1000"}
    walk(DOCS / "check.md", folder, shorter, command=lambda line: phone(short(line)), python=False)


def test_the_guide_to_pages(folder: Path) -> None:
    shorter = {"search ... --baselines 0.35,0.5,1": f"{SEARCH} --output runs/wide --baselines 0.5"}
    walk(DOCS / "report.md", folder, shorter, command=short, python=False)
    assert {"report.html", "card.html", "both.html"} <= {path.name for path in folder.rglob("*.html")}


def test_the_guide_to_searches(folder: Path) -> None:
    """Looks of one epoch; a score from a table of all nine networks of a small space; the helper of a whole study."""
    choices = (MBConv(8, 8, 8, 8, kernel=3, expand=6), MBConv(8, 8, 8, 8, kernel=3, expand=3), Skip(8, 8, 8, 8))
    space = nl.SearchSpace("small", ((ConvBlock(3, 8, 8, 8),), choices, choices, (LinearHead(8, 3, 8, 8),)))
    space.save(folder / "small.json")
    names = [space.architecture([one, other]).name for one in range(3) for other in range(3)]
    (folder / "scores.csv").write_text("network,accuracy\n" + "".join(f"{n},{0.1 * i}\n" for i, n in enumerate(names)))
    numbers = iter(range(100))

    def whole(line: str) -> str:
        line = line.replace("--looks 200,20", "--looks 2,1").replace("--looks 60,15", "--looks 2,1")
        line = line.replace("--looks 60", "--looks 2").replace("--look-epochs 5", "--look-epochs 1")
        line = line.replace("--look-epochs 1,10", "--look-epochs 1,2")
        base = SEARCH.replace("--target-ms 50 ", "") if "--targets" in line else SEARCH
        base = base.replace("--space tiny", "--space small.json --looks 4") if "scores.csv" in line else base
        output = "looked" if "--look-epochs 1" in line and "," not in line else f"n{next(numbers)}"
        return short(line.replace("search ...", f"{base} --output runs/{output}"))

    shutil.rmtree(folder / "runs/mine")  # made anew
    shorter = {"--target-ms 0.3": "--target-ms 50", "--targets 0.2,0.3,0.5": "--targets 40,50"}
    walk(DOCS / "search.md", folder, shorter, command=whole, python=False)


@NEEDS_PHONE
def test_the_guide_to_profiles(folder: Path, phone: Callable[[str], str]) -> None:
    shorter = {"--space proxyless": "--space tiny --networks 2", "--budget 300": "--budget 10 --networks 2"}
    shorter |= {"--sustained 15m": "--sustained 20s"}
    (folder / "my_cpu.sqlite").unlink()  # its profile is made anew
    walk(DOCS / "profile.md", folder, shorter, command=lambda line: phone(short(line)))


def test_the_guide_to_compressing(folder: Path) -> None:
    """With profiles of few kernels."""
    for dtype in ("float32", "int8"):
        options = nl.DeviceOptions(dtype=dtype)
        nl.profile(folder / f"{dtype}.sqlite", space="kernels", blocks=40, networks=2, rounds=3, options=options)
        nl.fit(folder / f"{dtype}.sqlite", folder / f"{dtype}.json", residual="none", splits=["configuration"])
    shorter = {"--space kernels": "--space kernels --budget 40 --networks 2"}
    targets = {"pixel4-cpu-networks": "pixel4-cpu-networks", "my_cpu.json": "my_cpu.json"}
    for shown, predictor in {**targets, "float32.json+int8.json": "float32.json"}.items():
        target_ms = 0.85 * nl.predict("my_model.onnx", predictor).latency_ms
        places = [f"{shown}={ms}" for ms in (15, 3)]
        shorter |= {place: f"{shown}={target_ms}" for place in places if f"{place} " in COMPRESS.read_text()}
    walk(COMPRESS, folder, shorter, command=short, python=False)


@NEEDS_PHONE
def test_the_commands_of_the_readme(folder: Path, phone: Callable[[str], str]) -> None:
    shorter = {"--space proxyless": "--space tiny", "--target-ms 40": "--target-ms 400"}
    walk(README, folder, shorter, command=lambda line: phone(short(line)), python=False)
    assert (folder / "runs/phone/report.json").is_file()
