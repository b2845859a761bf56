"""Timing given networks and files on a device: the judge of predictions."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from netlathe.archspace.errors import FormatError, NetlatheError, RecordError
from netlathe.archspace.forms.model_file import FileFormat, ModelFile
from netlathe.archspace.graph import Graph
from netlathe.archspace.pools import is_pool, pool_of
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Measurement, Round, Setup
from netlathe.archspace.sustained import SustainedRun, temperature_c
from netlathe.arguments import check_profile
from netlathe.events import Listener, listener_of
from netlathe.outputs import Output, check_outputs
from netlathe.pricing import Unknown, doubts, load_predictor, naming_others
from netlathe.profiler.campaign import CampaignSummary, WorkItem, run_campaign
from netlathe.profiler.device import Device, KeepsAside, Observation, TimesFiles, check_loadable, is_sustained
from netlathe.profiler.devices import (
    DeviceOptions,
    check_device,
    default_plan,
    file_format_at,
    is_phone,
    open_device,
)
from netlathe.profiler.errors import DeviceError, MeasurementError, UnsupportedGraphError
from netlathe.profiler.protocol import FEWEST_ROUNDS, Plan
from netlathe.profiler.sustained import run_sustained
from netlathe.profiler.timed_rounds import RoundsTaken, take_rounds
from netlathe.provenance import now, provenance
from netlathe.stages import results_first
from netlathe.subjects import Given, Subject
from netlathe.timeables import Timeable, exported, gather, run_as, written
from netlathe.timed import Measurements, Timed, TimeReport, write_csv
from netlathe.words import percent

if TYPE_CHECKING:
    from torch.nn import Module

    from netlathe.predictor import LatencyPredictor

__all__ = [
    "PLAN", "Measurements", "Stopwatch", "TimeReport", "Timed", "device_of", "options_of", "plan_for", "stopwatch",
    "time", "time_networks",
]  # fmt: skip

PLAN = Plan(min_rounds=20, max_rounds=40)


def time(
    what: Given | Sequence[Given] | Module,
    example_inputs: Sequence[Any] | None = None,
    *,
    device: str | Sequence[str] = "local",
    shapes: Mapping[str, Sequence[int]] | None = None,
    op_profile: bool = False,
    csv: str | Path | None = None,
    page: str | Path | None = None,
    predictor: str | Path | LatencyPredictor | None = None,
    profile: str | Path | None = None,
    budget_s: float = 10.0,
    threads: int | None = None,
    cores: str | None = None,
    dtype: str | None = None,
    delegate: str | None = None,
    benchmark_binary: str | Path | None = None,
    sustained_s: float | None = None,
    unknown: Unknown = "refuse",
    seed: int = 0,
    keep_failed: bool = False,
    progress: bool | Listener = False,
) -> TimeReport:
    """Times networks and model files on a device, or on each of several, until rounds agree within 1 %, or `budget_s`
    seconds are out.

    `what` are what predict takes, one or several, or any .tflite or .onnx file, which runs as it is on devices of its
    format: .tflite on local and phones, .onnx on onnxruntime. Where the device takes another, and where no file is
    given, netlathe writes the network with random weights. A torch module goes with its `example_inputs`, through a
    file of its own. `shapes` gives sizes that a file leaves open, by the names of its inputs and in the file's order of
    axes; the name "" is that of a single input. `op_profile` also asks for the time of each kernel. `csv` is a table to
    write, `page` an HTML page, with `sustained_s` that of the load over time.

    Without `threads`, `cores`, `dtype` and `delegate`, they run as the `predictor`'s measurements did. `profile` is a
    profile of the device, whose anchors tell how fast it is now. An interrupt (Ctrl-C) ends it with the times so far.
    With `sustained_s`, they run one after the other for so many seconds in place of that, on a device that gets as hot
    as they make it; a latency is that of the last minute, and the report's `sustained` tells how it came to it.

    With `keep_failed`, what could not be timed stays in the report with its error, and raises nothing.

    Raises FormatError for files that cannot be run, shapes that do not fit and a dtype that is not a file's,
    DeviceError for a device that cannot be opened, RecordError where it is not the predictor's, NetlatheError for a
    network or file that could not be timed (once the others are), KeyboardInterrupt where there are no times yet.
    """
    listener = listener_of(progress)
    addresses = list(dict.fromkeys([device] if isinstance(device, str) else device))
    for address in addresses:
        check_device(address)
    model = None if predictor is None else load_predictor(predictor, unknown=unknown)
    given = {"threads": threads, "cores": cores, "dtype": dtype, "delegate": delegate}
    options = options_of(model.setup_) if model else DeviceOptions(batch=1)
    _check_sustained(options, profile, sustained_s)
    if profile is not None:
        check_profile(profile)
    options = replace(
        options, benchmark_binary=Path(benchmark_binary) if benchmark_binary else None, allow_partial=True,
        sustained=sustained_s is not None,
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        things = _things(what, example_inputs, Path(folder))
        outputs: list[Output] = []
        if csv is not None:
            outputs.append(Output("--csv", Path(csv), "latencies"))
        if page is not None:
            outputs.append(Output("--page", Path(page), "page"))
        check_outputs(outputs, [one for one in things if isinstance(one, str | Path)])
        timeables = gather(things, shapes or {}, options.batch or 1)
        if example_inputs is not None:
            timeables = [replace(one, name=type(what).__name__) for one in timeables]
        case = _Case(
            timeables, options, model, op_profile, budget_s, seed, Path(profile) if profile else None, sustained_s
        )
        has_phone = any(map(is_phone, addresses))
        cases = [case.without_a_phone() if has_phone and not is_phone(one) else case for one in addresses]
        visits = [
            one.visit(address, Path(folder)) for one, address in zip(cases, addresses, strict=True)
        ]  # all that can be wrong is told first
        if len(visits) == 1:  # of several devices, one that lacks an option leaves the others'
            check_device(visits[0].address, visits[0].options)
        if not keep_failed:
            case.check_runnable(visits)
        case.check_predictable(predictor)
        report = _report(case, visits, listener)
    if csv is not None:
        write_csv(report, Path(csv))
    if page is not None:
        from netlathe.report.time_page import page_of_times
        from netlathe.report.writing import write_page

        write_page(page_of_times(report, {**provenance(listener.command), "finished_at": now()}), Path(page))
    listener.report(report)
    if report.failure and not keep_failed:
        raise NetlatheError(report.failure)
    return report


def _things(what: Given | Sequence[Given] | Module, example_inputs: Sequence[Any] | None, folder: Path) -> list[Given]:
    """Subjects that are timed, a torch module as a file."""
    if example_inputs is not None:
        return [exported(what, example_inputs, folder)]
    if hasattr(what, "state_dict"):
        raise FormatError(
            f"{type(what).__name__}: a torch module is timed with inputs as it takes them: time(module, (image,))"
        )
    several = isinstance(what, Sequence) and not isinstance(what, str)
    return list(cast("Sequence[Given]", what)) if several else [cast("Given", what)]


@dataclass(frozen=True)
class _Case:
    """Networks to time, and how."""

    timeables: Sequence[Timeable]
    options: DeviceOptions
    model: LatencyPredictor | None
    op_profile: bool
    budget_s: float
    seed: int
    profile: Path | None
    sustained_s: float | None

    def without_a_phone(self) -> _Case:
        """Without the options that are for the phones beside a device."""
        return replace(self, options=replace(self.options, delegate="cpu", benchmark_binary=None, xnnpack=True))

    def visit(self, address: str, folder: Path) -> _Visit:
        """Visit of a device. Raises FormatError for a file that has not the dtype that is asked for."""
        wanted = file_format_at(address)
        runs: dict[str, ModelFile | Graph] = {}
        refused: dict[str, FormatError] = {}
        remarks: list[str] = []
        for one in self.timeables:
            try:
                runs[one.name], remark = run_as(one, wanted, address)
            except FormatError as error:
                refused[one.name] = error
                continue
            remarks += [remark] if remark else []
            remarks += [f"{one.name}: {text}" for text in (one.file.remarks if one.file else ())]
            if one.file and one.file.control_flow:
                kinds = ", ".join(one.file.control_flow)
                remarks.append(
                    f"{one.name}: has control flow ({kinds}), so its time depends on its inputs, here random"
                )
        return _Visit(address, runs, refused, self._dtyped(wanted, runs), tuple(remarks), folder)

    def check_runnable(self, visits: Sequence[_Visit]) -> None:
        """Raises FormatError for what runs on none of the devices."""
        for one in self.timeables:
            if all(one.name in visit.refused for visit in visits):
                raise visits[0].refused[one.name]

    def _dtyped(self, wanted: FileFormat | None, runs: Mapping[str, ModelFile | Graph]) -> DeviceOptions:
        """With the dtype that all .tflite files have, for what runs beside them, and the batch of networks that were
        read from files."""
        files = {name: one for name, one in runs.items() if isinstance(one, ModelFile)}
        batches = {one.inputs[0][0] for one in runs.values() if isinstance(one, Graph)}
        if wanted is None and self.model is None and len(batches) == 1:
            return replace(self.options, batch=batches.pop())
        if wanted != "tflite" or not files:
            return self.options
        asked = self.options.dtype
        for name, one in files.items():
            if asked not in (None, one.dtype):
                raise FormatError(
                    f"{name}: this file computes in {one.dtype}, but {asked} is asked for, by --dtype or the "
                    "predictor; leave --dtype out, or take a predictor of the file's dtype"
                )
        is_int8 = len(files) == len(runs) and {one.dtype for one in files.values()} == {"int8"}
        return replace(self.options, dtype=asked or ("int8" if is_int8 else "float32"))

    def check_predictable(self, predictor: object) -> None:
        """Raises what says why something cannot be predicted, before it is timed."""
        if self.model:
            graphs = [self._checked(one).graph for one in self.timeables]
            with naming_others(predictor, graphs):
                self.model.predict(graphs)

    def _checked(self, one: Timeable) -> Subject:
        found, batch = one.subject.graph.input_shape[0], self.options.batch or 1
        if found != batch:
            raise FormatError(
                f"{one.name}: takes batches of {found}, but the predictor was fitted on batches of {batch}"
            )
        return one.subject

    def predicted_ms(self, names: Sequence[str]) -> dict[str, float]:
        """By name; none without a predictor."""
        if not self.model or not names:
            return {}
        graphs = {one.name: one.subject.graph for one in self.timeables}
        return dict(zip(names, self.model.predict([graphs[name] for name in names]).tolist(), strict=True))

    def doubts(self, names: Iterable[str]) -> list[str]:
        """Warnings on the predictions of these."""
        subjects = {one.name: one.subject for one in self.timeables} if self.model else {}
        found = [(name, subjects[name]) for name in names] if self.model else []
        return [doubt for name, one in found if self.model for doubt in doubts(self.model, name, one.graph, one.dtype)]


@dataclass(frozen=True)
class _Visit:
    """Timing on one device: what is timed there, and how."""

    address: str
    runs: Mapping[str, ModelFile | Graph]
    refused: Mapping[str, FormatError]
    """Subjects that cannot run there, and why."""
    options: DeviceOptions
    remarks: tuple[str, ...]
    folder: Path
    """For files that are written."""


def _report(case: _Case, visits: Sequence[_Visit], listener: Listener) -> TimeReport:
    """Device after device; one that fails leaves the others'. Raises its error where there is no other."""
    timed: list[Timed] = []
    warnings: list[str] = []
    loads: dict[str, SustainedRun] = {}
    is_interrupted = False
    for visit in visits:
        for remark in visit.remarks:
            listener.note(f"  {remark}")
        timed += [Timed(name, visit.address, None, None, str(error)) for name, error in visit.refused.items()]
        if not visit.runs:
            continue
        try:
            found, taken, load = _time(case, visit, listener)
        except DeviceError as error:
            if len(visits) == 1:
                raise
            timed += [Timed(name, visit.address, None, None, str(error)) for name in visit.runs]
            continue
        timed += found
        loads |= {visit.address: load} if load else {}
        warnings += _warnings(found, taken, case.budget_s)
        is_interrupted = is_interrupted or taken.is_interrupted
        if is_interrupted:
            break
    if is_interrupted and not any(one.measurement for one in timed):
        listener.warn(warnings)
        raise KeyboardInterrupt
    predicted_ms = case.predicted_ms(list(dict.fromkeys(one.name for one in timed if one.measurement)))
    warnings += case.doubts(predicted_ms)
    timed = [replace(one, predicted_ms=predicted_ms.get(one.name)) for one in timed]
    return TimeReport(tuple(timed), tuple(dict.fromkeys(warnings)), is_interrupted, case.profile is not None, loads)


