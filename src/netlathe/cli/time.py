"""`netlathe time`: its options, and its report as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from netlathe.cli.console import Terminal
from netlathe.cli.options import AssumeUnknown, Json, Seed

if TYPE_CHECKING:
    from netlathe.timing import TimeReport


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
