"""`netlathe time`: its options, and from networks to a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from netlathe.archspace.errors import FormatError, NetlatheError
from netlathe.console import Terminal, percent
from netlathe.options import AssumeUnknown, Json, Seed

if TYPE_CHECKING:
    from netlathe.archspace.graph import Graph
    from netlathe.predictor import LatencyPredictor
    from netlathe.profiler.campaign import CampaignSummary
    from netlathe.profiler.devices import Device, DeviceOptions
    from netlathe.subjects import Subject
    from netlathe.timing import Measurements, Stopwatch


def time(
    what: Annotated[list[str], typer.Argument(help="Names, architecture files, run folders, .tflite or .onnx files.")],
    device: Annotated[str, typer.Option(help="Where to time them, as `netlathe profile` takes it.")] = "local",
    predictor: Annotated[Path | None, typer.Option(help="Compare with this predictor file.")] = None,
    profile_file: Annotated[
        Path | None, typer.Option("--profile", help="Profile whose anchors tell how fast the device is now.")
    ] = None,
    budget_s: Annotated[
        float, typer.Option(min=1, help="Stop refining after so many seconds; three rounds are always made.")
    ] = 10.0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the runtime; 1, or the predictor's.", show_default=False)
    ] = None,
    cores: Annotated[
        str | None, typer.Option(help="Cores to run on, as `netlathe profile` takes them.", show_default=False)
    ] = None,
    dtype: Annotated[
        Literal["float32", "int8", "float16"] | None,
        typer.Option(help="That of the .tflite files, or the predictor's, or float32.", show_default=False),
    ] = None,
    delegate: Annotated[
        Literal["cpu", "gpu", "nnapi"] | None, typer.Option(help="What runs them on a phone.", show_default=False)
    ] = None,
    benchmark_binary: Annotated[
        Path | None, typer.Option(help="benchmark_model for the phone, instead of the official one.")
    ] = None,
    assume_unknown: AssumeUnknown = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Time networks on this CPU or another device; a .tflite as it is (not on onnxruntime and cuda), others with random
    weights.

    A first estimate comes at once and gets better until rounds agree within 1 %.

    Ctrl-C ends it with the times so far: exit code 0 if they are stable (three
    rounds or more, standard error at most 5 %), else 130.
    """
    from netlathe.pricing import load_predictor, naming_others

    terminal = Terminal(as_json=as_json)
    model = load_predictor(predictor, assume_unknown=assume_unknown) if predictor else None
    given = {"threads": threads, "cores": cores, "dtype": dtype, "delegate": delegate}
    case = _prepare(what, model, benchmark_binary, {name: value for name, value in given.items() if value is not None})
    if model:
        with naming_others(predictor or "", case.graphs.values()):
            model.predict(list(case.graphs.values()))  # what cannot be predicted is told before it is timed
    ended = _time(case, device, profile_file, budget_s, seed, terminal)
    _report(case, ended, budget_s, terminal, corrected=profile_file is not None)
    if terminal.undone:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Case:
    """What to time, and how."""

    subjects: Mapping[str, Subject]
    files: Mapping[str, bytes]
    """.tflite files by graph key, to run as they are."""
    options: DeviceOptions
    model: LatencyPredictor | None

    @property
    def graphs(self) -> dict[str, Graph]:
        return {name: subject.graph for name, subject in self.subjects.items()}

    def doubts(self, names: Iterable[str]) -> list[str]:
        """Of predictions of these."""
        from netlathe.pricing import doubts

        found = {name: self.subjects[name] for name in names} if self.model else {}
        return [doubt for name, one in found.items() if self.model
                for doubt in doubts(self.model, name, one.graph, one.dtype)]  # fmt: skip


@dataclass(frozen=True)
class _Ended:
    """What was measured until the end, and why it was the end."""

    setup: str
    measured: Measurements
    summary: CampaignSummary | None
    """None where it was interrupted."""
    is_done: bool
    """Whether the stop rule was met for each network."""


