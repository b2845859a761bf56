"""`netlathe devices`, `netlathe device clean`, `netlathe export`, `netlathe demo`: their options."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from netlathe.archspace.errors import NetlatheError
from netlathe.cli.console import Terminal
from netlathe.cli.options import Data, Force, Json, LimitImages, NoPage, Seed


def devices(
    device: Annotated[
        list[str] | None,
        typer.Option(help="Phone in the network to look at, too, as tcp:HOST:PORT; several times for several."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Also open this computer's own devices, which takes some seconds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the devices that can be profiled from here, and what to do about those that cannot.

    With --json: "devices", phones first, and "steps" to get a phone where none was found.
    """
    from netlathe.cli.phones import show_devices
    from netlathe.profiler.devices import available_devices

    terminal = Terminal(as_json=as_json)
    with terminal.working("looking for phones and runtimes"):
        rows = available_devices(device or (), check=check)
    steps = show_devices(rows, terminal)
    terminal.result({"devices": [asdict(row) for row in rows], "steps": steps})


def clean(
    device: Annotated[
        list[str],
        typer.Option(
            help="Phone to clean: usb, usb:SERIAL, tcp:HOST:PORT or server:SERIAL; several times for several."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Restore a phone that an interrupted profile left changed, and remove all that netlathe put there."""
    from netlathe.cli.phones import choose_phone
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


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run, as `netlathe search --output` leaves it.")],
    output: Annotated[Path, typer.Option(help="File to write; an earlier model there is replaced.")],
    form: Annotated[
        Literal["tflite", "onnx"] | None,
        typer.Option("--format", help="File format.", show_default="by the file's ending"),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a run's trained network as .tflite or .onnx."""
    from netlathe import exporting

    terminal = Terminal(as_json=as_json)
    report = exporting.export(run, output, form=form, force=force)
    terminal.say(f"  Wrote {output} ({report.bytes / 1e6:.2f} MB), input float32 in -1..1")
    terminal.result(report.to_json())


def demo(
    output: Annotated[Path, typer.Option(help="Folder for all files of the demo.")] = Path("runs/demo"),
    data: Data = "digits",
    fraction: Annotated[
        float, typer.Option(min=0.05, max=1, help="Latency target, as a share of the baseline network's latency.")
    ] = 0.6,
    resolution: Annotated[int, typer.Option(min=8, max=64, help="Height and width of the images in pixels.")] = 16,
    limit_images: LimitImages = None,
    no_page: NoPage = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Go the whole path on this CPU in some minutes: profile, fit, search, train, export, time."""
    from netlathe.arguments import check_images
    from netlathe.outputs import Output, check_outputs

    check_images(data)
    check_outputs([Output("--output", output / "demo.json", "demo")], [data])  # before what takes seconds is imported
    from netlathe.cli.demo import Demo, run_demo

    run_demo(Demo(output, data, fraction, resolution, limit_images, seed, Terminal(as_json=as_json), not no_page))
