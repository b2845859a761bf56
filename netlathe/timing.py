"""Timing given networks, files included, on a device: the judge of predictions."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from archspace.errors import NetlatheError, RecordError
from archspace.graph import Graph
from archspace.profile_file import ProfileFile
from archspace.records import Setup
from netlathe import stages
from netlathe.console import Terminal, milliseconds
from predictor import LatencyPredictor
from profiler.campaign import WorkItem
from profiler.devices import DeviceOptions, default_plan, open_device
from profiler.devices.base import Device
from profiler.devices.local import LocalDevice
from profiler.protocol import Plan

PLAN = Plan(min_rounds=20, max_rounds=40)


@dataclass(frozen=True)
class Timed:
    """One network's latency, as measured."""

    latency_ms: float
    """With a profile, at the speed that the machine had when that was begun, as a predictor fitted on it predicts."""
    drift: float
    """How many times as long the machine took just now; latency_ms * drift is what the clock showed."""


@dataclass(frozen=True)
class Stopwatch:
    """Times networks on an open device, each once, all beside the same anchors."""

    device: Device
    notes: Path
    """A profile of its own, where what was timed is kept: to judge a predictor, it must neither be taken from the
    records that it was fitted on nor be added to them."""
    plan: Plan
    seed: int
    terminal: Terminal
    warnings: list[str] = field(default_factory=list)
    """Of the last timing."""

    def time(self, graphs: Mapping[str, Graph]) -> dict[str, Timed]:
        """By name, all in the same rounds. Raises NetlatheError for a network that could not be timed."""
        items = [WorkItem(name, "network" if g.is_network else "block", g) for name, g in graphs.items()]
        label = f"timing {next(iter(graphs))}" if len(graphs) == 1 else f"timing {len(graphs)} networks"
        with self.terminal.working(label):
            summary = stages.measure(
                self.device, items, self.notes, self.plan, seed=self.seed, watch=lambda share, left_s, note: None
            )
        for record in (*summary.unsupported, *summary.failed):
            raise NetlatheError(f"{record.name} could not be timed: {record.message}")
        self.warnings[:] = summary.warnings
        measured = {r.graph.key: r.measurement for r in summary.records if r.measurement}
        return {
            name: Timed(measured[graph.key].latency_ms, statistics.median(r.drift for r in measured[graph.key].rounds))
            for name, graph in graphs.items()
        }


@contextmanager
def stopwatch(
    device: Device, profile: Path | None, *, plan: Plan, seed: int = 0, terminal: Terminal
) -> Iterator[Stopwatch]:
    """With a `profile`, its anchors tell how fast the device is now; nothing is added to it."""
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "timed.sqlite"
        if profile is not None:
            _copy_anchors(profile, notes, device.setup)
        yield Stopwatch(device, notes, plan, seed, terminal)


@contextmanager
def device_of(
    address: str, model: LatencyPredictor, *, benchmark_binary: Path | None = None, terminal: Terminal
) -> Iterator[Device]:
    """The device at `address`, opened as the predictor's measurements were taken. Raises RecordError when that is not
    the device that they were taken on."""
    setup = model.setup_
    options = DeviceOptions(
        threads=setup.threads, batch=setup.batch, cores=setup.core_mask, dtype=setup.dtype,
        benchmark_binary=benchmark_binary,
    )  # fmt: skip
    if setup.runtime == "tflite":  # a phone's
        delegates: dict[str, Literal["gpu", "nnapi"]] = {"gpu": "gpu", "nnapi": "nnapi"}
        options = replace(options, delegate=delegates.get(setup.delegate, "cpu"), xnnpack=setup.delegate != "none")
    with terminal.working(f"opening {address}"):
        device = open_device(address, options, report=terminal.say)
    with device:
        check_same_setup(model, device.setup)
        yield device


