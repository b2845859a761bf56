"""Profiling a search space on one device or several side by side, as a user watches it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Status
from netlathe.archspace.spaces import SearchSpace
from netlathe.archspace.tables import check_table_path, write_table
from netlathe.choosing import Choice, choose_items, forecast, forget, print_choice, recorded_items, remember
from netlathe.console import Terminal, Watch, milliseconds, percent
from netlathe.stages import measure, results_first, work_items

if TYPE_CHECKING:
    from netlathe.profiler.again import Which
    from netlathe.profiler.campaign import CampaignSummary, WorkItem
    from netlathe.profiler.devices import DeviceOptions
    from netlathe.profiler.devices.base import Device, Report
    from netlathe.profiler.protocol import Plan


@dataclass(frozen=True)
class Job:
    """What `netlathe profile` is asked to do on every device."""

    space: SearchSpace
    output: Path
    networks: int
    seed: int
    blocks: int | None = None
    """How many blocks to measure that the profile does not hold yet; None for all."""
    budget_s: float | None = None
    max_rounds: int | None = None
    """Instead of the device's own plan's."""
    op_profile: bool = False
    again: Which | None = None
    """Instead of the space's, such graphs of what the profile holds, a second time."""


AGAIN_WORDS: Mapping[Which, str] = {"unstable": "is unstable", "failed": "failed or was unsupported"}


class StoppedError(NetlatheError):
    """Another device's failure or an interrupt ended this one's campaign; what it measured is kept."""


def profile_space(
    job: Job,
    devices: Sequence[str],
    options: DeviceOptions,
    *,
    dry_run: bool,
    table: Path | None,
    terminal: Terminal,
) -> bool:
    """Everything that `netlathe profile` does. False when a graph has neither a record nor a reason for having none."""
    from netlathe.profiler.devices import open_device

    _check(job, devices, dry_run=dry_run, table=table)
    with ExitStack() as stack:
        opened: dict[str, Device] = {}
        for name in devices:
            stack.enter_context(results_first(name, terminal))
            with terminal.working(f"opening {name}"):
                opened[name] = stack.enter_context(open_device(name, options, report=terminal.say))
        choices = {name: _choice(job, device) for name, device in opened.items()}
        if dry_run:
            answers = [
                forecast(choices[name], job.output, device.setup, _plan(job, device), job.again, terminal)
                for name, device in opened.items()
            ]
            terminal.result({"dry_run": True, **(answers[0] if len(answers) == 1 else {"devices": answers})})
            return True
        if job.op_profile:
            _check_op_profile(opened)
        for name, device in opened.items():
            terminal.step(f"Profiling {_subject(job)} on {device.setup}")
            print_steps(name, device, terminal)
            print_choice(choices[name], terminal)
            remember(choices[name], job.output, device.setup)
        campaigns = {name: (device, choices[name].items) for name, device in opened.items()}
        summaries = _measure_all(job, campaigns, terminal)
    return _report(job, summaries, choices, table, terminal)


def _check(job: Job, devices: Sequence[str], *, dry_run: bool, table: Path | None) -> None:
    """What cannot be named or written is noticed before a phone is touched."""
    if len(set(devices)) < len(devices):
        raise NetlatheError(f"--device: {', '.join(devices)} names a device twice")
    if table:
        check_table_path(table)
    if job.again or not dry_run:
        ProfileFile(job.output, create=not job.again).close()


def _subject(job: Job) -> str:
    return f"again what {AGAIN_WORDS[job.again]} in {job.output}" if job.again else f"space {job.space.name}"


def _measure_all(
    job: Job, campaigns: Mapping[str, tuple[Device, list[WorkItem]]], terminal: Terminal
) -> dict[str, CampaignSummary]:
    """Each device's campaign, in a thread of its own where there are several. Raises the first device's error once all
    have ended."""
    with terminal.watching(list(campaigns)) as watches:
        if len(campaigns) == 1:
            return {
                name: _measure(job, *campaign, watches[0], _logged(name, terminal))
                for name, campaign in campaigns.items()
            }
        stop = threading.Event()
        with ThreadPoolExecutor(len(campaigns)) as pool:
            futures = {
                name: pool.submit(_measure, job, *campaign, _stoppable(watch, stop), _logged(name, terminal))
                for (name, campaign), watch in zip(campaigns.items(), watches, strict=True)
            }
            try:
                return _results(futures)
            except BaseException:
                stop.set()
                raise


