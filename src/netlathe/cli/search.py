"""`netlathe search`: its options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from netlathe.cli.compare import show_points, show_prices
from netlathe.cli.console import Terminal
from netlathe.cli.options import AssumeUnknown, Data, Json, LimitImages, Resolution, Seed, Space, Width
from netlathe.runs.report import CurveReport, RunReport
from netlathe.words import millions, milliseconds, percent

if TYPE_CHECKING:
    from netlathe.targets import Target

ACCURACIES = {"torch": "accuracy", "tflite": "of .tflite", "int8": "of int8 .tflite", "onnx": "of .onnx"}
"""Columns for the same network in its forms."""
MEET, SEARCH, TRAIN, COMPUTE = "What to meet", "The search", "The training", "Computing"


def search(
    data: Data,
    output: Annotated[Path, typer.Option(help="Folder of the run; the same command continues what is there.")],
    space: Space = "tiny",
    predictor: Annotated[
        str | None,
        typer.Option(help="Predictor file, or a name from `netlathe predictors`.", rich_help_panel=MEET),
    ] = None,
    target_ms: Annotated[
        float | None, typer.Option(help="Latency on the predictor's device.", rich_help_panel=MEET)
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(help="Several, as 20,30,40: one network each, from one warm-up.", rich_help_panel=MEET),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="PREDICTOR=MS, once per device that is to be met at the same time.", rich_help_panel=MEET),
    ] = None,
    assume_unknown: AssumeUnknown = False,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="macs=300e6, parameters=4e6, memory-kb=512 (KiB of activations alive at once), or "
            "FILE.csv:COLUMN=VALUE, a cost per block.",
            rich_help_panel=MEET,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="The main target's device, as `profile` takes it: the judge.", rich_help_panel=MEET),
    ] = None,
    profile_file: Annotated[
        Path | None,
        typer.Option("--profile", help="Profile whose anchors tell how fast it is now.", rich_help_panel=MEET),
    ] = None,
    benchmark_binary: Annotated[
        Path | None, typer.Option(help="benchmark_model for a phone.", rich_help_panel=MEET)
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=1, help="Epochs in which the architecture moves.", rich_help_panel=SEARCH)
    ] = 20,
    warmup_epochs: Annotated[
        int, typer.Option(min=0, help="Epochs of weights on random paths before that.", rich_help_panel=SEARCH)
    ] = 6,
    start_epochs: Annotated[
        int, typer.Option(min=1, help="Epochs of the widest network alone, before all.", rich_help_panel=SEARCH)
    ] = 4,
    batch_size: Annotated[int, typer.Option(min=2, help="Images per step.", rich_help_panel=SEARCH)] = 32,
    learning_rate: Annotated[float, typer.Option(min=1e-9, help="Of the weights.", rich_help_panel=SEARCH)] = 0.05,
    update: Annotated[
        Literal["gradient", "reinforce"],
        typer.Option(help="How the architecture learns from the images.", rich_help_panel=SEARCH),
    ] = "gradient",
    prune_below: Annotated[
        float,
        typer.Option(min=0, max=0.5, help="Drop candidates less probable than this.", rich_help_panel=SEARCH),
    ] = 0.0,
    finalists: Annotated[
        int,
        typer.Option(min=0, help="Networks compared at the end for the last choice.", rich_help_panel=SEARCH),
    ] = 128,
    train_epochs: Annotated[int, typer.Option(min=1, help="Epochs of the found network.", rich_help_panel=TRAIN)] = 30,
    train_from: Annotated[
        Literal["scratch", "supernet"],
        typer.Option(help="Weights that its training starts from.", rich_help_panel=TRAIN),
    ] = "scratch",
    train_batch_size: Annotated[int, typer.Option(min=2, help="Images per step.", rich_help_panel=TRAIN)] = 64,
    train_learning_rate: Annotated[float, typer.Option(min=1e-9, help="The highest.", rich_help_panel=TRAIN)] = 0.1,
    train_warmup_epochs: Annotated[
        float, typer.Option(min=0, help="Epochs in which it grows to that.", rich_help_panel=TRAIN)
    ] = 0.0,
    ema_decay: Annotated[
        float, typer.Option(min=0, max=0.99999, help="Average the weights, as 0.999.", rich_help_panel=TRAIN)
    ] = 0.0,
    label_smoothing: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of each label that goes to all.", rich_help_panel=TRAIN)
    ] = 0.1,
    compute_device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...", rich_help_panel=COMPUTE)] = "auto",
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"], typer.Option(help="Of the weights' steps.", rich_help_panel=COMPUTE)
    ] = "auto",
    compile_: Annotated[
        bool, typer.Option("--compile", help="torch.compile each candidate.", rich_help_panel=COMPUTE)
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that decode and augment images.", rich_help_panel=COMPUTE)
    ] = 0,
    accumulate: Annotated[
        int, typer.Option(min=1, help="Parts that a batch is computed in, for less memory.", rich_help_panel=COMPUTE)
    ] = 1,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write events for TensorBoard.", rich_help_panel=COMPUTE)
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew, whatever checkpoint the folder holds.")
    ] = False,
    restart_training: Annotated[
        bool, typer.Option("--restart-training", help="Train the found network anew; the search is kept.")
    ] = False,
    limit_images: LimitImages = None,
    resolution: Resolution = None,
    width: Width = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Search the network that classifies best within a latency target, or several; train it, export it, report.
    Exit code 1 also where a network was measured above its target at the end."""
    from netlathe.cli.phones import choose_phone
    from netlathe.runs.logs import check_tensorboard
    from netlathe.runs.pipeline import SearchOptions
    from netlathe.runs.pipeline import search as search_network
    from netlathe.search import SearchConfig
    from netlathe.targets import check_names, parse_limits, parse_milliseconds, parse_targets
    from netlathe.training import Compute, TrainConfig

    terminal = Terminal(as_json=as_json)
    check_names(predictor, target_ms, targets, target or ())
    if tensorboard:
        check_tensorboard()
    several = parse_milliseconds(targets) if targets else None
    wanted = parse_targets(predictor, several[-1] if several else target_ms, target or ())
    options = SearchOptions(
        limits=parse_limits(limit or ()), profile=profile_file, benchmark_binary=benchmark_binary,
        device=choose_phone(device, terminal) if device else None, update=update, train_from=train_from,
        config=SearchConfig(
            start_epochs=start_epochs, warmup_epochs=warmup_epochs, epochs=epochs, batch_size=batch_size,
            accumulate=accumulate, learning_rate=learning_rate, prune_below=prune_below, finalists=finalists, seed=seed,
        ),
        training=TrainConfig(
            epochs=train_epochs, batch_size=train_batch_size, learning_rate=train_learning_rate,
            warmup_epochs=train_warmup_epochs, ema_decay=ema_decay, label_smoothing=label_smoothing,
            accumulate=accumulate, seed=seed,
        ),
        compute=Compute(compute_device, precision, compile_, workers), resolution=resolution, width=width,
        limit_images=limit_images, assume_unknown=assume_unknown, tensorboard=tensorboard, restart=restart,
        restart_training=restart_training, seed=seed, progress=terminal,
    )  # fmt: skip
    report: RunReport | CurveReport
    if several:
        report = search_network(space, data, target=wanted, output=output, targets_ms=several, **options)
    else:
        report = search_network(space, data, target=wanted, output=output, **options)
    show_search(report, output, wanted, terminal, assume_unknown=assume_unknown)
    terminal.result(report.to_json())
    if report.is_missed or terminal.undone:
        raise typer.Exit(1)