def plan_for(device: Device) -> Plan:
    """A judge's effort: more than a profile's on this computer, where rounds cost little."""
    return default_plan(device) if device.setup.runtime == "tflite" else PLAN


def time_networks(
    graphs: Mapping[str, Graph],
    models: Mapping[str, bytes],
    profile: Path | None,
    *,
    threads: int = 1,
    dtype: str = "float32",
    seed: int = 0,
    terminal: Terminal,
) -> dict[str, Timed]:
    """Times graphs by name through LiteRT on this CPU, all in the same rounds, and anew each time. With a `profile`,
    its anchors tell how fast the machine is now; nothing is added to it.

    `models` are .tflite files by graph key, run instead of ones with random weights. Raises NetlatheError for a network
    that could not be timed.
    """
    with (
        LocalDevice(threads=threads, models=models, dtype=dtype) as device,
        stopwatch(device, profile, plan=PLAN, seed=seed, terminal=terminal) as watch,
    ):
        timed = watch.time(graphs)
        terminal.warn(watch.warnings)
        return timed


def _copy_anchors(source: Path, target: Path, setup: Setup) -> None:
    """A file that has the profile's anchors and their times, hence its level, and nothing else."""
    with ProfileFile(source) as old, ProfileFile(target, create=True) as new:
        anchors, rounds = old.anchors(setup), old.rounds(setup)
        if not anchors:
            known = "; ".join(str(one) for one in old.setups())
            raise RecordError(f"{source}: was not measured on {setup}, but on {known}")
        new.add_setup(setup)
        new.add_graphs((key, "block", graph) for key, graph in anchors.items())
        new.set_anchors(setup, anchors)
        for key in anchors:
            for one in rounds.get(key, ()):
                new.add_round(setup, {key: one.samples_ms}, started_at=one.started_at, drift=one.drift)


def check_setup(model: LatencyPredictor, threads: int) -> None:
    """Raises RecordError when this machine's CPU is not what the predictor was fitted on."""
    with LocalDevice(threads=threads) as device:
        check_same_setup(model, device.setup)


def check_same_setup(model: LatencyPredictor, setup: Setup) -> None:
    """Raises RecordError when the predictor was fitted on another setup than this one."""
    differing = setup.differences(model.setup_)
    if differing:
        raise RecordError(
            f"the predictor was fitted on another setup, so times do not compare ({'; '.join(differing)})"
        )


def explain_drift(timed: Sequence[Timed], terminal: Terminal) -> None:
    """A line on the difference between the clock and the table, where there is one worth telling."""
    drift = statistics.median(one.drift for one in timed)
    if not 0.95 < drift < 1.05:
        clock = ", ".join(f"{one.latency_ms * one.drift:.3g}" for one in timed)
        terminal.say(
            f"  The machine now takes {drift:.2f} times as long as when the profile was begun (seen on the anchor "
            f"blocks); measured ms are corrected for it. The clock showed {clock} ms.",
            style="dim",
        )


def compare(
    graphs: Mapping[str, Graph],
    timed: Mapping[str, Timed],
    model: LatencyPredictor | None,
    terminal: Terminal,
    *,
    corrected: bool,
) -> None:
    """Measured, and where there is a predictor, predicted beside it. `corrected`: a profile told the drift."""
    predicted = model.predict(list(graphs.values())).tolist() if model else [None] * len(graphs)
    rows = []
    answers = []
    for (name, one), guess in zip(timed.items(), predicted, strict=True):
        off = "-" if guess is None else f"{100 * (guess / one.latency_ms - 1):+.1f} %"
        rows.append((name, milliseconds(guess), milliseconds(one.latency_ms), off))
        answers.append({"name": name, "latency_ms": one.latency_ms, "drift": one.drift, "predicted_ms": guess})
    terminal.table(("what", "predicted ms", "measured ms", "off by"), rows)
    if corrected:
        explain_drift(list(timed.values()), terminal)
    terminal.result({"timed": answers})