def _time(case: _Case, visit: _Visit, listener: Listener) -> tuple[list[Timed], RoundsTaken, SustainedRun | None]:
    with listener.working(f"opening {visit.address}"):
        opened = open_device(visit.address, visit.options, report=listener.note)
    with results_first(visit.address, listener), opened as device:
        if case.model:
            check_same_setup(case.model, device.setup)
        keep_aside(device)
        with listener.working("loading"):
            loaded = _load(device, visit)
            observed = _observe(device, loaded)
        plan = replace(plan_for(device), budget_s=case.budget_s)
        load = _sustain(case, device, loaded, listener)
        taken = _last(load, loaded) if load else _take(case, device, loaded, observed, plan, listener)
        if case.op_profile and not taken.is_interrupted:
            with listener.working("timing kernels"):
                observed |= _observe(device, loaded, op_profile=True)
        found = [
            Timed(
                name, visit.address, _setup_of(device.setup, loaded.files.get(name)),
                taken.measured.get(loaded.keys[name]),
                loaded.errors.get(name) or str(taken.errors.get(loaded.keys[name], "")), loaded.files.get(name),
                observed.get(loaded.keys[name]), tuple(taken.details.get(loaded.keys[name], ())),
            )
            for name in visit.runs
        ]  # fmt: skip
    return found, taken, load


