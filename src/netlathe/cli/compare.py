"""`netlathe compare` and `netlathe pareto`: their options, and their reports as tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netlathe.cli.console import Terminal
from netlathe.cli.options import Force, Json, UnknownOps
from netlathe.words import milliseconds, percent_within

if TYPE_CHECKING:
    from netlathe.hardware import CompareReport
    from netlathe.pareto_front import ParetoReport


def compare(
    networks: Annotated[
        list[str], typer.Argument(help="Network names, architecture files, run folders, .tflite or .onnx files.")
    ],
    predictor: Annotated[
        list[str], typer.Option(help="Predictor file, or a name from `netlathe predictors`; once per device.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="CSV to write the table to; an earlier one of this command is replaced.")
    ] = None,
    unknown: UnknownOps = "refuse",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Predict the latency of several networks on several devices, side by side, in ms."""
    from netlathe import hardware

    terminal = Terminal(as_json=as_json)
    report = hardware.compare(networks, predictor, output=output, unknown=unknown, force=force)
    show_prices(report, terminal)
    if output:
        terminal.say(f"  Wrote {output}")
    terminal.result(report.to_json())


def show_prices(report: CompareReport, terminal: Terminal) -> None:
    """A line per network, the best of each column with a star; then the warnings."""
    rows = [
        (name, *(milliseconds(p.latency_ms) + (" *" if p.is_best else "  ") for p in prices.values()))
        for name, prices in report.table.items()
    ]
    terminal.table(("network, predicted ms on", *(f"{device}  " for device in report.devices)), rows)
    notes = ["* the fastest there"] if len(rows) > 1 else []
    notes += [f"{device}: batch {setup.batch}" for device, setup in report.devices.items() if setup.batch != 1]
    if notes:
        terminal.say(f"  {'; '.join(notes)}.", style="dim")
    terminal.warn(report.warnings)


def pareto(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs, or folders that hold some.")],
    predictor: Annotated[
        str | None,
        typer.Option(
            help="Predictor of all networks' latencies: a file, or a shipped name.",
            show_default="latencies of the runs",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for pareto.png and pareto.json; earlier ones are replaced.")
    ] = None,
    unknown: UnknownOps = "refuse",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Compare finished runs by latency and accuracy, and tell those that no other beats in both."""
    from netlathe import pareto_front as curve

    terminal = Terminal(as_json=as_json)
    report = curve.pareto(runs, predictor, output=output, unknown=unknown, force=force)
    show_points(report, terminal)
    if output:
        terminal.say(f"  Wrote {curve.PICTURE}, {curve.CURVE} to {output}")
    terminal.result(report.to_json())


def show_points(report: ParetoReport, terminal: Terminal) -> None:
    """The table, fastest first."""
    names = [p.name for p in report.points]
    rows = [
        (
            p.name if names.count(p.name) == 1 else f"{p.name} ({p.folder})",
            milliseconds(p.predicted_ms),
            milliseconds(p.measured_ms),
            percent_within(p.accuracy, p.test_images),
            "on the front" if p.on_front else "dominated",
        )
        for p in report.points
    ]
    terminal.table(("network", "predicted ms", "measured ms", "accuracy", ""), rows)
    terminal.say(f"  On {report.setup}.", style="dim")
    terminal.warn(report.warnings)
