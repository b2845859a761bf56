"""The commands: options in, stages called, tables and JSON out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from netlathe.archspace.errors import NetlatheError
from netlathe.console import Terminal, milliseconds
from netlathe.options import AssumeUnknown, Data, Device, Force, Json, LimitImages, Predictor, Seed, What

if TYPE_CHECKING:
    from netlathe.predictor import CrossValidation


def devices(
    device: Annotated[
        list[str] | None, typer.Option(help="A phone that cannot be found by looking around: tcp:HOST:PORT.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Also open this computer's own devices, which takes seconds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List what can be profiled from here, phones first, and what to do about what cannot.

    With --json: "devices", and "steps" to get a phone where none was found.
    """
    from netlathe.phones import show_devices
    from netlathe.profiler.devices import available_devices

    terminal = Terminal(as_json=as_json)
    with terminal.working("looking for phones and runtimes"):
        rows = available_devices(device or (), check=check)
    steps = show_devices(rows, terminal)
    terminal.result({"devices": [asdict(row) for row in rows], "steps": steps})


def clean(device: Device, as_json: Json = False) -> None:
    """Restore a phone that an interrupted profile left changed, and remove everything that netlathe put there."""
    from netlathe.phones import choose_phone
    from netlathe.profiler.phone.holding import clean_phone

    terminal = Terminal(as_json=as_json)
    outcomes = {}
    addresses = [choose_phone(one, terminal) for one in device]
    for address in addresses:
        try:
            steps = outcomes[address] = clean_phone(address, terminal.say)
        except NetlatheError as error:  # the others can be cleaned all the same
            if len(addresses) == 1:
                raise
            terminal.undone[address] = str(error)
            terminal.warn([str(error)])
            continue
        failed = [step.report for step in steps if step.state == "failed"]
        restored = ", ".join(step.step.replace("_", " ") for step in steps if step.state == "restored")
        terminal.say(
            f"  {address} is {'not ' if failed else ''}clean" + (f"; restored: {restored}" if restored else "")
        )
        terminal.warn(failed)
        if failed:
            terminal.undone[address] = "; ".join(failed)
    terminal.result({"devices": {address: [asdict(step) for step in steps] for address, steps in outcomes.items()}})
    if terminal.undone:
        raise typer.Exit(1)


def fit(
    profile_file: Annotated[
        Path, typer.Argument(help="Profile file, or a .csv or .parquet of records or of configurations and latencies.")
    ],
    output: Annotated[
        Path, typer.Option(help="Predictor file (JSON) to write; an earlier predictor there is replaced.")
    ],
    residual: Annotated[
        Literal["auto", "none", "gp", "xgboost", "forest"], typer.Option(help="Regressor on top of the physics.")
    ] = "auto",
    few_shot: Annotated[
        bool, typer.Option("--few-shot", help="Adapt what is known of other phones: for 3 to 50 measurements.")
    ] = False,
    like: Annotated[
        list[Path] | None, typer.Option(help="Profile of a similar device to adapt; several times for several.")
    ] = None,
    setup: Annotated[str, typer.Option(help="Key of the setup to fit, where the file holds several.")] = "",
    latency_column: Annotated[str, typer.Option(help="Column of milliseconds in a table.")] = "latency_ms",
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Fit on single kernels, from a profile made with --op-profile.")
    ] = False,
    splits: Annotated[
        Literal["all", "configuration"], typer.Option(help="What to hold out for the table of errors.")
    ] = "all",
    plot: Annotated[Path | None, typer.Option(help="Write a PNG: errors, residuals, coverage of intervals.")] = None,
    force: Force = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fit a latency predictor on a profile or table, and say how far it can be trusted."""
    from netlathe.fitting import fit as fit_and_check
    from netlathe.fitting import fit_json, known_devices, print_fit
    from netlathe.outputs import Output, check_outputs

    terminal = Terminal(as_json=as_json)
    pictures = [Output("--plot", plot, "picture")] if plot else []
    check_outputs([Output("--output", output, "predictor"), *pictures], [profile_file, *(like or ())], force=force)
    with terminal.working("fitting and cross-validating"):
        prior = known_devices(like, latency_column, few_shot=few_shot, fitted=(profile_file, setup))
        fitted = fit_and_check(
            profile_file, output, residual=residual, prior=prior, seed=seed, setup_key=setup, kernels=kernels,
            latency_column=latency_column, splits=() if splits == "all" else (splits, "network"),
        )  # fmt: skip
    print_fit(fitted, terminal)
    not_drawn = _draw(fitted.validation, plot) if plot else []
    terminal.warn(not_drawn)
    terminal.say(f"  Wrote {output}" + (f" and {plot}" if plot and not not_drawn else ""))
    found = fit_json(fitted)
    terminal.result({"output": str(output), **found, "warnings": [*found["warnings"], *not_drawn]})


def _draw(validation: CrossValidation, plot: Path) -> list[str]:
    """A warning where there is nothing to draw. The predictor is written by then, whatever comes of the picture."""
    from netlathe.archspace.files import writing
    from netlathe.predictor import TooFewRecordsError, plot_validation

    try:
        with writing(plot) as part:
            plot_validation(validation, part)
    except TooFewRecordsError as error:
        return [f"{plot} was not drawn: {error}"]
    return []


def predict(
    what: What,
    predictor: Predictor,
    coverage: Annotated[float, typer.Option(help="Share of measurements that the interval is to hold.")] = 0.9,
    assume_unknown: AssumeUnknown = False,
    as_json: Json = False,
) -> None:
    """Predict the latency of a network or block, with an interval."""
    from netlathe.pricing import doubts, load_predictor, naming_others
    from netlathe.subjects import find_subject

    terminal = Terminal(as_json=as_json)
    model = load_predictor(predictor, assume_unknown=assume_unknown)
    subject = find_subject(what, batch=model.setup_.batch)
    with naming_others(predictor, [subject.graph]):
        low, high = (float(bound[0]) for bound in model.predict_interval([subject.graph], coverage))
        latency_ms = float(model.predict([subject.graph])[0])
    interval = f"{milliseconds(low)} to {milliseconds(high)}"
    columns = ("what", "predicted ms", f"{100 * coverage:g} % interval")
    terminal.table(columns, [(subject.name, milliseconds(latency_ms), interval)])
    terminal.say(f"  on {model.setup_}", style="dim")
    warnings = doubts(model, subject.name, subject.graph, subject.dtype)
    terminal.warn(warnings)
    terminal.result(
        {
            "name": subject.name,
            "latency_ms": latency_ms,
            "low_ms": low,
            "high_ms": high,
            "coverage": coverage,
            "warnings": warnings,
            "setup": model.setup_.to_json(),
        }
    )


def show(
    what: What,
    predictor: Annotated[Path | None, typer.Option(help="Add predicted latencies from this predictor file.")] = None,
    assume_unknown: AssumeUnknown = False,
    as_json: Json = False,
) -> None:
    """Show a network layer by layer: shapes, MACs, parameters, and predicted latency."""
    from netlathe.pricing import load_predictor, naming_others
    from netlathe.showing import show_subject
    from netlathe.subjects import find_subject

    model = load_predictor(predictor, assume_unknown=assume_unknown) if predictor else None
    subject = find_subject(what, batch=model.setup_.batch if model else 1)
    with naming_others(predictor or "", [subject.graph]):
        show_subject(subject, model, Terminal(as_json=as_json))


def pareto(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs, or folders that hold some.")],
    predictor: Annotated[
        str | None, typer.Option(help="Price them anew with this predictor, a file or a shipped name.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for pareto.png and pareto.json; earlier ones are replaced.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Compare finished runs: latency against accuracy, and which no other beats."""
    from netlathe.outputs import Output, check_outputs
    from netlathe.pareto import CURVE, PICTURE, points_json, read_points, show_points, write_points
    from netlathe.pricing import load_predictor

    terminal = Terminal(as_json=as_json)
    if output:
        files = [Output("--output", output / PICTURE, "picture"), Output("--output", output / CURVE, "pareto")]
        check_outputs(files, [*runs, *([predictor] if predictor else ())], force=force)
    points, setup = read_points(runs, load_predictor(predictor) if predictor else None)
    show_points(points, setup, terminal)
    if output:
        write_points(points, setup, output)
        terminal.say(f"  Wrote {PICTURE}, {CURVE} to {output}")
    terminal.result(points_json(points, setup))