def _results(futures: Mapping[str, Future[CampaignSummary]]) -> dict[str, CampaignSummary]:
    """One device's failure lets the others finish."""
    errors = {name: error for name, future in futures.items() if (error := future.exception())}
    for name, error in errors.items():
        if len(errors) < len(futures) and isinstance(error, NetlatheError):
            others = ", ".join(other for other in futures if other not in errors)
            raise NetlatheError(f"{name}: {error} (finished and kept: {others})") from error
        raise error
    return {name: future.result() for name, future in futures.items()}


def _stoppable(watch: Watch, stop: threading.Event) -> Watch:
    """Ends the campaign that tells `watch` of its progress once `stop` is set."""

    def watch_or_stop(share: float, left_s: float | None, note: str) -> None:
        if stop.is_set():
            raise StoppedError("interrupted; what was measured is kept")
        watch(share, left_s, note)

    return watch_or_stop


def _logged(name: str, terminal: Terminal) -> Report:
    return lambda words: terminal.log(f"  {name}: {words}")


def _measure(job: Job, device: Device, items: Sequence[WorkItem], watch: Watch, on_wait: Report) -> CampaignSummary:
    summary = measure(
        device, items, job.output, _plan(job, device), again=job.again, seed=job.seed, watch=watch, on_wait=on_wait
    )
    if job.op_profile:
        _profile_ops(job, device, summary)
    return summary


def _choice(job: Job, device: Device) -> Choice:
    if job.again:
        return Choice(recorded_items(job.output, device.setup))
    items = work_items(job.space, networks=job.networks, batch=device.setup.batch, seed=job.seed)
    if job.blocks is None:
        return Choice(items)
    return choose_items(items, job.blocks, job.output, device.setup, job.seed)


def _plan(job: Job, device: Device) -> Plan:
    from netlathe.profiler.devices import default_plan

    plan = dataclasses.replace(default_plan(device), budget_s=job.budget_s)
    if job.max_rounds is None:
        return plan
    return dataclasses.replace(plan, max_rounds=job.max_rounds, min_rounds=min(plan.min_rounds, job.max_rounds))


def _profile_ops(job: Job, device: Device, summary: CampaignSummary) -> None:
    """Stores kernel times of the graphs that have none yet, or were measured again."""
    from netlathe.profiler.devices.adb import PhoneDevice

    assert isinstance(device, PhoneDevice)
    with ProfileFile(job.output) as file:
        known = {row["graph"] for row in file.op_times(device.setup)}
        missing = {
            record.graph.key: record
            for record in summary.records
            if record.graph.key not in known or record.name in summary.again
        }
        for key, record in missing.items():
            device.load(key, record.graph)
        for key, result in device.profile_ops(list(missing)):
            file.set_op_times(device.setup, key, [dataclasses.asdict(op) for op in result.op_times])
            if result.peak_memory_mb is not None:
                details = {**dict(missing[key].details), "peak_memory_mb": result.peak_memory_mb}
                file.set_outcome(device.setup, key, Status.OK, details=details)
            del missing[key]
    if missing:
        names = ", ".join(record.name for record in missing.values())
        device.report(f"  {len(missing)} graphs have no kernel times, as their profiling runs failed: {names}")


def _check_op_profile(devices: Mapping[str, Device]) -> None:
    from netlathe.profiler.devices.adb import PhoneDevice

    for name, device in devices.items():
        if not isinstance(device, PhoneDevice):
            raise NetlatheError(
                f"--op-profile: {name} does not tell the time of single kernels, only a phone does; leave it out"
            )


def _report(
    job: Job,
    summaries: Mapping[str, CampaignSummary],
    choices: Mapping[str, Choice],
    table: Path | None,
    terminal: Terminal,
) -> bool:
    for name, summary in summaries.items():
        if len(summaries) > 1:
            terminal.step(name)
        print_summary(summary, terminal)
        if job.op_profile:
            print_op_times(job.output, summary, terminal)
    records = [record for summary in summaries.values() for record in summary.records]
    if job.again and not any(summary.again or summary.unfinished for summary in summaries.values()):
        terminal.say(f"  Nothing {AGAIN_WORDS[job.again]} in {job.output}")
    if table:
        write_table(records, table)
    terminal.say(f"  Wrote {job.output}" + (f" and {table}" if table else ""))
    answers = [
        {"device": name, **choices[name].to_json(), **summary_json(summary)} for name, summary in summaries.items()
    ]
    whole = answers[0] if len(answers) == 1 else {**_added(answers), "devices": answers}
    terminal.result({"output": str(job.output), "space": None if job.again else job.space.name, **whole})
    complete = not any(summary.unfinished for summary in summaries.values())
    if complete:
        for name, summary in summaries.items():
            forget(choices[name], job.output, summary.setup, job.again)
    return complete


