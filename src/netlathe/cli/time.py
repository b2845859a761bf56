"""`netlathe time`: its options, and its report as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from netlathe.cli.console import Terminal
from netlathe.cli.options import BenchmarkBinary, Json, Seed, Shapes, UnknownOps, parse_shapes
from netlathe.words import read_duration_s

if TYPE_CHECKING:
    from netlathe.timed import TimeReport


def time(
    what: Annotated[list[str], typer.Argument(help="Any .tflite or .onnx files, network or block names, run folders.")],
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="Device to time on: local (LiteRT), onnxruntime, cuda, or a phone: usb, tcp:HOST:PORT, server:SERIAL. "
            "Several times for several, one after another.",
            show_default="local",
        ),
    ] = None,
    shape: Shapes = None,
    op_profile: Annotated[
        bool, typer.Option("--op-profile", help="Also time each kernel, in runs of their own.")
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="Write the table to this .csv file, too.")] = None,
    page: Annotated[
        Path | None,
        typer.Option(help="Write this .html page of the latencies, too, and of the load of --sustained over time."),
    ] = None,
    predictor: Annotated[
        Path | None, typer.Option(help="Predictor to compare with: a file, or a shipped name.")
    ] = None,
    profile_file: Annotated[
        Path | None,
        typer.Option(
            "--profile",
            help="Profile of --device: its anchor blocks are timed, too, to tell how much slower it is now.",
        ),
    ] = None,
    budget_s: Annotated[
        float, typer.Option(min=1, help="Most seconds to measure for; three rounds are always made.")
    ] = 10.0,
    sustained: Annotated[
        str | None,
        typer.Option(
            help="Run them one after the other for so long (15m), and tell latency, heat, clocks and power over time; "
            "their times are those at the end.",
            show_default="a cool device's times",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the runtime on a CPU.", show_default="the predictor's, else 1")
    ] = None,
    cores: Annotated[
        str | None,
        typer.Option(
            help="CPU cores to run on, as `netlathe profile --cores` takes them.",
            show_default="the predictor's, else the scheduler's choice",
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "int8", "float16"] | None,
        typer.Option(
            help="Number type that networks which are no files compute in.",
            show_default="the predictor's, else float32",
        ),
    ] = None,
    delegate: Annotated[
        Literal["cpu", "gpu", "npu", "nnapi"] | None,
        typer.Option(
            help="Processor that runs the networks on a phone; npu with LiteRT's newer benchmark_model.",
            show_default="the predictor's, else cpu",
        ),
    ] = None,
    benchmark_binary: BenchmarkBinary = None,
    unknown: UnknownOps = "refuse",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Time model files and networks on this CPU or other devices.

    A .tflite runs as it is on local and phones, an .onnx on onnxruntime,
    also one that netlathe cannot read. Where the device takes the other
    format, and for names, netlathe writes the network with random weights.

    A first estimate comes at once and gets better until rounds agree within 1 %. Not every device runs a .tflite as it
    is: onnxruntime and cuda do not.

    Ctrl-C ends it with the times so far: exit code 0 if they are stable (three rounds or more, standard error at most
    5 %), else 130.
    """
    from netlathe import timing
    from netlathe.cli.phones import choose_phone

    terminal = Terminal(as_json=as_json)
    terminal.on_report = lambda report: show_time(report, terminal, op_profile=op_profile)
    report = timing.time(
        what, device=[choose_phone(one, terminal) for one in device or ["local"]], shapes=parse_shapes(shape),
        op_profile=op_profile, csv=csv, page=page, predictor=predictor, profile=profile_file, budget_s=budget_s,
        threads=threads, cores=cores, dtype=dtype, delegate=delegate, benchmark_binary=benchmark_binary,
        sustained_s=read_duration_s(sustained) if sustained else None, unknown=unknown,
        seed=seed, progress=terminal,
    )  # fmt: skip
    if report.is_interrupted and not report.is_stable:
        raise typer.Exit(130)
    if terminal.undone:
        raise typer.Exit(1)


def show_time(report: TimeReport, terminal: Terminal, *, op_profile: bool = False) -> None:
    """The tables, what they stand on, and warnings."""
    from netlathe.cli.estimates import explain_drift, show_kernels, show_measured
    from netlathe.cli.sustained import show_sustained

    measured = [one for one in report.timed if one.measurement]
    for load in report.sustained.values():
        show_sustained(load, terminal)
    if measured:
        show_measured(report, terminal)
        for setup in dict.fromkeys(str(one.setup) for one in measured):
            terminal.say(f"  on {setup}", style="dim")
    if measured and report.is_corrected:
        explain_drift([one.measurement for one in measured if one.measurement], terminal)
    for one in measured if op_profile else ():
        show_kernels(one, terminal)
    terminal.warn(report.warnings)
    if len(report.timed) > 1:
        for failed in report.timed:
            if failed.error:
                terminal.alarm(f"  {failed.name} on {failed.device}: {failed.error.splitlines()[0]}", style="red")
    terminal.result(report.to_json())
