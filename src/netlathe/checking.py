"""Latency limits as a test: networks predicted or timed, and judged by a limit and by what they took before."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.jsonfile import json_digest, write_json
from netlathe.check_files import is_step_summary, write_junit, write_markdown
from netlathe.checked import (
    KIND,
    VERSION,
    Baseline,
    Checked,
    CheckReport,
    KernelTime,
    Latency,
    with_baseline,
    with_limit,
)
from netlathe.events import Listener, listener_of
from netlathe.kernel_costs import breakdown_of
from netlathe.outputs import Kind, Output, check_outputs
from netlathe.pricing import Unknown, load_predictor, priced
from netlathe.subjects import Given, find_subject, with_contents
from netlathe.timeables import gather, takes_shapes

if TYPE_CHECKING:
    from netlathe.predictor import LatencyPredictor
    from netlathe.predictor.own_model import Predicts
    from netlathe.timed import Timed

TIMED_COVERAGE = 0.9
"""Part of the cases in which a measurement's interval holds its true value."""


def check(
    what: Given | Sequence[Given],
    *,
    max_ms: float | None = None,
    predictor: str | Path | LatencyPredictor | Predicts | None = None,
    device: str | None = None,
    baseline: str | Path | None = None,
    max_slower: float | None = None,
    json: str | Path | None = None,
    junit: str | Path | None = None,
    markdown: str | Path | None = None,
    coverage: float = 0.9,
    unknown: Unknown = "refuse",
    shapes: Mapping[str, Sequence[int]] | None = None,
    op_profile: bool = False,
    budget_s: float = 10.0,
    threads: int | None = None,
    cores: str | None = None,
    dtype: str | None = None,
    delegate: str | None = None,
    benchmark_binary: str | Path | None = None,
    seed: int = 0,
    progress: bool | Listener = False,
) -> CheckReport:
    """Checks the latency of networks, by a predictor or on a device, against a limit and an earlier check.

    A network fails where its whole interval is above `max_ms`, and is in doubt (warned of) where the interval holds
    that limit. With a `baseline`, the JSON of an earlier check, it also fails where it is slower than there by more
    than the share `max_slower` (0.05: 5 %), and the report says which kernels changed: by one predictor, latencies are
    compared as they are; measured ones, and those of two predictors, by their intervals.

    `what` is what predict takes, one or several, of which a folder stands for the model files below it. `json`,
    `junit` (XML for CI) and `markdown` are files to write; the last is appended to where it is GitHub's
    GITHUB_STEP_SUMMARY. `shapes`, and all from `op_profile` on, are as time takes them; with `op_profile`, the kernels
    of timed files are told, too.

    A network that cannot be read, priced or timed is an error of its own; the others are checked. The report's
    `exit_code` is 0 where none failed, 1 where one did, 2 where there is such an error. Raises NetlatheError for limits
    and a coverage that are none, and as predict and time do for a predictor, a device or a baseline that is none.
    """
    if (predictor is None) == (device is None):
        raise NetlatheError("name either a predictor or a device to check by (--predictor, --device)")
    _check_limits(max_ms, max_slower, baseline)
    things = with_contents([what] if isinstance(what, str | Path) or not isinstance(what, Sequence) else what)
    outputs = _Outputs(*(None if path is None else Path(path) for path in (json, junit, markdown)))
    outputs.check([one for one in (*things, predictor, baseline) if isinstance(one, str | Path)])
    before = None if baseline is None else _baseline(Path(baseline), is_timed=device is not None)
    given = dict(zip(_names(things), things, strict=True))
    sizes, listener = shapes or {}, listener_of(progress)
    if device is None:
        from netlathe.predictor.intervals import check_coverage  # only where a predictor is wanted

        assert predictor is not None
        check_coverage(coverage)
        model = load_predictor(predictor, unknown=unknown)
        report = _predicted(given, model, predictor, sizes, coverage)
    else:
        timing = {
            "op_profile": op_profile, "budget_s": budget_s, "threads": threads, "cores": cores, "dtype": dtype,
            "delegate": delegate, "benchmark_binary": benchmark_binary, "seed": seed, "progress": listener,
        }  # fmt: skip
        report = _timed(given, device, sizes, timing)
    report = _judged(report, max_ms, max_slower, before)
    outputs.write(report)
    listener.report(report)
    return report