def compare(
    networks: Annotated[
        list[str], typer.Argument(help="Network names, architecture files, run folders, .tflite or .onnx files.")
    ],
    predictor: Annotated[
        list[str], typer.Option(help="A predictor file, or a name from `netlathe predictors`; once per device.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="CSV to write; an earlier one of this command is replaced.")
    ] = None,
    assume_unknown: AssumeUnknown = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Price each network on each device: which is made for which."""
    from netlathe.hardware import price_networks, show_table, table_json, write_table
    from netlathe.outputs import Output, check_outputs
    from netlathe.pricing import load_predictor

    terminal = Terminal(as_json=as_json)
    if output:
        check_outputs([Output("--output", output, "latencies")], [*networks, *predictor], force=force)
    names = [Path(one).stem if Path(one).is_file() else one for one in predictor]
    models = {
        name if names.count(name) == 1 else one: load_predictor(one, assume_unknown=assume_unknown)
        for name, one in zip(names, predictor, strict=True)
    }
    table = price_networks(networks, models)
    warnings = show_table(table, models, terminal)
    if output:
        write_table(table, output)
        terminal.say(f"  Wrote {output}")
    terminal.result({**table_json(table, models), "warnings": warnings})


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run, as `netlathe search --output` leaves it.")],
    output: Annotated[Path, typer.Option(help="File to write; an earlier model there is replaced.")],
    form: Annotated[
        Literal["tflite", "onnx"] | None, typer.Option("--format", help="File format; by default the file's ending.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a run's trained network as .tflite or .onnx."""
    from netlathe.exporting import export as write
    from netlathe.exporting import form_of
    from netlathe.outputs import RUN_FILES, Output, check_outputs
    from netlathe.run import NETWORK, NETWORK_ONNX, load_network

    terminal = Terminal(as_json=as_json)
    form = form_of(output, form)
    others = RUN_FILES.keys() - {NETWORK if form == "tflite" else NETWORK_ONNX}
    check_outputs([Output("--output", output, form)], [run / name for name in sorted(others)], force=force)
    architecture, network = load_network(run)
    write(network, output, form)
    terminal.say(f"  Wrote {output} ({output.stat().st_size / 1e6:.2f} MB), input float32 in -1..1")
    terminal.result({"output": str(output), "format": form, "name": architecture.name, "bytes": output.stat().st_size})


def demo(
    output: Annotated[Path, typer.Option(help="Folder for everything that the demo leaves.")] = Path("runs/demo"),
    data: Data = "digits",
    fraction: Annotated[
        float, typer.Option(min=0.05, max=1, help="Target, as a share of the baseline's latency.")
    ] = 0.6,
    resolution: Annotated[int, typer.Option(min=8, max=64, help="Images are resized to this height and width.")] = 16,
    limit_images: LimitImages = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """The whole path on this machine: profile, fit, search, train, export, time. Takes a few minutes."""
    from netlathe.demo import Demo, run_demo

    run_demo(Demo(output, data, fraction, resolution, limit_images, seed, Terminal(as_json=as_json)))