def _sustain(case: _Case, device: Device, loaded: _Loaded, listener: Listener) -> SustainedRun | None:
    """The load that lasts; None where none is asked for, or nothing could be loaded."""
    names = {key: name for name, key in loaded.keys.items() if key}
    duration_s = case.sustained_s
    if duration_s is None or not names:
        return None
    with listener.watching(["under load"]) as (watch,):

        def on_sustained(at_s: float, conditions: Mapping[str, float | str]) -> None:
            heat = temperature_c(conditions)
            watch(min(1.0, at_s / duration_s), max(0.0, duration_s - at_s), "" if heat is None else f"{heat:.1f} °C")

        return run_sustained(device, names, duration_s, seed=case.seed, on_sustained=on_sustained)


def _last(load: SustainedRun, loaded: _Loaded) -> RoundsTaken:
    """Latencies at the end of a load."""
    keys = {name: key for name, key in loaded.keys.items() if key}
    measured = {keys[one.name]: Measurement(one.rounds) for one in load.networks}
    return RoundsTaken(measured, is_interrupted=load.is_interrupted, is_done=True)


def _check_sustained(options: DeviceOptions, profile: object, sustained_s: float | None) -> None:
    """Raises NetlatheError for a predictor of the other speed, and for a profile, whose anchors are not timed."""
    if options.sustained and sustained_s is None:
        raise NetlatheError("the predictor is of sustained speed, so its judge is, too: give --sustained 15m")
    if sustained_s is not None and profile is not None:
        raise NetlatheError("--profile tells how fast a cool device is now; leave it out with --sustained")


