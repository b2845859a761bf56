"""Timing given networks, files included, on a device: the judge of predictions."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from netlathe.archspace.errors import NetlatheError, RecordError
from netlathe.archspace.graph import Graph
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Measurement, Setup
from netlathe.console import Terminal
from netlathe.profiler.campaign import CampaignSummary, Progress, WorkItem, run_campaign
from netlathe.profiler.devices import DeviceOptions, default_plan, open_device
from netlathe.profiler.devices.base import Device
from netlathe.profiler.protocol import FEWEST_ROUNDS, Plan

if TYPE_CHECKING:
    from netlathe.predictor import LatencyPredictor

PLAN = Plan(min_rounds=20, max_rounds=40)

Measurements = dict[str, Measurement]
"""By network's name. With a profile, at the speed that the machine had when that was begun, as a predictor fitted on it
predicts."""

OnRound = Callable[[Progress, Callable[[], Measurements]], None]
"""(progress, what has been measured so far) while a timing goes on."""


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

    def time(self, graphs: Mapping[str, Graph]) -> Measurements:
        """By name, all in the same rounds. Raises NetlatheError for a network that could not be timed."""
        label = f"timing {next(iter(graphs))}" if len(graphs) == 1 else f"timing {len(graphs)} networks"
        with self.terminal.working(label):
            summary = self.measure(graphs)
        for record in (*summary.unsupported, *summary.failed):
            raise NetlatheError(f"{record.name} could not be timed: {record.message}")
        self.warnings[:] = summary.warnings
        return self.taken(graphs)

    def measure(self, graphs: Mapping[str, Graph], on_round: OnRound = lambda progress, taken: None) -> CampaignSummary:
        """Takes rounds until the plan's stop rule or budget ends it, but at least three; they stay in the notes if it
        is interrupted."""
        items = [WorkItem(name, "network" if g.is_network else "block", g) for name, g in graphs.items()]
        with ProfileFile(self.notes, create=True) as file:

            def campaign(plan: Plan) -> CampaignSummary:
                return run_campaign(
                    self.device, items, file, plan, seed=self.seed,
                    on_progress=lambda progress: on_round(progress, lambda: self._read(file, graphs)),
                )  # fmt: skip

            summary = campaign(self.plan)
            if summary.unfinished:
                summary = campaign(
                    replace(self.plan, budget_s=None, min_rounds=FEWEST_ROUNDS, max_rounds=FEWEST_ROUNDS)
                )
        return summary

    def taken(self, graphs: Mapping[str, Graph]) -> Measurements:
        """What the notes hold of these; networks without a round are left out."""
        with ProfileFile(self.notes) as file:
            return self._read(file, graphs)

    def _read(self, file: ProfileFile, graphs: Mapping[str, Graph]) -> Measurements:
        rounds = file.rounds(self.device.setup)
        return {name: Measurement(rounds[graph.key]) for name, graph in graphs.items() if graph.key in rounds}


@contextmanager
def stopwatch(
    device: Device, profile: Path | None, *, plan: Plan, seed: int = 0, terminal: Terminal
) -> Iterator[Stopwatch]:
    """With a `profile`, its anchors tell how fast the device is now; nothing is added to it.

    A phone's rounds are kept apart from those that a profile will recover there.
    """
    if device.setup.runtime == "tflite":  # a phone's
        from netlathe.profiler.devices.adb import PhoneDevice

        if isinstance(device, PhoneDevice):
            device.is_aside = True
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
    options = replace(options_of(model.setup_), benchmark_binary=benchmark_binary)
    with terminal.working(f"opening {address}"):
        device = open_device(address, options, report=terminal.say)
    with device:
        check_same_setup(model, device.setup)
        yield device


def options_of(setup: Setup) -> DeviceOptions:
    """What opens a device as it was for these measurements."""
    options = DeviceOptions(threads=setup.threads, batch=setup.batch, cores=setup.core_mask, dtype=setup.dtype)
    if setup.runtime != "tflite":
        return options
    delegates: dict[str, Literal["gpu", "nnapi"]] = {"gpu": "gpu", "nnapi": "nnapi"}  # of a phone
    return replace(options, delegate=delegates.get(setup.delegate, "cpu"), xnnpack=setup.delegate != "none")


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
) -> Measurements:
    """Times graphs by name through LiteRT on this CPU, all in the same rounds, and anew each time. With a `profile`,
    its anchors tell how fast the machine is now; nothing is added to it.

    `models` are .tflite files by graph key, run instead of ones with random weights. Raises NetlatheError for a network
    that could not be timed.
    """
    from netlathe.profiler.devices.local import LocalDevice

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


def check_same_setup(model: LatencyPredictor, setup: Setup) -> None:
    """Raises RecordError when the predictor was fitted on another setup than this one."""
    differing = setup.differences(model.setup_)
    if differing:
        raise RecordError(
            f"the predictor was fitted on another setup, so times do not compare ({'; '.join(differing)})"
        )
