"""`netlathe predict`: its options, and its report as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netlathe.archspace.errors import FormatError
from netlathe.cli.console import Terminal
from netlathe.cli.options import Json, Predictor, Shapes, UnknownOps, parse_shapes
from netlathe.words import milliseconds

if TYPE_CHECKING:
    from netlathe.predicted import PredictReport, Refused


def predict(
    what: Annotated[
        list[str],
        typer.Argument(
            help="Names (also timm:..., torchvision:..., FILE.py:FUNCTION), architecture .json, run folders, "
            ".tflite or .onnx files; any "
            "other folder stands for the model files below it."
        ),
    ],
    predictor: Predictor,
    coverage: Annotated[float, typer.Option(help="Share of measurements that the interval is to hold, 0 to 1.")] = 0.9,
    unknown: UnknownOps = "refuse",
    shape: Shapes = None,
    csv: Annotated[
        str | None, typer.Option(help="Also write a .csv with a row for each; - writes it to standard output instead.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict the latency of networks or blocks in ms, with an interval.

    Of several, one that cannot be read or priced is a line of its own, and
    the exit code is 1.
    """
    from netlathe import pricing
    from netlathe.predicted import Refused, csv_text
    from netlathe.subjects import with_contents

    is_piped = csv == "-"
    if is_piped and as_json:
        raise FormatError("--csv - and --json both are for standard output; name a file for one of them")
    terminal = Terminal(as_json=as_json)
    settings: dict[str, Any] = {
        "coverage": coverage, "unknown": unknown, "shapes": parse_shapes(shape),
        "csv": None if is_piped else csv,
    }  # fmt: skip
    several = len(what) > 1 or with_contents(what) != what
    found = (
        pricing.predict(what, predictor, on_error="keep", **settings)
        if several
        else [pricing.predict(what[0], predictor, **settings)]
    )
    show_predicted(found, coverage, terminal, csv=csv_text(found) if is_piped else None)
    terminal.result({"predicted": [one.to_json() for one in found]} if several else found[0].to_json())
    if any(isinstance(one, Refused) for one in found):
        raise typer.Exit(1)


def show_predicted(
    found: Sequence[PredictReport | Refused], coverage: float, terminal: Terminal, csv: str | None = None
) -> None:
    """A line per network, and why some have no latency; with `csv`, that in place of the table."""
    from netlathe.predicted import PredictReport

    predicted = [one for one in found if isinstance(one, PredictReport)]
    refused = [one for one in found if not isinstance(one, PredictReport)]
    if csv is not None:
        print(csv, end="", flush=True)
    elif predicted:
        names = [one.name for one in predicted]
        rows = [
            (
                one.name if names.count(one.name) == 1 else one.source,
                milliseconds(one.latency_ms),
                f"{milliseconds(one.low_ms)} to {milliseconds(one.high_ms)}",
            )
            for one in predicted
        ]
        terminal.table(("what", "predicted ms", f"{100 * coverage:g} % interval"), rows)
    if predicted:
        terminal.say(f"  on {predicted[0].setup}", style="dim")
    for note in dict.fromkeys(note for one in predicted for note in one.notes):
        terminal.say(f"  Note: {note}", style="dim")
    terminal.warn(list(dict.fromkeys(warning for one in predicted for warning in one.warnings)))
    for one in refused:
        terminal.alarm(f"  {one.name}: {one.error.removeprefix(f'{one.name}: ')}", style="red")
    if refused:
        terminal.say(f"  {len(refused)} of {len(found)} have no latency")
