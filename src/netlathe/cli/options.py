"""Command-line options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from netlathe.archspace.errors import FormatError

Json = Annotated[bool, typer.Option("--json", help="End standard output with one JSON object; words go to stderr.")]
SPEAKING = "What is said"
"""Help's panel of the options that every command has."""
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Say nothing but the result, warnings and errors.", rich_help_panel=SPEAKING),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v",
        help="Say more: versions and system, what else only a pipe is told, time and memory at the end.",
        rich_help_panel=SPEAKING,
    ),
]  # fmt: skip
LogFile = Annotated[
    Path | None,
    typer.Option(help="Text file to add everything to, each line with its time.", rich_help_panel=SPEAKING),
]
Space = Annotated[str, typer.Option(help="Search space: proxyless, nas-bench-macro, tiny, or a space's JSON file.")]
ProfiledSpace = Annotated[
    str,
    typer.Option(
        help="Search space whose blocks are measured: proxyless, nas-bench-macro, tiny, or a space's JSON file; or "
        "kernels: single ops over the ranges that real networks have."
    ),
]
Device = Annotated[
    list[str],
    typer.Option(
        help="Device to measure on: local (this CPU, LiteRT), onnxruntime, cuda, or a phone: usb, usb:SERIAL, "
        "tcp:HOST:PORT, server:SERIAL (adb's server), server@HOST:SERIAL (another computer's). Several times for "
        "several side by side. all, or a file of phones (.toml): they share the work. See `netlathe devices`."
    ),
]
Resolution = Annotated[
    int | None, typer.Option(help="Height and width of the input in pixels.", show_default="the preset's")
]
Width = Annotated[
    float | None, typer.Option(help="Multiplier of the preset's numbers of channels.", show_default="1.0")
]
Classes = Annotated[int | None, typer.Option(help="Number of classes.", show_default="the preset's")]
Predictor = Annotated[
    Path, typer.Option(help="Predictor file, as `netlathe fit` writes it, or a name from `netlathe predictors`.")
]
UnknownOps = Annotated[
    Literal["refuse", "price"],
    typer.Option(
        "--unknown",
        help="Ops that were never measured: refuse them by name, or price them by the bytes that they move, their MACs "
        "and a launch each, in wide intervals, and list them.",
    ),
]
Data = Annotated[
    str,
    typer.Option(
        help="Images: a folder of one folder per class, .tar or .parquet shards, an .npz, or 'digits' (built in)."
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Replace whatever file stands at an output's path, except inputs of the command."),
]
What = Annotated[
    str,
    typer.Argument(
        help="Name (also timm:..., torchvision:..., FILE.py:FUNCTION), architecture .json, run folder, "
        ".tflite or .onnx."
    ),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        help="Size of an input that a file leaves open: 1x3x224x224, or NAME=1x3x224x224 of one of several.",
        show_default="as in the file",
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of all random choices.")]
COMPUTE = "Computing"
"""Help's panel of where and how networks are trained."""
BatchNorm = Annotated[
    Literal["synchronised", "per-rank"],
    typer.Option(
        help="Where torchrun starts several processes: BatchNorm's statistics of the whole batch, or of each process's "
        "share, which is faster and noisier.",
        rich_help_panel=COMPUTE,
    ),
]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option(
        help="Number type of convolutions in training; auto: bfloat16 on GPUs that have it.", rich_help_panel=COMPUTE
    ),
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile what is trained with torch.compile.", rich_help_panel=COMPUTE)
]
Accumulate = Annotated[
    int,
    typer.Option(
        min=1, help="Parts that a batch is computed in, one after the other, for less memory.", rich_help_panel=COMPUTE
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Processes that decode and augment images; 0: this one.",
        show_default="one a core, for images that are too many for memory",
        rich_help_panel=COMPUTE,
    ),
]
Threads = Annotated[
    int,
    typer.Option(
        min=0,
        help="Threads that share a network's ops on the CPU; fewer where the machine is busy.",
        show_default="as many as torch takes",
        rich_help_panel=COMPUTE,
    ),
]
TRAIN = "The training"
"""Help's panel of how networks are trained."""
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="Published training recipe by name, as `netlathe recipes` lists them; options given here win.",
        show_default="none: short, with shifts and mirrors",
        rich_help_panel=TRAIN,
    ),
]
TrainBatchSize = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Images per step of the training.",
        show_default="64, or the recipe's",
        rich_help_panel=TRAIN,
    ),
]
ClassWeights = Annotated[
    Literal["none", "balanced"],
    typer.Option(
        help="Weights of images in losses: all alike, or balanced, all classes alike however many images they have.",
        rich_help_panel=TRAIN,
    ),
]
LimitImages = Annotated[int | None, typer.Option(min=1, help="Most images to use of each split.", show_default="all")]
SkipUnreadable = Annotated[
    int, typer.Option(min=0, help="Images that may be unreadable, and are left out; with more, all are named.")
]
BenchmarkBinary = Annotated[
    Path | None,
    typer.Option(
        help="TFLite's timing tool benchmark_model, built for the phone.",
        show_default="the official build, downloaded once",
    ),
]
NoPage = Annotated[bool, typer.Option("--no-page", help="Make no HTML page at the end.")]
Track = Annotated[
    str | None,
    typer.Option(
        help="Also keep settings, curves and the result with a tracking service: mlflow, or wandb.",
        show_default="none",
        rich_help_panel=COMPUTE,
    ),
]
MEET = "What to meet"
"""Help's panel of targets, limits and who judges them."""
JudgeDevice = Annotated[
    str | None,
    typer.Option(
        help="Device of the first target, as `netlathe profile --device` takes it: its measurements decide.",
        show_default="none: the predictor's interval decides",
        rich_help_panel=MEET,
    ),
]
JudgeProfile = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        help="Profile of --device: its anchor blocks are timed, too, to tell how much slower it is now.",
        rich_help_panel=MEET,
    ),
]
JudgeBinary = Annotated[
    Path | None,
    typer.Option(
        help="TFLite's timing tool benchmark_model, built for the phone.",
        show_default="the official build, downloaded once",
        rich_help_panel=MEET,
    ),
]


def parse_shapes(given: list[str] | None) -> dict[str, tuple[int, ...]]:
    """Shapes by the names of inputs, "" for that of a single one. Raises FormatError for what is none, and for two
    shapes of one input."""
    found: dict[str, tuple[int, ...]] = {}
    for text in given or ():
        name, _, sizes = text.rpartition("=")
        numbers = [word.strip() for word in sizes.lower().replace(",", "x").split("x")]
        if not all(one.isascii() and one.isdigit() and len(one) < 10 and int(one) > 0 for one in numbers):
            raise FormatError(f"--shape {text!r:.80}: expected sizes such as 1x3x224x224, or NAME=1x3x224x224")
        if name in found:
            reason = f"{name!r} has a shape already" if name else "name the input"
            raise FormatError(f"--shape {text!r:.80}: {reason}")
        found[name] = tuple(map(int, numbers))
    return found