def show_search(
    report: RunReport | CurveReport, folder: Path, targets: Sequence[Target], terminal: Terminal, *,
    assume_unknown: bool = False,
) -> None:  # fmt: skip
    """Shows targets, limits, accuracies, warnings; the curve of several targets; each network on each device."""
    from netlathe.hardware import compare

    runs = report.runs if isinstance(report, CurveReport) else (report,)
    if isinstance(report, CurveReport):
        terminal.step("All targets")
    show_reports(runs, terminal)
    if isinstance(report, CurveReport):
        terminal.say("")
        show_points(report.curve, terminal)
    if len(targets) > 1:
        predictors = {told.device: one.predictor for told, one in zip(runs[0].targets, targets, strict=True)}
        terminal.say("")
        show_prices(compare([run.folder for run in runs], predictors, assume_unknown=assume_unknown), terminal)
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    terminal.say(f"  {folder} holds {', '.join(names)}")


def show_reports(reports: Sequence[RunReport], terminal: Terminal) -> None:
    """A line per network and device, a line per limit, then the accuracies, then the warnings."""
    columns = ("network", "on", "target ms", "expected ms", "predicted ms", "90 % interval", "measured ms")
    terminal.table(columns, [row for report in reports for row in _target_rows(report)], text=2)
    limits = [row for report in reports for row in _limit_rows(report)]
    if limits:
        terminal.say("")
        terminal.table(("network", "limited", "at most", "expected", "has"), limits, text=2)
    shown = [name for name in ACCURACIES if any(name in report.accuracy for report in reports)]
    terminal.say("")
    terminal.table(
        ("network", "MACs", "parameters", *(ACCURACIES[name] for name in shown)),
        [
            (
                report.name, millions(report.macs), millions(report.parameters),
                *(percent(report.accuracy.get(name)) for name in shown),
            )
            for report in reports
        ],
    )  # fmt: skip
    for report in reports:
        terminal.warn(report.warnings)


def _target_rows(report: RunReport) -> list[tuple[str, ...]]:
    return [
        (
            report.name if index == 0 else "",
            target.device,
            milliseconds(target.target_ms),
            milliseconds(target.expected_ms),
            milliseconds(target.predicted_ms),
            f"{milliseconds(target.low_ms)} to {milliseconds(target.high_ms)}",
            milliseconds(target.measured_ms),
        )
        for index, target in enumerate(report.targets)
    ]


def _limit_rows(report: RunReport) -> list[tuple[str, ...]]:
    rows = []
    for limit in report.limits:
        values = (limit.limit, limit.expected, limit.value)
        rows.append((report.name, limit.name, *(_number(value) for value in values)))
    return rows


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return millions(value) if value >= 1e5 else f"{value:.4g}"
