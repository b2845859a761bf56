"""`import netlathe as nl`: what the command does, from Python, without a word printed."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import TensorDataset

import netlathe as nl
from netlathe.archspace.blocks import MBConv
from netlathe.archspace.presets import tiny
from netlathe.archspace.spaces import SearchSpace
from netlathe.profiler.testing import SimulatedDevice
from netlathe.search.strategies.binarized.loop import Searcher

SOURCE = Path(nl.__file__)
GUIDE = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
SPACE = SearchSpace("small", tiny(8).positions)


def test_every_public_name_is_there_typed_and_told_in_the_guide() -> None:
    (checked,) = [one for one in ast.parse(SOURCE.read_text()).body if isinstance(one, ast.If)]
    typed = {
        alias.asname or alias.name for one in checked.body if isinstance(one, ast.ImportFrom) for alias in one.names
    }
    assert typed | {"__version__"} == {*nl.__all__}
    for name in nl.__all__:
        assert getattr(nl, name).__doc__
        assert f"`{name}`" in GUIDE, name
    assert dir(nl) == sorted(nl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        nl.serach  # type: ignore[attr-defined]  # noqa: B018


def test_every_parameter_of_search_is_one_of_its_options() -> None:
    from netlathe.runs.pipeline import SearchOptions

    told = inspect.signature(nl.search).parameters.keys()
    assert told == {"space", "data", "target", "output", "targets_ms"} | SearchOptions.__annotations__.keys()


def test_importing_netlathe_loads_nothing_heavy() -> None:
    heavy = ("torch", "sklearn", "matplotlib", "numpy", "pandas", "typer", "rich", "onnx")
    code = f"import sys, netlathe; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.fixture(scope="module")
def after_the_package() -> list[str]:
    """Where functions of the door are from in a fresh process that imported the package of one's name before, and the
    modules of extras that it holds then."""
    code = (
        "import sys, netlathe.search.costs, netlathe as nl\n"
        "from netlathe.search import STRATEGIES\n"
        "print(*sorted({'stable_baselines3', 'gymnasium'} & {*sys.modules}), sep='\\n')\n"
        "print(nl.search.__module__, nl.profile.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_public_function_keeps_its_name_beside_the_package_of_that_name(after_the_package: list[str]) -> None:
    assert Searcher.__module__.startswith("netlathe.search.")
    assert nl.search.__module__ == "netlathe.runs.pipeline"
    assert after_the_package[-1].split() == ["netlathe.runs.pipeline", "netlathe.profiling"]


def test_importing_the_search_loads_no_extra(after_the_package: list[str]) -> None:
    assert after_the_package[:-1] == [""]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """A folder with a profile and a predictor, and the reports of both."""
    folder = tmp_path_factory.mktemp("door")
    profiled = nl.profile(folder / "p.sqlite", space=SPACE, device=SimulatedDevice(), networks=6, rounds=5)
    return folder, profiled, nl.fit(folder / "p.sqlite", folder / "p.json", residual="none")


def test_an_open_device_is_profiled_and_fitted(made: tuple[Path, Any, Any], capfd: pytest.CaptureFixture[str]) -> None:
    folder, profiled, fitted = made
    assert profiled.is_complete
    (one,) = profiled.devices
    assert len(one.summary.records) == len(SPACE.distinct_blocks()) + 6
    assert profiled.to_json()["records"] == len(one.summary.records)
    assert fitted.output == folder / "p.json"
    assert nl.fit(one.summary.records, residual="none").output is None
    again = nl.forecast(folder / "p.sqlite", space=SPACE, device=SimulatedDevice(), networks=6)
    assert (again.devices[0].counts["new"], again.to_json()["reused"]) == (0, len(one.summary.records))
    assert capfd.readouterr() == ("", "")


def test_files_names_and_objects_are_predicted_alike(made: tuple[Path, Any, Any]) -> None:
    folder, _, fitted = made
    network = SPACE.architecture(SPACE.reference)
    network.save(folder / "a.json")
    reports = [
        nl.predict(what, predictor)
        for what in (network, folder / "a.json", str(folder / "a.json"))
        for predictor in (folder / "p.json", nl.LatencyPredictor.load(folder / "p.json"))
    ]
    assert len({report.latency_ms for report in reports}) == 1
    assert reports[0].low_ms < reports[0].latency_ms < reports[0].high_ms
    shown = nl.show(network, fitted.predictor)
    assert shown.predicted_ms == pytest.approx(reports[0].latency_ms)
    assert len(shown.layers) == len(network.blocks)
    table = nl.compare([network, "mobilenet_v2"], {"mine": nl.LatencyPredictor.load("pixel4-cpu-networks")})
    assert table.table["mobilenet_v2"]["mine"].latency_ms > table.table[network.name]["mine"].latency_ms
    assert list(table.devices) == ["mine"]


def test_what_is_measured_is_told_to_a_listener_and_nobody_else(
    made: tuple[Path, Any, Any], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Heard(nl.Listener):
        def __init__(self) -> None:
            super().__init__()
            self.reports: list[object] = []

        def report(self, report: object) -> None:
            self.reports.append(report)

    monkeypatch.setattr("netlathe.timing.open_device", lambda *_, **__: SimulatedDevice())
    heard, block = Heard(), MBConv(16, 16, 8, 8)
    report = nl.time(block, predictor=made[2].predictor, budget_s=1, progress=heard)
    assert heard.reports == [report]
    assert report.measured[block.name].latency_ms > 0
    assert report.predicted_ms[block.name] > 0
    assert capfd.readouterr() == ("", "")
    nl.time(block, budget_s=1, progress=True)
    assert block.name in capfd.readouterr().err


def pair(count: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """Images of three shades, which are their classes."""
    labels = np.arange(count) % 3
    noise = np.random.default_rng(0).integers(-30, 30, (count, 8, 8, 3))
    return ((80 * labels + 40)[:, None, None, None] + noise).astype(np.uint8), labels


def test_a_network_is_searched_for_a_target_from_a_pair_of_arrays(
    made: tuple[Path, Any, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    usual = nl.predict(SPACE.architecture(SPACE.reference), made[2].predictor).latency_ms
    wanted: dict[str, Any] = {
        "target": nl.Target(made[2].predictor, 0.9 * usual, "mine"), "output": tmp_path / "run",
        "limits": [nl.Limit("macs", 1e9), nl.Limit("memory-kb", 1e4)],
        "config": nl.SearchConfig(start_epochs=1, warmup_epochs=1, epochs=1, finalists=4, batch_size=16),
        "training": nl.TrainConfig(epochs=1, batch_size=16),
    }  # fmt: skip
    space = nl.load_space("tiny", resolution=8, classes=3)
    report = nl.search(space, pair(), **wanted)
    assert report.is_met
    assert report.predicted_ms <= report.target_ms == pytest.approx(0.9 * usual)
    assert {limit.name for limit in report.limits} == {"macs", "memory-kb"}
    assert nl.search(space, pair(), **wanted) == report  # a finished one is read
    exported = nl.export(tmp_path / "run", tmp_path / "n.onnx")
    assert exported.bytes == (tmp_path / "n.onnx").stat().st_size
    assert nl.pareto([tmp_path / "run"]).points[0].name == report.name
    assert capfd.readouterr() == ("", "")


class Mine:
    """A latency model that is nobody else's."""

    def predict(self, graphs: Any) -> list[float]:
        return [1e-6 * graph.macs + 0.01 for graph in graphs]


