"""`netlathe profile`: its options, and its report as tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.profile_file import ProfileFile
from netlathe.cli.console import Terminal
from netlathe.cli.options import Classes, Device, Force, Json, Resolution, Seed, Space, Width
from netlathe.words import millions, milliseconds, percent

if TYPE_CHECKING:
    from netlathe.profiler.campaign import CampaignSummary
    from netlathe.profiling import ForecastReport, ProfileReport

WOULD = {
    "new": "be new", "continued": "be continued", "again": "be measured again", "reused": "be reused",
    "unsupported": "be unsupported",
}  # fmt: skip
QUICK_BLOCKS, QUICK_NETWORKS = 10, 3
"""Enough to adapt to one device what is known of others."""


def profile(
    output: Annotated[Path, typer.Option(help="Profile file (SQLite); an existing one is continued.")],
    space: Space = "tiny",
    device: Device = ("local",),  # type: ignore[assignment]
    benchmark_binary: Annotated[
        Path | None, typer.Option(help="benchmark_model for the phone, instead of the official one.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the runtime.")] = 1,
    cores: Annotated[str, typer.Option(help="Cores to run on: big, mid, little, all or a hexadecimal mask.")] = "",
    dtype: Annotated[
        Literal["float32", "int8", "float16"] | None, typer.Option(help="float32 by default, float16 on cuda.")
    ] = None,
    delegate: Annotated[
        Literal["cpu", "gpu", "npu", "nnapi"], typer.Option(help="What runs the blocks on a phone.")
    ] = "cpu",
    xnnpack: Annotated[bool, typer.Option(help="XNNPACK on a phone's CPU.")] = True,
    batch: Annotated[int | None, typer.Option(min=1, help="Images per inference; 1, on cuda 8.")] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Measure so many new blocks: those that teach a predictor most.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A first look: --budget 10 --networks 3, where they are not given.")
    ] = False,
    networks: Annotated[
        int | None, typer.Option(min=0, help="Whole networks to time as well.", show_default="12, with --quick 3")
    ] = None,
    again: Annotated[
        Literal["unstable", "failed"] | None,
        typer.Option(
            help="Measure again, instead of the space, what the profile holds: records whose rounds disagree, or what "
            "failed or was unsupported."
        ),
    ] = None,
    budget_s: Annotated[float | None, typer.Option(min=1, help="Stop after so many seconds.")] = None,
    rounds: Annotated[int | None, typer.Option(min=3, help="Rounds that a graph gets at most.")] = None,
    max_thermal_status: Annotated[
        int, typer.Option(min=0, help="Android's thermal status up to which a round on a phone counts.")
    ] = 0,
    op_profile: Annotated[bool, typer.Option("--op-profile", help="Also time each kernel (phones).")] = False,
    export: Annotated[
        Path | None,
        typer.Option(help="Also write the records as .csv or .parquet; an earlier table of records is replaced."),
    ] = None,
    force: Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be measured, and stop.")] = False,
    resolution: Resolution = None,
    width: Width = None,
    classes: Classes = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Time the blocks of a search space, all or those that teach most, and some whole networks, on a device or several
    side by side."""
    from netlathe.archspace.presets import load_space
    from netlathe.cli.phones import choose_phone
    from netlathe.profiler.devices import DeviceOptions
    from netlathe.profiling import NETWORKS, ProfileJob, check_files, run, run_forecast

    if again and (budget or quick):
        raise NetlatheError(f"--again {again} measures no new blocks; leave out {'--budget' if budget else '--quick'}")
    options = DeviceOptions(
        threads=threads, batch=batch, cores=cores, dtype=dtype, delegate=delegate, xnnpack=xnnpack,
        benchmark_binary=benchmark_binary, max_thermal_status=max_thermal_status,
    )  # fmt: skip
    default_blocks, default_networks = (QUICK_BLOCKS, QUICK_NETWORKS) if quick else (None, NETWORKS)
    chosen = load_space(space, resolution=resolution, width=width, classes=classes)
    job = ProfileJob(
        output, chosen, tuple(device), options, default_networks if networks is None else networks, seed,
        blocks=budget or default_blocks, budget_s=budget_s, max_rounds=rounds, op_profile=op_profile, again=again,
        export=export,
    )  # fmt: skip
    if not dry_run:
        check_files(job, space, force=force)
    terminal = Terminal(as_json=as_json)
    job = replace(job, devices=tuple(choose_phone(one, terminal) for one in device))
    if dry_run:
        forecast = run_forecast(job, terminal)
        show_forecast(forecast, terminal)
        terminal.result(forecast.to_json())
        if terminal.undone:
            raise typer.Exit(1)
        return
    terminal.on_report = lambda report: show_profile(report, terminal)
    report = run(job, terminal)
    if not report.is_complete or terminal.undone:
        raise typer.Exit(1)


def show_forecast(report: ForecastReport, terminal: Terminal) -> None:
    """What would be measured on each device, and how long it would take."""
    for one in report.devices:
        terminal.table(("would", "graphs"), [(WOULD[name], count) for name, count in one.counts.items()])
        if one.choice.chosen:
            rows = [(item.name, millions(item.graph.macs)) for item in one.choice.chosen]
            terminal.table(("chosen, the most instructive first", "MACs"), rows)
        terminal.say(f"  About {one.estimate_s:.0f} s on {one.setup}. Nothing was measured (--dry-run).")


def show_profile(report: ProfileReport, terminal: Terminal) -> None:
    """A table per device, and where the records are."""
    from netlathe.profiling import AGAIN_WORDS

    for one in report.devices:
        if len(report.devices) > 1:
            terminal.step(one.device)
        show_summary(one.summary, terminal)
        if one.op_profile:
            show_op_times(report.output, one.summary, terminal)
    if report.again and not any(one.summary.again or one.summary.unfinished for one in report.devices):
        terminal.say(f"  Nothing {AGAIN_WORDS[report.again]} in {report.output}")
    terminal.say(f"  Wrote {report.output}" + (f" and {report.table}" if report.table else ""))
    terminal.result(report.to_json())


def show_summary(summary: CampaignSummary, terminal: Terminal) -> None:
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


def show_op_times(path: Path, summary: CampaignSummary, terminal: Terminal) -> None:
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
