"""The whole path on the machine at hand, ending in predicted and measured side by side."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netlathe import fitting, stages
from netlathe.archspace.errors import FormatError
from netlathe.archspace.jsonfile import write_json
from netlathe.archspace.records import Measurement
from netlathe.archspace.spaces import Architecture, SearchSpace
from netlathe.cli.console import Terminal
from netlathe.cli.estimates import explain_drift
from netlathe.cli.fit import show_fit
from netlathe.cli.profile import show_summary
from netlathe.cli.search import show_search
from netlathe.outputs import Kind, Output, check_outputs, check_run_folder
from netlathe.pictures import draw_architectures
from netlathe.predictor import LatencyPredictor
from netlathe.profiler.devices.local import LocalDevice
from netlathe.profiler.protocol import Plan
from netlathe.profiling import summary_json
from netlathe.report.writing import make_page
from netlathe.runs.baselines import baseline_of, write_baselines
from netlathe.runs.exported import export_network
from netlathe.runs.files import ARCHITECTURE, NETWORK, save_weights
from netlathe.runs.folder import RunFolder, Workplace
from netlathe.runs.pipeline import SearchOptions
from netlathe.runs.pipeline import search as search_network
from netlathe.runs.report import RunReport
from netlathe.runs.settings import load_inputs
from netlathe.runs.trained import new_network, train_network
from netlathe.search import SearchConfig
from netlathe.targets import Target
from netlathe.timing import time_networks
from netlathe.training import Compute, ImageData, TrainConfig
from netlathe.words import millions, milliseconds, percent_within

PROFILE, PREDICTOR, BASELINE, FOUND = "profile.sqlite", "predictor.json", "baseline", "found"
REPORT = "demo.json"
FIT_PICTURE, PICTURE = "predicted_measured.png", "architectures.png"
PROFILE_PLAN = Plan(min_rounds=20, max_rounds=60, target_error=0.005, budget_s=90)
NETWORKS = 16
SEARCH: dict[str, Any] = {"warmup_epochs": 6, "epochs": 14, "finalists": 64}
TRAIN_EPOCHS = 24


@dataclass(frozen=True)
class Demo:
    """One demo: what all of its stages know."""

    folder: Path
    source: str
    fraction: float
    """The latency target as a fraction of the baseline's latency."""
    resolution: int
    limit: int | None
    seed: int
    terminal: Terminal
    page: bool = True
    """Whether to make pages of what it profiles, fits and finds."""


@dataclass(frozen=True)
class DemoNetwork:
    """A network of the demo, trained and exported."""

    architecture: Architecture
    predicted_ms: float
    accuracy: Mapping[str, float]
    """Accuracy by form: torch, tflite, ..."""
    folder: Path

    def to_json(self) -> dict[str, Any]:
        a = self.architecture
        return {
            "name": a.name, "macs": a.macs, "parameters": a.parameters, "predicted_ms": self.predicted_ms,
            "test_accuracy": self.accuracy["torch"], "tflite_accuracy": self.accuracy["tflite"],
            "accuracy": dict(self.accuracy), "folder": str(self.folder),
        }  # fmt: skip


def run_demo(demo: Demo) -> None:
    """Profile, fit, search, train, export, time; every stage leaves its files in the folder."""
    folder = RunFolder(demo.folder)
    folder.make()
    with folder.watched():
        _run(demo)


def _run(demo: Demo) -> None:
    started = time.monotonic()
    terminal = demo.terminal
    _check_folder(demo)
    space, data = load_inputs(
        "tiny",
        demo.source,
        resolution=demo.resolution,
        width=None,
        limit=demo.limit,
        seed=demo.seed,
        listener=terminal,
    )
    images = len(data.train) + len(data.validation) + len(data.test)
    terminal.say(
        f"{data.name}: {images} images of {len(data.classes)} classes at {demo.resolution}x{demo.resolution}, "
        f"files go to {demo.folder}"
    )
    profiled = _profile(demo, space)
    fitted = _fit(demo)
    model = fitted.predictor
    baseline = space.architecture(space.reference, "baseline")
    target_ms = rounded(demo.fraction * float(model.predict([baseline])[0]))
    trained = {
        BASELINE: _train_baseline(demo, baseline, model, data),
        FOUND: _search(demo, space, model, data, target_ms),
    }
    timed = _time(demo, trained)
    _compare(demo, trained[BASELINE], timed[BASELINE], model, len(data.test))
    _report(demo, trained, timed, target_ms, model, len(data.test))
    seconds = time.monotonic() - started
    terminal.say(f"\nDone in {seconds:.0f} s. Each stage again, alone, from the files that it left:")
    for command in commands(demo, space.classes, target_ms):
        terminal.say(f"  {shlex.join(command)}", style="cyan", is_command=True)
    report: dict[str, Any] = {
        "folder": str(demo.folder),
        "seconds": round(seconds, 1),
        "target_ms": target_ms,
        **{name: _network_json(t, timed[name]) for name, t in trained.items()},
        "profile": profiled,
        "fit": fitting.validation_json(fitted.validation),
    }
    write_json(demo.folder / REPORT, "demo", 1, report)
    terminal.result(report)