def _check_limits(max_ms: float | None, max_slower: float | None, baseline: str | Path | None) -> None:
    """Raises NetlatheError for limits that are none."""
    if max_ms is not None and not (math.isfinite(max_ms) and max_ms > 0):
        raise NetlatheError(f"--max-ms {max_ms:g}: a limit is a number of milliseconds above zero, such as 20")
    if max_slower is not None and not (math.isfinite(max_slower) and max_slower >= 0):
        raise NetlatheError(f"--max-slower {max_slower!r}: expected a share of zero or more, such as 5%")
    if max_slower is not None and baseline is None:
        raise NetlatheError("--max-slower: name what to compare with (--baseline, the JSON of an earlier check)")
    if max_ms is None and baseline is None:
        raise NetlatheError("there is nothing to check: give a limit (--max-ms), or an earlier check (--baseline)")


@dataclass(frozen=True)
class _Outputs:
    """Files to write."""

    json: Path | None
    junit: Path | None
    markdown: Path | None

    def check(self, inputs: Sequence[str | Path]) -> None:
        """Raises OutputError, before any work, for what cannot or must not be written."""
        adds = self.markdown is not None and is_step_summary(self.markdown)
        kinds: dict[Kind, Path | None] = {
            "check": self.json, "junit": self.junit, "markdown": None if adds else self.markdown
        }  # fmt: skip
        options: dict[Kind, str] = {"check": "--json", "junit": "--junit", "markdown": "--markdown"}
        check_outputs([Output(options[kind], path, kind) for kind, path in kinds.items() if path], inputs)

    def write(self, report: CheckReport) -> None:
        """Raises OSError."""
        if self.json is not None:
            write_json(self.json, KIND, VERSION, report.to_json())
        if self.junit is not None:
            write_junit(report, self.junit)
        if self.markdown is not None:
            write_markdown(report, self.markdown)


def _baseline(path: Path, *, is_timed: bool) -> Baseline:
    """Raises FormatError for a file that is none, NetlatheError for one of the other kind of latencies."""
    before = Baseline.load(path)
    if before.is_timed != is_timed:
        how = ("timed", "predicted") if before.is_timed else ("predicted", "timed")
        raise NetlatheError(f"{path}: holds {how[0]} latencies, which do not compare with {how[1]} ones")
    return before


def _names(given: Sequence[Given]) -> list[str]:
    """Names of what is given: a path's last part, where that tells it from the others."""
    full = [str(one) if isinstance(one, str | Path) else getattr(one, "name", "graph") for one in given]
    short = [Path(name).name or name for name in full]
    names = full if len(set(short)) < len(set(full)) else short
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise NetlatheError(f"{twice}: is given twice; name each network once")
    return names


def _predicted(
    given: Mapping[str, Given],
    model: LatencyPredictor,
    predictor: str | Path | LatencyPredictor | Predicts,
    shapes: Mapping[str, Sequence[int]],
    coverage: float,
) -> CheckReport:
    """Latencies by a predictor, and those of the kernels."""
    from netlathe.predictor.files import pack

    networks = []
    for name, one in given.items():
        try:
            subject = replace(find_subject(one, batch=model.setup_.batch, shapes=shapes), name=name)
            found = priced(subject, model, predictor, coverage)
            costs = breakdown_of(subject, model, advises=False).kernels
        except (NetlatheError, OSError) as error:
            networks.append(Checked(name, error=str(error)))
            continue
        kernels = _together([(cost.kernel, cost.latency_ms or 0.0) for cost in costs])
        latency = Latency(found.latency_ms, found.low_ms, found.high_ms, model.setup_, kernels)
        networks.append(Checked(name, latency, doubts=found.warnings))
    label = str(predictor) if isinstance(predictor, str | Path) else type(predictor).__name__
    content = json_digest(pack(model.to_json()))
    return CheckReport(tuple(networks), None, None, coverage, predictor=label, content=content)


