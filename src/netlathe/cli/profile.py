"""`netlathe profile`: its options, and its report as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from netlathe.archspace.errors import NetlatheError
from netlathe.cli.console import Terminal
from netlathe.cli.options import Classes, Device, Force, Json, NoPage, ProfiledSpace, Resolution, Seed, Width
from netlathe.words import millions, milliseconds, percent, read_duration_s

if TYPE_CHECKING:
    from netlathe.archspace.spaces import SearchSpace
    from netlathe.kernel_items import KernelSpace
    from netlathe.pooling import UnitReport
    from netlathe.profiler.campaign import CampaignSummary
    from netlathe.profiling import ForecastReport, ProfileReport

WOULD = {
    "new": "be new", "continued": "be continued", "again": "be measured again", "reused": "be reused",
    "unsupported": "be unsupported",
}  # fmt: skip
QUICK_BLOCKS, QUICK_NETWORKS = 10, 3
"""Enough to adapt to one device what is known of others."""

HOW, ON_PHONES, HOW_MUCH = "How it runs", "On phones", "How much is measured"


def profile(
    output: Annotated[Path, typer.Option(help="Profile file (SQLite); an existing one is continued.")],
    space: ProfiledSpace = "tiny",
    models: Annotated[
        list[str] | None,
        typer.Option(
            help="Network name, .tflite or .onnx file whose kernels are measured, in place of a space's blocks. "
            "Several times for several."
        ),
    ] = None,
    device: Device = ("local",),  # type: ignore[assignment]
    threads: Annotated[int, typer.Option(min=1, help="Threads of the runtime on a CPU.", rich_help_panel=HOW)] = 1,
    cores: Annotated[
        list[str] | None,
        typer.Option(
            help="CPU cores to run on: a hexadecimal mask such as f0; on a phone also big, mid, little or all. "
            "DEVICE=CORES for one of several devices.",
            show_default="the scheduler's choice",
            rich_help_panel=HOW,
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "int8", "int8-weights", "float16"] | None,
        typer.Option(
            help="Number type that networks compute in; int8-weights: float32 with weights of int8.",
            show_default="float32, on cuda float16",
            rich_help_panel=HOW,
        ),
    ] = None,
    delegate: Annotated[
        Literal["cpu", "gpu", "npu", "nnapi"],
        typer.Option(help="Processor that runs the blocks.", rich_help_panel=ON_PHONES),
    ] = "cpu",
    xnnpack: Annotated[
        bool, typer.Option(help="XNNPACK's kernels on the CPU, or TFLite's own.", rich_help_panel=ON_PHONES)
    ] = True,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images per inference.", show_default="1, on cuda 8", rich_help_panel=HOW)
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of new blocks, or kernels, to measure: those that teach a predictor most.",
            show_default="all, of the space kernels 300",
            rich_help_panel=HOW_MUCH,
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="A first look: --budget 10 --networks 3, unless these are given.", rich_help_panel=HOW_MUCH
        ),
    ] = False,
    networks: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Number of whole networks to time as well.",
            show_default="12, with --quick 3",
            rich_help_panel=HOW_MUCH,
        ),
    ] = None,
    again: Annotated[
        Literal["unstable", "failed"] | None,
        typer.Option(
            help="Measure again, in place, what the profile holds, instead of the space: records whose rounds disagree "
            "(unstable), or what failed or was unsupported (failed).",
            rich_help_panel=HOW_MUCH,
        ),
    ] = None,
    sustained: Annotated[
        str | None,
        typer.Option(
            help="Keep the device under load for so long first (15m), then measure it hot: a setup of its own.",
            show_default="measured cool",
            rich_help_panel=HOW_MUCH,
        ),
    ] = None,
    budget_s: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Seconds to measure for; the same command continues.",
            show_default="until all is measured",
            rich_help_panel=HOW_MUCH,
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=3,
            help="Most rounds in which a block or network is timed.",
            show_default="30, on phones 20",
            rich_help_panel=HOW_MUCH,
        ),
    ] = None,
    benchmark_binary: Annotated[
        Path | None,
        typer.Option(
            help="TFLite's timing tool benchmark_model, built for the phone.",
            show_default="the official build, downloaded once",
            rich_help_panel=ON_PHONES,
        ),
    ] = None,
    max_thermal_status: Annotated[
        int,
        typer.Option(
            min=0,
            help="Highest thermal status of Android at which a round on a phone counts: 0 (none) to 6.",
            rich_help_panel=HOW_MUCH,
        ),
    ] = 0,
    op_profile: Annotated[
        bool, typer.Option("--op-profile", help="Also time each kernel.", rich_help_panel=ON_PHONES)
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(help="Also write all records to this .csv or .parquet; an earlier such table is replaced."),
    ] = None,
    no_page: NoPage = False,
    force: Force = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be measured, and stop.", rich_help_panel=HOW_MUCH)
    ] = False,
    resolution: Resolution = None,
    width: Width = None,
    classes: Classes = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Time the blocks of a search space, and some whole networks, on one device or several.

    Exit code 0 once every block has a record; until then, the same command continues.
    """
    from netlathe.cli.phones import choose_phone
    from netlathe.profiler.devices import DeviceOptions
    from netlathe.profiling import NETWORKS, DeviceRequest, ProfileJob, ProfileSettings, check_files, run, run_forecast

    if again and (budget or quick):
        raise NetlatheError(f"--again {again} measures no new blocks; leave out {'--budget' if budget else '--quick'}")
    default_blocks, default_networks = (QUICK_BLOCKS, QUICK_NETWORKS) if quick else (None, NETWORKS)
    options = DeviceOptions(
        threads=threads, batch=batch, dtype=dtype, delegate=delegate, xnnpack=xnnpack,
        benchmark_binary=benchmark_binary, max_thermal_status=max_thermal_status,
    )  # fmt: skip
    own_cores = cores_by_device(cores or [], device)
    settings = ProfileSettings(
        blocks=budget or default_blocks, networks=default_networks if networks is None else networks, rounds=rounds,
        budget_s=budget_s, again=again, sustained_s=read_duration_s(sustained) if sustained else None, seed=seed,
    )  # fmt: skip
    chosen = _space(space, models or [], batch or 1, resolution=resolution, width=width, classes=classes)
    requests = [DeviceRequest(one, replace(options, cores=own_cores[one])) for one in device]
    job = ProfileJob(output, chosen, tuple(requests), settings, op_profile=op_profile, export=export, page=not no_page)
    if not dry_run:
        check_files(job, space, models or [], force=force)
    terminal = Terminal(as_json=as_json)
    phones = [choose_phone(one, terminal) for one in device]
    job = replace(job, devices=tuple(replace(one, device=phone) for one, phone in zip(requests, phones, strict=True)))
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