def _check_folder(demo: Demo) -> None:
    """Raises OutputError where the folder holds what the demo must not replace, or cannot be written."""
    check_run_folder(demo.folder, (), demo.source, (BASELINE, FOUND))
    own: dict[str, Kind] = {
        PROFILE: "profile", PREDICTOR: "predictor", REPORT: "demo", FIT_PICTURE: "picture", PICTURE: "picture",
    }  # fmt: skip
    check_outputs([Output("--output", demo.folder / name, kind) for name, kind in own.items()], [demo.source])


def _profile(demo: Demo, space: SearchSpace) -> dict[str, object]:
    with LocalDevice() as device:
        demo.terminal.step(f"1  Profile every block of space {space.name} on {device.setup}")
        items = stages.work_items(space, networks=NETWORKS, batch=1, seed=demo.seed)
        summary = stages.campaign_with_listener(
            device, items, demo.folder / PROFILE, PROFILE_PLAN, seed=demo.seed, listener=demo.terminal
        )
    show_summary(summary, demo.terminal)
    return summary_json(summary)


def _fit(demo: Demo) -> fitting.FitReport:
    demo.terminal.step("2  Fit a latency predictor for this machine")
    fitted = fitting.fit(
        demo.folder / PROFILE, demo.folder / PREDICTOR, seed=demo.seed, splits=("configuration", "network"),
        plot=demo.folder / FIT_PICTURE, page=demo.page, progress=demo.terminal,
    )  # fmt: skip
    show_fit(fitted, demo.terminal)
    return fitted


def _train_baseline(demo: Demo, baseline: Architecture, model: LatencyPredictor, data: ImageData) -> DemoNetwork:
    demo.terminal.step("3  Train the baseline: MobileNetV2's choice, 3x3 with expansion 6 everywhere")
    folder, config = demo.folder / BASELINE, TrainConfig(epochs=TRAIN_EPOCHS, seed=demo.seed)
    place = Workplace(RunFolder(folder), Compute(), demo.terminal)
    network = new_network(baseline, config)
    train_network(network, data, place, config, baseline.name)
    baseline.save(folder / ARCHITECTURE)
    save_weights(folder, network)
    exported = export_network(network, data, place)
    trained = DemoNetwork(baseline, float(model.predict([baseline])[0]), exported.accuracy, folder)
    demo.terminal.say(
        f"  {millions(baseline.macs)} MACs, {milliseconds(trained.predicted_ms)} ms predicted, "
        f"{percent_within(trained.accuracy['torch'], len(data.test))} of {len(data.test)} test images right"
    )
    return trained


def _search(demo: Demo, space: SearchSpace, model: LatencyPredictor, data: ImageData, target_ms: float) -> DemoNetwork:
    demo.terminal.step(
        f"4  Search {space.size:.2g} networks for {target_ms:.3g} ms, {demo.fraction:.0%} of the baseline's latency"
    )
    target = Target(demo.folder / PREDICTOR, target_ms)
    report = find_network(demo, data, target)
    show_search(report, demo.folder / FOUND, [target], demo.terminal)
    return DemoNetwork(report.architecture, report.predicted_ms, report.accuracy, demo.folder / FOUND)


def find_network(demo: Demo, data: ImageData, target: Target) -> RunReport:
    """The search's report. What an earlier demo left, with other options or a longer profile, makes way: its training,
    or where that is not enough, its search."""
    options, folder = search_options(demo), demo.folder / FOUND
    for options["restart_training"] in (False, True):
        try:
            return search_network("tiny", data, target=target, output=folder, **options)
        except FormatError:
            demo.terminal.note("  Another demo's run is there, and makes way")
    options["restart"] = True
    return search_network("tiny", data, target=target, output=folder, **options)