def _timed(
    given: Mapping[str, Given], device: str, shapes: Mapping[str, Sequence[int]], timing: Mapping[str, Any]
) -> CheckReport:
    """Latencies on a device, and those of the kernels where it tells them."""
    from netlathe import timing as stopwatch

    errors: dict[str, str] = {}
    readable: dict[str, tuple[str, Given]] = {}
    for name, one in given.items():
        try:
            (timeable,) = gather([one], shapes if takes_shapes(one) else {}, 1)
            readable[timeable.name] = name, one
        except (NetlatheError, OSError) as error:
            errors[name] = str(error)
    timed: dict[str, Timed] = {}
    warnings: tuple[str, ...] = ()
    if readable:
        report = stopwatch.time(
            [one for _, one in readable.values()], device=device, shapes=shapes, keep_failed=True, **timing
        )
        if report.is_interrupted:
            raise KeyboardInterrupt
        timed, warnings = {readable[one.name][0]: one for one in report.timed}, report.warnings
    networks = [_of_timed(name, timed[name]) if name in timed else Checked(name, error=errors[name]) for name in given]
    return CheckReport(tuple(networks), None, None, TIMED_COVERAGE, device=device, warnings=warnings)


def _of_timed(name: str, timed: Timed) -> Checked:
    found = timed.measurement
    if found is None or found.interval_ms is None or timed.setup is None:
        return Checked(name, error=timed.error or "fewer than three rounds were timed; give it longer (--budget-s)")
    seen = timed.observation
    rows = seen.op_times if seen else ()
    kernels = [(_kernel_label(row.node_type, row.name), row.mean_ms * max(1, row.times_called)) for row in rows]
    times = _together(kernels) if kernels else None
    return Checked(name, Latency(found.latency_ms, *found.interval_ms, timed.setup, times))


def _kernel_label(node_type: str, name: str) -> str:
    """Type and name of a row of a runtime's table; a delegate's ops have but a number there, which shifts with every op
    before them."""
    name = re.sub(r":\d+$", "", name).strip("[]")
    return node_type if name.startswith("Delegate") else f"{node_type} {name}"


def _together(kernels: Sequence[tuple[str, float]]) -> dict[str, KernelTime]:
    """Times of kernels by name, equal ones together."""
    found: dict[str, KernelTime] = {}
    for name, ms in kernels:
        before = found.get(name, KernelTime(0, 0.0))
        found[name] = KernelTime(before.count + 1, before.latency_ms + ms)
    return found


def _judged(
    report: CheckReport, max_ms: float | None, max_slower: float | None, before: Baseline | None
) -> CheckReport:
    """With the verdicts on limit and baseline, and what the baseline has that was not checked, or the other way."""
    networks, warnings = list(report.networks), list(report.warnings)
    if max_ms is not None:
        networks = [with_limit(one, max_ms) for one in networks]
    if before is not None:
        is_exact = report.content is not None and report.content == before.content
        networks = [
            with_baseline(one, before.networks[one.name], max_slower, is_exact=is_exact)
            if one.name in before.networks else one
            for one in networks
        ]  # fmt: skip
        warnings += _unlike(report, before)
    return replace(
        report, networks=tuple(networks), max_ms=max_ms, max_slower=max_slower, warnings=tuple(warnings),
        baseline=before.path if before else None,
    )  # fmt: skip


def _unlike(report: CheckReport, before: Baseline) -> list[str]:
    """Warnings on what the baseline has and this check has not, or the other way."""
    names = [one.name for one in report.networks if one.latency]
    new, gone = [n for n in names if n not in before.networks], [n for n in before.networks if n not in names]
    warnings = [f"not in the baseline, so that there is nothing to compare: {', '.join(new)}"] if new else []
    warnings += [f"in the baseline, but not checked now: {', '.join(gone)}"] if gone else []
    if report.content != before.content:
        warnings.append(
            "the baseline is of another predictor, so that latencies are compared by their intervals; write a new one"
        )
    return warnings