def _space(
    space: str, models: Sequence[str], batch: int, *, resolution: int | None, width: float | None, classes: int | None
) -> SearchSpace | KernelSpace:
    """Raises NetlatheError for options that a space of kernels does not have."""
    from netlathe.archspace.kernel_space import KERNELS
    from netlathe.archspace.presets import load_space
    from netlathe.kernel_items import KernelSpace

    options = {"resolution": resolution, "width": width, "classes": classes}
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if not models and space != KERNELS:
        return load_space(space, resolution=resolution, width=width, classes=classes)
    if given:
        raise NetlatheError(f"{', '.join(given)}: kernels have no such option; leave it out")
    return KernelSpace.of_models(models, batch) if models else KernelSpace()


def cores_by_device(given: Sequence[str], devices: Sequence[str]) -> dict[str, str]:
    """Cores of each device, from words 'CORES', for all devices without their own, and 'DEVICE=CORES'; '' where none
    are given. Raises NetlatheError for a device that is not profiled, and for cores that are given twice."""
    found: dict[str, str] = {}
    for word in given:
        name, has_device, cores = word.rpartition("=")
        if has_device and name not in devices:
            raise NetlatheError(f"--cores {word}: {name} is none of the devices, which are {', '.join(devices)}")
        if name in found:
            whose = f"for {name}" if name else "for all devices"
            raise NetlatheError(
                f"--cores is given twice {whose}, {found[name]} and {cores}; for one of several devices, name it: "
                f"--cores {devices[0]}={cores}"
            )
        found[name] = cores
    return {name: found.get(name, found.get("", "")) for name in devices}


def show_forecast(report: ForecastReport, terminal: Terminal) -> None:
    """Shows what would be measured on each device, and how long it would take."""
    for one in report.devices:
        terminal.table(("would", "graphs"), [(WOULD[name], count) for name, count in one.counts.items()])
        if one.choice.chosen:
            rows = [(item.name, millions(item.graph.macs)) for item in one.choice.chosen]
            terminal.table(("chosen, the most instructive first", "MACs"), rows)
        terminal.say(f"  About {one.estimate_s:.0f} s on {one.setup}. Nothing was measured (--dry-run).")


def show_profile(report: ProfileReport, terminal: Terminal) -> None:
    """A table per device, and where the records are."""
    from netlathe.cli.sustained import show_sustained
    from netlathe.profiling import AGAIN_WORDS

    for one in report.devices:
        if len(report.devices) > 1:
            terminal.step(one.device)
        if one.sustained:
            show_sustained(one.sustained, terminal)
        show_summary(one.summary, terminal)
        if one.units:
            show_units(one.units, terminal)
        if one.op_profile:
            show_op_times(report.output, one.summary, terminal)
    if report.again and not any(one.summary.again or one.summary.unfinished for one in report.devices):
        terminal.say(f"  Nothing {AGAIN_WORDS[report.again]} in {report.output}")
    terminal.say(f"  Wrote {report.output}" + (f" and {report.table}" if report.table else ""))
    terminal.result(report.to_json())


def show_units(units: Sequence[UnitReport], terminal: Terminal) -> None:
    """The phones that shared the work: what each did, and how it differs from the others."""
    rows = [
        (
            one.device, one.state, one.graphs, f"{one.rounds} ({one.redone} redone)" if one.redone else one.rounds,
            "-" if one.level is None else f"{100 * (one.level - 1):+.1f} %",
            "-" if one.scatter is None else percent(one.scatter), "yes" if one.is_pooled else "no",
        )
        for one in units
    ]  # fmt: skip
    terminal.table(("phone", "state", "graphs", "rounds", "slower by", "scatter", "pooled"), rows, text=2)
    known = sorted(abs(one.level - 1) for one in units if one.is_pooled and one.level)
    if len(known) > 1:
        terminal.say(
            f"  Phones differ from the median one by {percent(known[0])} to {percent(known[-1])} (time, by what all "
            "measured), which is taken out of the records.",
            style="dim",
        )


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
    from netlathe.archspace.profile_file import ProfileFile

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
