"""`netlathe report`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netlathe.archspace.errors import NetlatheError
from netlathe.cli.console import Terminal
from netlathe.cli.options import Force, Json

WATCH = "Watching"
PORT = 8765
"""Port that a page is served at by default."""


def report(
    what: Annotated[
        list[str],
        typer.Argument(
            help="Folder of a finished run or of several, profile, predictor file, or name of a shipped predictor; "
            "several of a kind are compared."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="HTML file to write; an earlier page there is replaced.",
            show_default="report.html in the folder, or FILE.html beside the file; watch.html with --watch",
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Follow what goes on in a folder, or into a profile: write the page anew until nothing goes on.",
            rich_help_panel=WATCH,
        ),
    ] = False,
    every: Annotated[
        str | None,
        typer.Option(help="Time between two looks, as 10s or 1m.", show_default="10s", rich_help_panel=WATCH),
    ] = None,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Also serve the page to browsers on this machine.", rich_help_panel=WATCH),
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port of 127.0.0.1 to serve at; 0 is any free one.",
            show_default="8765",
            rich_help_panel=WATCH,
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write one HTML page of a run, a profile or a predictor, to look at, print or send.

    The page is one file: it loads nothing, runs no script, and follows the reader's light or dark setting. Searches,
    compressions, profiles and fits make it by themselves; --no-page, or NETLATHE_PAGES=0 in the environment, switches
    that off. With --watch, it is a page of its own of what goes on (watch.html); exit code 0 says that all is finished,
    1 that something was left unfinished.
    """
    from netlathe.report.writing import report as write_report

    if watch:
        _watch(what, output, every, PORT if serve and port is None else port, force=force, as_json=as_json)
        return
    unfit = {"--every": every, "--serve": serve or None, "--port": port}
    if given := [name for name, value in unfit.items() if value is not None]:
        raise NetlatheError(f"{', '.join(given)}: is for a page that is watched; add --watch")
    terminal = Terminal(as_json=as_json)
    with terminal.working("drawing"):
        made = write_report(what, output, force=force)
    terminal.say(f"  {made.verdict}")
    terminal.say(f"  Wrote {made.output} ({made.bytes / 1e6:.2f} MB)")
    terminal.result(made.to_json())


def _watch(
    what: list[str], output: Path | None, every: str | None, port: int | None, *, force: bool, as_json: bool
) -> None:
    """Watches until nothing goes on. The process steps back behind those that it watches."""
    import os

    from netlathe.report.watching import EVERY_S, watch
    from netlathe.words import read_duration_s

    if len(what) > 1:
        raise NetlatheError(f"--watch follows one folder or profile; {', '.join(what)} are {len(what)}")
    every_s = EVERY_S if every is None else read_duration_s(every)
    if hasattr(os, "setpriority"):  # what is timed or trained meanwhile goes first
        os.setpriority(os.PRIO_PROCESS, 0, max(10, os.getpriority(os.PRIO_PROCESS, 0)))
    terminal = Terminal(as_json=as_json)
    found = watch(what[0], output, every_s=every_s, port=port, force=force, progress=terminal)
    terminal.result(found.to_json())
    if not found.is_finished:
        raise typer.Exit(1)