def _setup_of(setup: Setup, file: ModelFile | None) -> Setup:
    """A file has a dtype and a batch of its own."""
    return replace(setup, dtype=file.dtype, batch=file.batch) if file else setup


@dataclass(frozen=True)
class _Loaded:
    """Part of a visit that is ready on the device."""

    keys: dict[str, str]
    """By name; "" for what could not be loaded."""
    files: dict[str, ModelFile]
    errors: dict[str, str]


def _load(device: Device, visit: _Visit) -> _Loaded:
    loaded = _Loaded({}, {}, {})
    for name, one in visit.runs.items():
        try:
            if isinstance(device, TimesFiles):
                file = one if isinstance(one, ModelFile) else _as_file(one, device, visit.folder)
                device.load_file(file.key, file)
                loaded.keys[name], loaded.files[name] = file.key, file
            else:
                assert isinstance(one, Graph)  # what a device that runs no files is given
                device.load(one.key, one)
                loaded.keys[name] = one.key
        except (UnsupportedGraphError, MeasurementError, FormatError) as error:
            loaded.keys[name], loaded.errors[name] = "", str(error)
    return loaded


def _as_file(graph: Graph, device: TimesFiles, folder: Path) -> ModelFile:
    check_loadable(graph, replace(device.setup, batch=graph.inputs[0][0]))
    return written(graph, device.file_format, device.setup.dtype, folder)