def search_options(demo: Demo) -> SearchOptions:
    """Options of the demo's search, as of the `netlathe search` command that it prints."""
    return SearchOptions(
        config=SearchConfig(**SEARCH, seed=demo.seed), training=TrainConfig(epochs=TRAIN_EPOCHS, seed=demo.seed),
        device="local", profile=demo.folder / PROFILE, resolution=demo.resolution, seed=demo.seed,
        page=demo.page, progress=demo.terminal,
    )  # fmt: skip


def rounded(ms: float) -> float:
    """Latency rounded to four digits, as commands show it."""
    return float(f"{ms:.4g}")


def _time(demo: Demo, trained: Mapping[str, DemoNetwork]) -> dict[str, Measurement]:
    """The exported files, as they are, beside the profile's anchors, which tell the machine's drift since then."""
    demo.terminal.step("5  Time both .tflite files on this machine")
    graphs = {name: t.architecture.graph() for name, t in trained.items()}
    models = {graphs[name].key: (t.folder / NETWORK).read_bytes() for name, t in trained.items()}
    return time_networks(graphs, models, demo.folder / PROFILE, seed=demo.seed, listener=demo.terminal)


def _compare(demo: Demo, baseline: DemoNetwork, timed: Measurement, model: LatencyPredictor, images: int) -> None:
    """Writes the baseline beside the found network, then the pages of this and of the profile."""
    row = baseline_of(baseline.architecture, model, baseline.accuracy["torch"], images, timed)
    write_baselines([row], demo.folder / FOUND)
    for made in (demo.folder / PROFILE, demo.folder / FOUND) if demo.page else ():
        make_page(made, demo.terminal)


def _network_json(trained: DemoNetwork, timed: Measurement) -> dict[str, object]:
    return {**trained.to_json(), "measured_ms": timed.latency_ms, "drift": timed.drift}


def _report(
    demo: Demo,
    trained: Mapping[str, DemoNetwork],
    timed: Mapping[str, Measurement],
    target_ms: float,
    model: LatencyPredictor,
    images: int,
) -> None:
    """The table at the end, and the two networks as one picture."""
    rows = []
    for name, t in trained.items():
        measured = timed[name].latency_ms
        rows.append(
            (
                name,
                milliseconds(target_ms) if name == FOUND else "-",
                milliseconds(t.predicted_ms),
                milliseconds(measured),
                f"{100 * (t.predicted_ms / measured - 1):+.1f} %",
                percent_within(t.accuracy["torch"], images),
                percent_within(t.accuracy["tflite"], images),
                millions(t.architecture.macs),
            )
        )
    columns = ("", "target ms", "predicted ms", "measured ms", "off by", "accuracy", "of the .tflite", "MACs")
    demo.terminal.table(columns, rows)
    explain_drift(list(timed.values()), demo.terminal)
    pictures = [
        (
            f"{name}: {t.predicted_ms:.3g} ms predicted, {timed[name].latency_ms:.3g} ms measured, "
            f"{t.accuracy['torch']:.1%} accurate",
            t.architecture,
            stages.part_latencies_ms(model, t.architecture),
        )
        for name, t in trained.items()
    ]
    draw_architectures(pictures, demo.folder / PICTURE)
    demo.terminal.say(f"  Pictures: {demo.folder / PICTURE}, {FIT_PICTURE}, {FOUND}/search.png")


def commands(demo: Demo, classes: int, target_ms: float) -> list[list[str]]:
    """The demo's stages as commands of their own."""
    folder, size = demo.folder, ["--resolution", str(demo.resolution)]
    profile, predictor, found = str(folder / PROFILE), str(folder / PREDICTOR), folder / FOUND
    limit = ["--limit-images", str(demo.limit)] if demo.limit else []
    seed = ["--seed", str(demo.seed)] if demo.seed else []
    search = [word for name, value in SEARCH.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return [
        ["netlathe", "profile", "--space", "tiny", *size, "--classes", str(classes), "--networks", str(NETWORKS),
         "--rounds", str(PROFILE_PLAN.max_rounds), *seed, "--output", profile],
        ["netlathe", "fit", profile, *seed, "--output", predictor],
        ["netlathe", "search", "--space", "tiny", *size, "--predictor", predictor, "--target-ms", repr(target_ms),
         "--data", demo.source, *limit, *search, "--train-epochs", str(TRAIN_EPOCHS),
         "--device", "local", "--profile", profile, *seed, "--output", str(found)],
        ["netlathe", "time", str(found / NETWORK), "--profile", profile, "--predictor", predictor],
        ["netlathe", "show", str(found), "--predictor", predictor],
        ["netlathe", "export", str(found), "--output", str(found / "network.onnx")],
    ]  # fmt: skip