def _prepare(
    what: list[str], model: LatencyPredictor | None, binary: Path | None, given: Mapping[str, object]
) -> _Case:
    """Raises FormatError where files are of unlike dtypes, or of another than was asked for."""
    from netlathe.archspace.forms.tflite_reader import read_dtype
    from netlathe.profiler.devices import DeviceOptions
    from netlathe.subjects import find_subject
    from netlathe.timing import options_of

    options = options_of(model.setup_) if model else DeviceOptions(batch=1)
    options = replace(options, benchmark_binary=binary, **given)  # type: ignore[arg-type]  # by name, as typer checked
    subjects = {one: find_subject(one, batch=options.batch or 1) for one in what}
    contents = {one: Path(one).read_bytes() for one in subjects if one.endswith(".tflite") and Path(one).is_file()}
    for one, content in contents.items():
        dtype = read_dtype(content)
        if options.dtype is None:
            options = replace(options, dtype=dtype)
        elif options.dtype != dtype:
            raise FormatError(
                f"{one}: this file computes in {dtype}, but {options.dtype} is asked for, by --dtype, the predictor or "
                "another file; time files of each dtype in a call of their own"
            )
    files = {subjects[one].graph.key: content for one, content in contents.items()}
    return _Case(subjects, files, options, model)


def _time(
    case: _Case, address: str, profile_file: Path | None, budget_s: float, seed: int, terminal: Terminal
) -> _Ended:
    from netlathe.phones import choose_phone
    from netlathe.profiler.devices import open_device
    from netlathe.profiler.protocol import is_done
    from netlathe.stages import results_first
    from netlathe.timing import check_same_setup, plan_for, stopwatch

    address = choose_phone(address, terminal)
    with terminal.working(f"opening {address}"):
        opened = open_device(address, case.options, report=terminal.say)
    with results_first(address, terminal), opened as device:
        if case.model:
            check_same_setup(case.model, device.setup)
        _give_files(device, case.files)
        plan = replace(plan_for(device), budget_s=budget_s)
        with stopwatch(device, profile_file, plan=plan, seed=seed, terminal=terminal) as watch:
            summary = _refine(watch, case.graphs, terminal)
            measured = {name: one for name, one in watch.taken(case.graphs).items() if one.interval_ms}
            done = all(is_done(one.rounds, plan) for one in measured.values())
            ended = _Ended(str(device.setup), measured, summary, done)
    return ended


def _give_files(device: Device, files: Mapping[str, bytes]) -> None:
    """To a device that runs .tflite files."""
    models = getattr(device, "models", None)
    if models is not None:
        models.update(files)


def _refine(watch: Stopwatch, graphs: Mapping[str, Graph], terminal: Terminal) -> CampaignSummary | None:
    """None where it was interrupted; what was measured is in the notes."""
    from netlathe.estimates import watching

    try:
        with watching(list(graphs), terminal) as on_round:
            return watch.measure(graphs, on_round)
    except KeyboardInterrupt:
        return None


def _report(case: _Case, ended: _Ended, budget_s: float, terminal: Terminal, *, corrected: bool) -> None:
    """Raises typer.Exit where an interrupt left no sound result, NetlatheError for a network that could not be timed,
    both after the table; KeyboardInterrupt where there is nothing to show."""
    from netlathe.estimates import explain_drift, measured_json, show_measured

    measured, summary = ended.measured, ended.summary
    if not measured and summary is None:
        raise KeyboardInterrupt
    predicted_ms: dict[str, float] = {}
    if case.model and measured:
        graphs = [case.graphs[name] for name in measured]
        predicted_ms = dict(zip(measured, case.model.predict(graphs).tolist(), strict=True))
    if measured:
        show_measured(measured, predicted_ms, terminal)
        terminal.say(f"  on {ended.setup}", style="dim")
    if measured and corrected:
        explain_drift(measured.values(), terminal)
    missing = [name for name in case.graphs if name not in measured]
    warnings = _warnings(ended, missing, budget_s)
    warnings += case.doubts(predicted_ms)
    terminal.warn(warnings)
    _raise_failure(summary)
    answer = {"timed": measured_json(measured, predicted_ms), "setup": ended.setup, "warnings": warnings}
    terminal.result({**answer, "is_interrupted": summary is None})
    if summary is None and not (all(one.is_stable for one in measured.values()) and not missing):
        raise typer.Exit(130)


def _warnings(ended: _Ended, missing: list[str], budget_s: float) -> list[str]:
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


def _raise_failure(summary: CampaignSummary | None) -> None:
    for record in (*summary.unsupported, *summary.failed) if summary else ():
        raise NetlatheError(f"{record.name} could not be timed: {record.message}")