def _observe(device: Device, loaded: _Loaded, *, op_profile: bool = False) -> dict[str, Observation]:
    """Observations of starts, by key; nothing of devices that run no files."""
    keys = [loaded.keys[name] for name in loaded.files]
    if not isinstance(device, TimesFiles) or not keys:
        return {}
    return dict(device.observe(keys, op_profile=op_profile))


def _take(
    case: _Case, device: Device, loaded: _Loaded, observed: Mapping[str, Observation], plan: Plan, listener: Listener
) -> RoundsTaken:
    names = {key: name for name, key in loaded.keys.items() if key}
    anchors, stored = _anchors_of(case.profile, device.setup) if case.profile else ({}, {})
    guesses_ms = {key: one.first_inference_ms for key, one in observed.items() if one.first_inference_ms}
    with listener.estimating(list(names.values())) as on_round:
        return take_rounds(
            device, names, plan, guesses_ms=guesses_ms, anchors=anchors, stored=stored, seed=case.seed,
            on_round=lambda progress, taken: on_round(
                progress, lambda: {names[key]: one for key, one in taken().items()}
            ),
        )  # fmt: skip


def _warnings(found: Sequence[Timed], taken: RoundsTaken, budget_s: float) -> list[str]:
    """Why the times may not be the last word."""
    warnings = []
    unstable = {one.name: one.measurement for one in found if one.measurement and not one.measurement.is_stable}
    for name, one in unstable.items():
        warnings.append(
            f"{name} is not stable yet: after {len(one.rounds)} rounds the standard error is "
            f"{percent(one.relative_error)}; close other programs, or give it longer (--budget-s {6 * budget_s:g})"
        )
    missing = [one.name for one in found if not one.measurement and not one.error]
    if taken.is_interrupted:
        warnings.append("interrupted, so these are the times so far")
        warnings += [f"without a time, as there were fewer than three rounds: {', '.join(missing)}"] if missing else []
    elif taken.measured and not taken.is_done and not unstable and not taken.errors:
        warnings.append(
            f"the {budget_s:g} s were out before rounds agreed within 1 %; --budget-s {6 * budget_s:g} may narrow the "
            "interval"
        )
    return warnings + taken.warnings


