"""Timing given networks, files included, on a device: the judge of predictions."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from netlathe.archspace.errors import FormatError, NetlatheError, RecordError
from netlathe.archspace.graph import Graph
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Measurement, Setup
from netlathe.events import Listener, OnRound, listener_of
from netlathe.pricing import doubts, load_predictor, naming_others
from netlathe.profiler.campaign import CampaignSummary, WorkItem, run_campaign
from netlathe.profiler.device import Device
from netlathe.profiler.devices import DeviceOptions, default_plan, open_device
from netlathe.profiler.protocol import FEWEST_ROUNDS, Plan, is_done
from netlathe.stages import results_first
from netlathe.subjects import Given, Subject, find_subject
from netlathe.words import percent

if TYPE_CHECKING:
    from netlathe.predictor import LatencyPredictor

PLAN = Plan(min_rounds=20, max_rounds=40)

Measurements = dict[str, Measurement]
"""By network's name. With a profile, at the speed that the machine had when that was begun, as a predictor fitted on it
predicts."""


@dataclass(frozen=True)
class TimeReport:
    """Networks timed on a device."""

    measured: Measurements
    """By name; those without a sound time are left out, and told in the warnings."""
    setup: Setup
    predicted_ms: Mapping[str, float]
    """Beside them, where there is a predictor."""
    warnings: tuple[str, ...]
    is_interrupted: bool
    """Whether these are the times until Ctrl-C."""
    is_corrected: bool
    """Whether times are in the level of a profile, whose anchors tell how fast the device is now."""
    failure: str = ""
    """Why a network could not be timed."""
    missing: tuple[str, ...] = ()

    @property
    def is_stable(self) -> bool:
        """Whether every network has a time, and each has a standard error of at most 5 %."""
        return not self.missing and all(one.is_stable for one in self.measured.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "timed": [_timed_json(name, one, self.predicted_ms.get(name)) for name, one in self.measured.items()],
            "setup": str(self.setup), "warnings": list(self.warnings), "is_interrupted": self.is_interrupted,
        }  # fmt: skip


def _timed_json(name: str, one: Measurement, predicted_ms: float | None) -> dict[str, Any]:
    low_ms, high_ms = one.interval_ms or (None, None)
    return {
        "name": name, "latency_ms": one.latency_ms, "low_ms": low_ms, "high_ms": high_ms, "rounds": len(one.rounds),
        "is_stable": one.is_stable, "drift": one.drift, "predicted_ms": predicted_ms,
    }  # fmt: skip


def time(
    what: Given | Sequence[Given],
    *,
    device: str = "local",
    predictor: str | Path | LatencyPredictor | None = None,
    profile: str | Path | None = None,
    budget_s: float = 10.0,
    threads: int | None = None,
    cores: str | None = None,
    dtype: str | None = None,
    delegate: str | None = None,
    benchmark_binary: str | Path | None = None,
    assume_unknown: bool = False,
    seed: int = 0,
    progress: bool | Listener = False,
) -> TimeReport:
    """Times networks on a device until rounds agree within 1 %, or `budget_s` seconds are out.

    `what` are what predict takes, one or several; a .tflite runs as it is (not on onnxruntime and cuda), others with
    random weights. Without `threads`, `cores`, `dtype` and `delegate`, they run as the `predictor`'s measurements did.
    `profile` is a profile of the device, whose anchors tell how fast it is now. An interrupt (Ctrl-C) ends it with the
    times so far.

    Raises FormatError for files that cannot be read or are of unlike dtypes, DeviceError for a device that cannot be
    opened, RecordError where it is not the predictor's, NetlatheError for a network that could not be timed,
    KeyboardInterrupt where there are no times yet.
    """
    listener = listener_of(progress)
    model = None if predictor is None else load_predictor(predictor, assume_unknown=assume_unknown)
    given = {"threads": threads, "cores": cores, "dtype": dtype, "delegate": delegate}
    case = _prepare(
        [what] if isinstance(what, str) or not isinstance(what, Sequence) else what, model,
        Path(benchmark_binary) if benchmark_binary else None,
        {name: value for name, value in given.items() if value is not None},
    )  # fmt: skip
    if model:
        with naming_others(predictor, case.graphs.values()):
            model.predict(list(case.graphs.values()))  # what cannot be predicted is told before it is timed
    ended = _time(case, device, Path(profile) if profile else None, budget_s, seed, listener)
    if not ended.measured and ended.summary is None:
        raise KeyboardInterrupt
    report = _time_report(case, ended, budget_s, is_corrected=profile is not None)
    listener.report(report)
    if report.failure:
        raise NetlatheError(report.failure)
    return report


@dataclass(frozen=True)
class _Case:
    """Networks to time, and how."""

    subjects: Mapping[str, Subject]
    files: Mapping[str, bytes]
    """.tflite files by graph key, to run as they are."""
    options: DeviceOptions
    model: LatencyPredictor | None

    @property
    def graphs(self) -> dict[str, Graph]:
        return {name: subject.graph for name, subject in self.subjects.items()}

    def predicted_ms(self, names: Sequence[str]) -> dict[str, float]:
        """By name; none without a predictor."""
        if not self.model or not names:
            return {}
        return dict(zip(names, self.model.predict([self.graphs[name] for name in names]).tolist(), strict=True))

    def doubts(self, names: Iterable[str]) -> list[str]:
        """Warnings on the predictions of these."""
        found = [(name, self.subjects[name]) for name in names] if self.model else []
        return [doubt for name, one in found if self.model for doubt in doubts(self.model, name, one.graph, one.dtype)]


@dataclass(frozen=True)
class _Ended:
    """Measurements until the end, and why it was the end."""

    setup: Setup
    measured: Measurements
    summary: CampaignSummary | None
    """None where it was interrupted."""
    is_done: bool
    """Whether the stop rule was met for each network."""


def _prepare(
    what: Sequence[Given], model: LatencyPredictor | None, binary: Path | None, given: Mapping[str, object]
) -> _Case:
    """Raises FormatError where files are of unlike dtypes, or of another than was asked for."""
    from netlathe.archspace.forms.tflite_reader import read_dtype

    options = options_of(model.setup_) if model else DeviceOptions(batch=1)
    options = replace(options, benchmark_binary=binary, **given)  # type: ignore[arg-type]  # by name, as typer checked
    subjects: dict[str, Subject] = {}
    contents: dict[str, bytes] = {}
    for one in what:
        subject = find_subject(one, batch=options.batch or 1)
        name = str(one) if isinstance(one, str | Path) else subject.name
        subjects[name] = subject
        if isinstance(one, str | Path) and name.endswith(".tflite") and Path(one).is_file():
            contents[name] = Path(one).read_bytes()
    for name, content in contents.items():
        own = read_dtype(content)
        if options.dtype is None:
            options = replace(options, dtype=own)
        elif options.dtype != own:
            raise FormatError(
                f"{name}: this file computes in {own}, but {options.dtype} is asked for, by --dtype, the predictor or "
                "another file; time files of each dtype in a call of their own"
            )
    files = {subjects[one].graph.key: content for one, content in contents.items()}
    return _Case(subjects, files, options, model)


def _time(
    case: _Case, address: str, profile_file: Path | None, budget_s: float, seed: int, listener: Listener
) -> _Ended:
    with listener.working(f"opening {address}"):
        opened = open_device(address, case.options, report=listener.note)
    with results_first(address, listener), opened as device:
        if case.model:
            check_same_setup(case.model, device.setup)
        _give_files(device, case.files)
        plan = replace(plan_for(device), budget_s=budget_s)
        with stopwatch(device, profile_file, plan=plan, seed=seed, listener=listener) as watch:
            summary = _refine(watch, case.graphs, listener)
            measured = {name: one for name, one in watch.taken(case.graphs).items() if one.interval_ms}
            done = all(is_done(one.rounds, plan) for one in measured.values())
            ended = _Ended(device.setup, measured, summary, done)
    return ended


def _give_files(device: Device, files: Mapping[str, bytes]) -> None:
    """To a device that runs .tflite files."""
    models = getattr(device, "models", None)
    if models is not None:
        models.update(files)


def _refine(watch: Stopwatch, graphs: Mapping[str, Graph], listener: Listener) -> CampaignSummary | None:
    """None where it was interrupted; what was measured is in the notes."""
    try:
        with listener.estimating(list(graphs)) as on_round:
            return watch.measure(graphs, on_round)
    except KeyboardInterrupt:
        return None


def _time_report(case: _Case, ended: _Ended, budget_s: float, *, is_corrected: bool) -> TimeReport:
    measured, summary = ended.measured, ended.summary
    predicted_ms = case.predicted_ms(list(measured))
    missing = [name for name in case.graphs if name not in measured]
    warnings = _warnings(ended, missing, budget_s)
    warnings += case.doubts(predicted_ms)
    failed = (*summary.unsupported, *summary.failed) if summary else ()
    failure = f"{failed[0].name} could not be timed: {failed[0].message}" if failed else ""
    return TimeReport(
        measured, ended.setup, predicted_ms, tuple(warnings), summary is None, is_corrected, failure, tuple(missing)
    )


def _warnings(ended: _Ended, missing: Sequence[str], budget_s: float) -> list[str]:
    """Why the times may not be the last word."""
    from netlathe.profiler.summary import quality_warnings

    warnings = []
    unstable = {name: one for name, one in ended.measured.items() if not one.is_stable}
    for name, one in unstable.items():
        warnings.append(
            f"{name} is not stable yet: after {len(one.rounds)} rounds the standard error is "
            f"{percent(one.relative_error)}; close other programs, or give it longer (--budget-s {6 * budget_s:g})"
        )
    if ended.summary is None:
        warnings.append("interrupted, so these are the times so far")
        warnings += [f"without a time, as there were fewer than three rounds: {', '.join(missing)}"] if missing else []
    elif not ended.is_done and not unstable:
        warnings.append(
            f"the {budget_s:g} s were out before rounds agreed within 1 %; --budget-s {6 * budget_s:g} may narrow the "
            "interval"
        )
    if ended.summary:
        of_a_profile = quality_warnings(ended.summary.records)
        warnings += [warning for warning in ended.summary.warnings if warning not in of_a_profile]
    return warnings


@dataclass(frozen=True)
class Stopwatch:
    """Times networks on an open device, each once, all beside the same anchors."""

    device: Device
    notes: Path
    """A profile of its own, where what was timed is kept: to judge a predictor, it must neither be taken from the
    records that it was fitted on nor be added to them."""
    plan: Plan
    seed: int
    listener: Listener
    warnings: list[str] = field(default_factory=list)
    """Warnings of the last timing."""

    def time(self, graphs: Mapping[str, Graph]) -> Measurements:
        """By name, all in the same rounds. Raises NetlatheError for a network that could not be timed."""
        label = f"timing {next(iter(graphs))}" if len(graphs) == 1 else f"timing {len(graphs)} networks"
        with self.listener.working(label):
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
        """Measurements that the notes hold of these; networks without a round are left out."""
        with ProfileFile(self.notes) as file:
            return self._read(file, graphs)

    def _read(self, file: ProfileFile, graphs: Mapping[str, Graph]) -> Measurements:
        rounds = file.rounds(self.device.setup)
        return {name: Measurement(rounds[graph.key]) for name, graph in graphs.items() if graph.key in rounds}


@contextmanager
def stopwatch(
    device: Device, profile: Path | None, *, plan: Plan, seed: int = 0, listener: Listener
) -> Iterator[Stopwatch]:
    """With a `profile`, its anchors tell how fast the device is now; nothing is added to it.

    A phone's rounds are kept apart from those that a profile will recover there.
    """
    if device.setup.runtime == "tflite":  # a phone's
        from netlathe.profiler.phone.device import PhoneDevice

        if isinstance(device, PhoneDevice):
            device.is_aside = True
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "timed.sqlite"
        if profile is not None:
            _copy_anchors(profile, notes, device.setup)
        yield Stopwatch(device, notes, plan, seed, listener)


@contextmanager
def device_of(
    address: str, model: LatencyPredictor, *, benchmark_binary: Path | None = None, listener: Listener
) -> Iterator[Device]:
    """The device at `address`, opened as the predictor's measurements were taken. Raises RecordError when that is not
    the device that they were taken on."""
    options = replace(options_of(model.setup_), benchmark_binary=benchmark_binary)
    with listener.working(f"opening {address}"):
        device = open_device(address, options, report=listener.note)
    with device:
        check_same_setup(model, device.setup)
        yield device


def options_of(setup: Setup) -> DeviceOptions:
    """Options that open a device as it was for these measurements."""
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
    listener: Listener,
) -> Measurements:
    """Times graphs by name through LiteRT on this CPU, all in the same rounds, and anew each time. With a `profile`,
    its anchors tell how fast the machine is now; nothing is added to it.

    `models` are .tflite files by graph key, run instead of ones with random weights. Raises NetlatheError for a network
    that could not be timed.
    """
    from netlathe.profiler.devices.local import LocalDevice

    with (
        LocalDevice(threads=threads, models=models, dtype=dtype) as device,
        stopwatch(device, profile, plan=PLAN, seed=seed, listener=listener) as watch,
    ):
        timed = watch.time(graphs)
        listener.warn(watch.warnings)
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
