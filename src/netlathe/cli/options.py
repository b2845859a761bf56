"""Command-line options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="End standard output with one JSON object; words go to stderr.")]
Space = Annotated[str, typer.Option(help="Search space: proxyless, nas-bench-macro, tiny, or a space's JSON file.")]
Device = Annotated[
    list[str],
    typer.Option(
        help="local (LiteRT), onnxruntime, cuda, or a phone: usb, usb:SERIAL, tcp:HOST:PORT, server:SERIAL (adb's "
        "server). Several times for several side by side. See `netlathe devices`."
    ),
]
Resolution = Annotated[int | None, typer.Option(help="Input height and width in pixels, instead of the preset's.")]
Width = Annotated[float | None, typer.Option(help="Channel multiplier of the preset.")]
Classes = Annotated[int | None, typer.Option(help="Number of classes, instead of the preset's.")]
Predictor = Annotated[
    Path, typer.Option(help="Predictor file, as `netlathe fit` writes it, or a name from `netlathe predictors`.")
]
AssumeUnknown = Annotated[
    bool,
    typer.Option(
        "--assume-unknown", help="Price ops that were never measured by what such work usually costs, with a warning."
    ),
]
Data = Annotated[str, typer.Option(help="A folder per class, an .npz, a .parquet of encoded images, or 'digits'.")]
Force = Annotated[bool, typer.Option("--force", help="Replace any file that is there, but for inputs.")]
What = Annotated[str, typer.Argument(help="Network or block name, architecture .json, run folder, .tflite or .onnx.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything random.")]
LimitImages = Annotated[int | None, typer.Option(min=1, help="Use at most so many images per split.")]