def test_any_object_that_predicts_is_a_latency_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()  # a folder in which one works is none of images
    network = SPACE.architecture(SPACE.reference)
    usual = 1e-6 * network.macs + 0.01
    assert nl.predict(network, Mine()).latency_ms == pytest.approx(usual)
    assert nl.compare([network], {"mine": Mine()}).table[network.name]["mine"].latency_ms == pytest.approx(usual)
    report = nl.search(
        nl.load_space("tiny", resolution=8, classes=3), pair(), target=nl.Target(Mine(), 0.8 * usual, "mine"),
        output="run", training=nl.TrainConfig(epochs=1, batch_size=16),
        config=nl.SearchConfig(start_epochs=1, warmup_epochs=0, epochs=1, finalists=4, batch_size=16),
    )  # fmt: skip
    assert report.is_met
    assert (report.targets[0].device, report.judged["by"]) == ("mine", "prediction")
    assert report.predicted_ms == pytest.approx(1e-6 * report.macs + 0.01)
    with pytest.raises(nl.PredictorError, match="cannot be saved"):
        nl.LatencyPredictor.wrapping(Mine()).save(tmp_path / "p.json")


def test_a_model_that_gives_no_number_for_each_graph_is_refused() -> None:
    class Wrong:
        def predict(self, graphs: Any) -> Any:
            return [[1.0, 2.0]]

    with pytest.raises(nl.PredictorError, match=r"Wrong: predict gave an array of shape \(1, 2\) for 1 graphs"):
        nl.predict("mobilenet_v2", Wrong())


def test_a_dataset_gives_the_images_that_its_arrays_give() -> None:
    import torch

    images, labels = pair()
    own = nl.load_images((images, labels), (8, 8))
    data = TensorDataset(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels))
    theirs = nl.load_images(data, (8, 8))
    assert theirs.name == "TensorDataset"
    assert own.classes == theirs.classes == ("0", "1", "2")
    everything = torch.arange(len(own.train))
    assert torch.equal(own.train.load(everything), theirs.train.load(everything))
    assert torch.equal(own.test.labels, theirs.test.labels)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((np.zeros((4, 8, 8)), np.arange(4), np.arange(4)), "a pair of arrays"),
        ((np.zeros((4, 8, 8)), np.arange(3)), "4 images but 3 labels"),
        ([np.zeros((8, 8, 3), np.uint8)], "item 0 is no pair of image and label"),
        ([], "holds no images"),
        (iter([]), "has a length"),
    ],
)
def test_images_that_are_none_are_refused(given: Any, said: str) -> None:
    with pytest.raises(nl.DataError, match=said):
        nl.load_images(given, (8, 8))


def test_a_target_that_is_no_number_is_refused(made: tuple[Path, Any, Any], tmp_path: Path) -> None:
    for ms in (0.0, float("nan"), float("inf")):
        with pytest.raises(nl.NetlatheError, match="numbers above zero"):
            nl.search("tiny", "digits", target=nl.Target(made[2].predictor, ms), output=tmp_path / "run")
    with pytest.raises(nl.NetlatheError, match="at least one target"):
        nl.search("tiny", "digits", target=[], output=tmp_path / "run")