@dataclass(frozen=True)
class Stopwatch:
    """Times networks on an open device, each once unless it is asked for again, all beside the same anchors."""

    device: Device
    notes: Path
    """A profile of its own, where what was timed is kept: to judge a predictor, it must neither be taken from the
    records that it was fitted on nor be added to them."""
    plan: Plan
    seed: int
    listener: Listener
    warnings: list[str] = field(default_factory=list)
    """Warnings of the last timing."""

    def time_again(self, graphs: Mapping[str, Graph], times: int) -> Measurements:
        """Rounds that are independent of earlier ones, at the same level: the `times`-th repetition, 1, 2, ... Raises
        as `time` does."""
        notes = self.notes.with_stem(f"{self.notes.stem}-{times}")
        if not notes.exists():
            _copy_anchors(self.notes, notes, self.device.setup)
        return replace(self, notes=notes, seed=self.seed + times).time(graphs)

    def time(self, graphs: Mapping[str, Graph]) -> Measurements:
        """By name, all in the same rounds. Raises NetlatheError for a network that could not be timed."""
        label = f"timing {next(iter(graphs))}" if len(graphs) == 1 else f"timing {len(graphs)} networks"
        with self.listener.working(label):
            summary = self.measure(graphs)
        for record in (*summary.unsupported, *summary.failed):
            raise NetlatheError(f"{record.name} could not be timed: {record.message}")
        self.warnings[:] = summary.warnings
        return self.taken(graphs)

    def measure(self, graphs: Mapping[str, Graph]) -> CampaignSummary:
        """Takes rounds until the plan's stop rule or budget ends it, but at least three; they stay in the notes if it
        is interrupted."""
        items = [WorkItem(name, "network" if g.is_network else "block", g) for name, g in graphs.items()]
        with ProfileFile(self.notes, create=True) as file:

            def campaign(plan: Plan) -> CampaignSummary:
                return run_campaign(self.device, items, file, plan, seed=self.seed)

            summary = campaign(self.plan)
            if summary.unfinished:
                summary = campaign(
                    replace(self.plan, budget_s=None, min_rounds=FEWEST_ROUNDS, max_rounds=FEWEST_ROUNDS)
                )
        return summary

    def taken(self, graphs: Mapping[str, Graph]) -> Measurements:
        """Measurements that the notes hold of these; networks without a round are left out."""
        with ProfileFile(self.notes) as file:
            rounds = file.rounds(self.device.setup)
        return {name: Measurement(rounds[graph.key]) for name, graph in graphs.items() if graph.key in rounds}


def keep_aside(device: Device) -> None:
    """Keeps a phone's rounds apart from those that a profile will recover there."""
    if isinstance(device, KeepsAside):
        device.is_aside = True


@contextmanager
def stopwatch(
    device: Device, profile: Path | None, *, plan: Plan, seed: int = 0, listener: Listener
) -> Iterator[Stopwatch]:
    """With a `profile`, its anchors tell how fast the device is now; nothing is added to it."""
    keep_aside(device)
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
    if options.sustained:
        raise RecordError(
            f"{address}: the predictor is of sustained speed, of which a few seconds' measurement is no judge; search "
            "without --device, and time what is found: netlathe time --sustained 15m"
        )
    with listener.working(f"opening {address}"):
        device = open_device(address, options, report=listener.note)
    with device:
        check_same_setup(model, device.setup)
        yield device


def options_of(setup: Setup) -> DeviceOptions:
    """Options that open a device as it was for these measurements."""
    options = DeviceOptions(
        threads=setup.threads, batch=setup.batch, cores=setup.core_mask, dtype=setup.dtype,
        sustained=is_sustained(setup),
    )  # fmt: skip
    if setup.runtime != "tflite":
        return options
    delegates: dict[str, Literal["gpu", "nnapi", "npu"]] = {"gpu": "gpu", "nnapi": "nnapi", "npu": "npu"}  # of a phone
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
    anchors, rounds = _anchors_of(source, setup)
    with ProfileFile(target, create=True) as new:
        new.add_setup(setup)
        new.add_graphs((key, "block", graph) for key, graph in anchors.items())
        new.set_anchors(setup, anchors)
        for key in anchors:
            for one in rounds.get(key, ()):
                new.add_round(setup, {key: one.samples_ms}, started_at=one.started_at, drift=one.drift)


def _anchors_of(profile: Path, setup: Setup) -> tuple[dict[str, Graph], dict[str, tuple[Round, ...]]]:
    """A profile's anchors, and their rounds there. Raises RecordError where it was not measured on this setup."""
    with ProfileFile(profile) as file:
        anchors, rounds = file.anchors(setup), file.rounds(setup)
        if not anchors:
            known = "; ".join(str(one) for one in file.setups())
            raise RecordError(f"{profile}: was not measured on {setup}, but on {known}")
    return anchors, {key: tuple(rounds.get(key, ())) for key in anchors}


def check_same_setup(model: LatencyPredictor, setup: Setup) -> None:
    """Raises RecordError when the predictor was fitted on another setup than this one; that of a pool is of each of its
    model's devices."""
    differing = (pool_of(setup) if is_pool(model.setup_) else setup).differences(model.setup_)
    if differing:
        raise RecordError(
            f"the predictor was fitted on another setup, so times do not compare ({'; '.join(differing)})"
        )