def _added(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts and times over all devices; the wall time is the longest one's."""
    counts = (
        "records", "blocks", "networks", "failed", "unsupported", "unfinished", "again", "reused", "rounds", "redone",
    )  # fmt: skip
    return {
        **{name: sum(answer[name] for answer in answers) for name in counts},
        "inference_s": round(sum(answer["inference_s"] for answer in answers), 2),
        "wall_s": max(answer["wall_s"] for answer in answers),
        "setup": [answer["setup"] for answer in answers],
    }


def print_steps(name: str, device: Device, terminal: Terminal) -> None:
    """What keeps a phone steady, and what it lacks; what it refused, the device itself has reported."""
    steps = getattr(device, "steps", ())
    held = ", ".join(step.step.replace("_", " ") for step in steps if step.state == "held")
    if held:
        terminal.say(f"  {name} held steady: {held}", style="dim")
    terminal.warn(step.report for step in steps if step.state == "unavailable")


def print_summary(summary: CampaignSummary, terminal: Terminal) -> None:
    """The table at a campaign's end, then its warnings."""
    rows = []
    for kind in ("block", "network"):
        records = [r for r in summary.records if r.kind == kind]
        if records:
            latencies = sorted(r.latency_ms for r in records)
            stable = sum(bool(r.measurement and r.measurement.is_stable) for r in records)
            span = f"{milliseconds(latencies[0])} to {milliseconds(latencies[-1])}"
            rows.append((f"{kind}s", len(records), f"{stable} of {len(records)}", span))
    terminal.table(("measured", "n", "stable", "ms"), rows)
    terminal.say("  " + ", ".join(_facts(summary)) + ".", style="dim")
    terminal.warn(summary.warnings)


def _facts(summary: CampaignSummary) -> Iterator[str]:
    from netlathe.profiler.again import is_wanted

    yield f"{summary.rounds} rounds in {summary.wall_s:.0f} s ({summary.inference_s:.1f} s of it timed inference)"
    if summary.redone:
        yield f"{summary.redone} of them measured again"
    yield f"noise floor {percent(summary.noise_floor)}"
    if summary.anchor_noise is not None:
        yield f"of the anchors {percent(summary.anchor_noise)}"
    if summary.drift_range is not None:
        yield "drift {:.2f} to {:.2f}".format(*summary.drift_range)
    if summary.again:
        still = {record.name for record in summary.records if is_wanted(record, "unstable")}
        yield f"{len(summary.again)} graphs measured again, {len(still & set(summary.again))} of them still unstable"
    if summary.reused:
        yield f"{summary.reused} from an earlier run"


def print_op_times(path: Path, summary: CampaignSummary, terminal: Terminal) -> None:
    """Which kinds of kernels the time of all profiled graphs goes to."""
    with ProfileFile(path) as file:
        rows = file.op_times(summary.setup)
    totals: dict[str, list[float]] = {}
    for row in rows:
        kind = row["node_type"].rstrip("0123456789 :")  # some delegates number their kernels
        totals.setdefault(kind, []).append(row["mean_ms"] * row["times_called"])
    whole_ms = sum(map(sum, totals.values()))
    ranked = sorted(totals.items(), key=lambda item: -sum(item[1]))
    cells = [(kind, len(ms), milliseconds(sum(ms)), percent(sum(ms) / whole_ms)) for kind, ms in ranked[:10]]
    terminal.table(("kernel", "n", "ms", "share"), cells)


def summary_json(summary: CampaignSummary) -> dict[str, Any]:
    """The same for machines."""
    return {
        "records": len(summary.records),
        "blocks": sum(r.kind == "block" for r in summary.records),
        "networks": sum(r.kind == "network" for r in summary.records),
        "failed": len(summary.failed),
        "unsupported": len(summary.unsupported),
        "unfinished": len(summary.unfinished),
        "again": len(summary.again),
        "reused": summary.reused,
        "rounds": summary.rounds,
        "redone": summary.redone,
        "wall_s": round(summary.wall_s, 2),
        "inference_s": round(summary.inference_s, 2),
        "noise_floor": summary.noise_floor,
        "anchor_noise": summary.anchor_noise,
        "drift_range": summary.drift_range,
        "warnings": list(summary.warnings),
        "setup": summary.setup.to_json(),
        "setup_key": summary.setup.key,
    }
