"""`netlathe time`: its options, and its report as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from netlathe.cli.console import Terminal
from netlathe.cli.options import AssumeUnknown, BenchmarkBinary, Json, Seed

if TYPE_CHECKING:
    from netlathe.timing import TimeReport


def time(
    what: Annotated[
        list[str],
        typer.Argument(help="Network or block names, architecture files, run folders, .tflite or .onnx files."),
    ],
    device: Annotated[str, typer.Option(help="Device to time on, as `netlathe profile --device` takes it.")] = "local",
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
            help="Number type that networks compute in.",
            show_default="that of the .tflite files, else the predictor's, else float32",
        ),
    ] = None,
    delegate: Annotated[
        Literal["cpu", "gpu", "nnapi"] | None,
        typer.Option(help="Processor that runs the networks on a phone.", show_default="the predictor's, else cpu"),
    ] = None,
    benchmark_binary: BenchmarkBinary = None,
    assume_unknown: AssumeUnknown = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Time networks on this CPU or another device: .tflite files as they are, others with random weights.

    A first estimate comes at once and gets better until rounds agree within 1 %. Not every device runs a .tflite as it
    is: onnxruntime and cuda do not.

    Ctrl-C ends it with the times so far: exit code 0 if they are stable (three rounds or more, standard error at most
    5 %), else 130.
    """
    from netlathe import timing
    from netlathe.cli.phones import choose_phone

    terminal = Terminal(as_json=as_json)
    terminal.on_report = lambda report: show_time(report, terminal)
    report = timing.time(
        what, device=choose_phone(device, terminal), predictor=predictor, profile=profile_file, budget_s=budget_s,
        threads=threads, cores=cores, dtype=dtype, delegate=delegate, benchmark_binary=benchmark_binary,
        assume_unknown=assume_unknown, seed=seed, progress=terminal,
    )  # fmt: skip
    if report.is_interrupted and not report.is_stable:
        raise typer.Exit(130)
    if terminal.undone:
        raise typer.Exit(1)


def show_time(report: TimeReport, terminal: Terminal) -> None:
    """The table, what it stands on, and warnings."""
    from netlathe.cli.estimates import explain_drift, show_measured

    if report.measured:
        show_measured(report, terminal)
        terminal.say(f"  on {report.setup}", style="dim")
    if report.measured and report.is_corrected:
        explain_drift(report.measured.values(), terminal)
    terminal.warn(report.warnings)
    if not report.failure:
        terminal.result(report.to_json())
