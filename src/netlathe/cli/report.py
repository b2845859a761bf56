"""`netlathe report`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netlathe.cli.console import Terminal
from netlathe.cli.options import Force, Json


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
            show_default="report.html in the folder, or FILE.html beside the file",
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write one HTML page of a run, a profile or a predictor, to look at, print or send.

    The page is one file: it loads nothing, runs no script, and follows the reader's light or dark setting. Searches,
    compressions, profiles and fits make it by themselves; NETLATHE_PAGES=0 in the environment switches that off.
    """
    from netlathe.report.writing import report as write_report

    terminal = Terminal(as_json=as_json)
    with terminal.working("drawing"):
        made = write_report(what, output, force=force)
    terminal.say(f"  {made.verdict}")
    terminal.say(f"  Wrote {made.output} ({made.bytes / 1e6:.2f} MB)")
    terminal.result(made.to_json())
