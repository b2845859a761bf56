"""`netlathe search`: its options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from netlathe.archspace.errors import NetlatheError
from netlathe.cli.compare import show_points, show_prices
from netlathe.cli.console import Terminal, show_classification
from netlathe.cli.options import (
    COMPUTE,
    MEET,
    TRAIN,
    Accumulate,
    BatchNorm,
    ClassWeights,
    Compile,
    Data,
    Json,
    JudgeBinary,
    JudgeDevice,
    JudgeProfile,
    LimitImages,
    NoPage,
    Precision,
    RecipeName,
    Resolution,
    Seed,
    SkipUnreadable,
    Space,
    Threads,
    Track,
    TrainBatchSize,
    UnknownOps,
    Width,
    Workers,
)
from netlathe.words import millions, milliseconds, percent_within

if TYPE_CHECKING:
    from netlathe.runs.report import CurveReport, RunReport
    from netlathe.targets import Target

ACCURACIES = {"torch": "accuracy", "tflite": "of .tflite", "int8": "of int8 .tflite", "onnx": "of .onnx"}
"""Columns for the same network in its forms."""
SEARCH = "The search"
LOOK = "Looking at whole networks"


def search(
    data: Data,
    output: Annotated[Path, typer.Option(help="Folder of the run; the same command continues what is there.")],
    space: Space = "tiny",
    predictor: Annotated[
        str | None,
        typer.Option(
            help="Predictor of --target-ms and --targets: a file, or a name from `netlathe predictors`.",
            rich_help_panel=MEET,
        ),
    ] = None,
    target_ms: Annotated[
        float | None, typer.Option(help="Latency to meet on the predictor's device, in ms.", rich_help_panel=MEET)
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            help="Several latencies in ms, such as 20,30,40: a network for each, from one warm-up.",
            rich_help_panel=MEET,
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Predictor and ms, as PREDICTOR=MS: once for each of several devices, which one network is to meet.",
            rich_help_panel=MEET,
        ),
    ] = None,
    unknown: UnknownOps = "refuse",
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="Further limit: macs=300e6, parameters=4e6, memory-kb=512 (KiB of activations alive at once), or "
            "FILE.csv:COLUMN=VALUE, a cost per block; several times for several.",
            rich_help_panel=MEET,
        ),
    ] = None,
    device: JudgeDevice = None,
    profile_file: JudgeProfile = None,
    benchmark_binary: JudgeBinary = None,
    epochs: Annotated[
        int,
        typer.Option(min=1, help="Third phase: epochs of weights and architecture in turn.", rich_help_panel=SEARCH),
    ] = 20,
    warmup_epochs: Annotated[
        int, typer.Option(min=0, help="Second phase: epochs of the weights on random paths.", rich_help_panel=SEARCH)
    ] = 6,
    start_epochs: Annotated[
        int, typer.Option(min=1, help="First phase: epochs of the widest network alone.", rich_help_panel=SEARCH)
    ] = 4,
    batch_size: Annotated[int, typer.Option(min=2, help="Images per step of the search.", rich_help_panel=SEARCH)] = 32,
    learning_rate: Annotated[
        float, typer.Option(min=1e-9, help="Learning rate of the supernet's weights.", rich_help_panel=SEARCH)
    ] = 0.05,
    update: Annotated[
        Literal["gradient", "reinforce"],
        typer.Option(
            help="How the architecture learns: gradients through binary gates, or REINFORCE.", rich_help_panel=SEARCH
        ),
    ] = "gradient",
    strategy: Annotated[
        str,
        typer.Option(
            help="Way to look: binarized (a supernet whose paths learn), or, at whole networks within the limits one "
            "by one: ego, uct, evolution, local, thompson, actor-critic, tpe, nsga2, random.",
            rich_help_panel=SEARCH,
        ),
    ] = "binarized",
    looks: Annotated[
        str,
        typer.Option(
            help="Networks that such a strategy looks at; several numbers, such as 200,40, for several budgets, the "
            "cheapest first.",
            rich_help_panel=LOOK,
        ),
    ] = "100",
    look_epochs: Annotated[
        str,
        typer.Option(
            help="Epochs that each is trained for, to be judged on validation images; several for several budgets.",
            rich_help_panel=LOOK,
        ),
    ] = "10",
    score: Annotated[
        str | None,
        typer.Option(
            help="Scores: train; inherit, the accuracy by the weights of a warm supernet; FILE.csv:COLUMN, a table "
            "with a column of networks' names; several, such as inherit,train, for several budgets.",
            show_default="train",
            rich_help_panel=LOOK,
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Storage of the look-ups that several machines share: URL of a database or gRPC proxy, as Optuna "
            "takes it, or a file.",
            show_default="a journal in --output",
            rich_help_panel=LOOK,
        ),
    ] = None,
    worker: Annotated[
        bool,
        typer.Option(
            "--worker",
            help="Only look at networks, beside others that do; one process without this option goes on to the end.",
            rich_help_panel=LOOK,
        ),
    ] = False,
    architecture_every: Annotated[
        int,
        typer.Option(
            min=1, help="Third phase: steps of the weights per step of the architecture.", rich_help_panel=SEARCH
        ),
    ] = 1,
    prune_below: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.5,
            help="Probability below which a candidate is dropped while searching.",
            rich_help_panel=SEARCH,
        ),
    ] = 0.0,
    finalists: Annotated[
        int,
        typer.Option(
            min=0,
            help="Networks compared on validation images at the end, for the final choice.",
            rich_help_panel=SEARCH,
        ),
    ] = 128,
    recipe: RecipeName = None,
    train_epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Epochs that the found network is trained for.",
            show_default="30, or the recipe's",
            rich_help_panel=TRAIN,
        ),
    ] = None,
    train_from: Annotated[
        Literal["scratch", "supernet"],
        typer.Option(
            help="Weights that the training starts from: random ones, or the supernet's.", rich_help_panel=TRAIN
        ),
    ] = "scratch",
    baselines: Annotated[
        str | None,
        typer.Option(
            help="Widths such as 0.5,0.75,1 at which the space's reference network is trained and timed, too, to "
            "compare with.",
            rich_help_panel=TRAIN,
        ),
    ] = None,
    train_batch_size: TrainBatchSize = None,
    train_learning_rate: Annotated[
        float | None,
        typer.Option(
            min=1e-9,
            help="Highest learning rate of the training.",
            show_default="0.1, or the recipe's",
            rich_help_panel=TRAIN,
        ),
    ] = None,
    train_warmup_epochs: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Epochs in which the learning rate grows to its highest.",
            show_default="0, or the recipe's",
            rich_help_panel=TRAIN,
        ),
    ] = None,
    ema_decay: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.99999,
            help="Decay per step of a moving average of the weights, such as 0.999; 0: no average.",
            show_default="0, or the recipe's",
            rich_help_panel=TRAIN,
        ),
    ] = None,
    label_smoothing: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.9,
            help="Share of each label that is spread over all classes.",
            show_default="0.1, or the recipe's",
            rich_help_panel=TRAIN,
        ),
    ] = None,
    class_weights: ClassWeights = "none",
    compute_device: Annotated[
        str, typer.Option(help="Where to train: cpu, cuda, cuda:1, ..., or auto.", rich_help_panel=COMPUTE)
    ] = "auto",
    precision: Precision = "auto",
    compile_: Compile = False,
    workers: Workers = None,
    threads: Threads = 0,
    accumulate: Accumulate = 1,
    batch_norm: BatchNorm = "synchronised",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write event files for TensorBoard.", rich_help_panel=COMPUTE)
    ] = False,
    track: Track = None,
    no_page: NoPage = False,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew, whatever run the folder holds.")] = False,
    restart_training: Annotated[
        bool, typer.Option("--restart-training", help="Train the found network anew; what the search found is kept.")
    ] = False,
    limit_images: LimitImages = None,
    skip_unreadable: SkipUnreadable = 0,
    resolution: Resolution = None,
    width: Width = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Search for the most accurate network that meets a latency target, train it, and export it.

    The same command continues an interrupted run. Several processes that torchrun starts share the work. Exit code 1
    also where a network was measured above its target at the end.
    """
    from netlathe.arguments import Common, search_goal
    from netlathe.runs.settings import parse_counts, parse_score_names, parse_widths
    from netlathe.targets import check_names, parse_limits, parse_milliseconds, parse_targets
    from netlathe.tracking import check_tracker, tracked
    from netlathe.training.launch import is_one_of_several

    def refuse() -> None:
        check_names(predictor, target_ms, targets, target or ())
        if worker and track:
            raise NetlatheError("--track: a worker tells nothing; give it to the command that is joined")
        if track:
            check_tracker(track)
        if baselines:
            parse_widths(baselines)
        if score:
            parse_score_names(score)
        several = parse_milliseconds(targets) if targets else None
        common = Common(
            target=parse_targets(predictor, several[-1] if several else target_ms, target or ()), output=output,
            data=data, limits=parse_limits(limit or ()), unknown=unknown, device=device, profile=profile_file,
            benchmark_binary=benchmark_binary, recipe=recipe,
        )  # fmt: skip
        search_goal(common, space, targets_ms=several, strategy=strategy, resolution=resolution, width=width)

    if not is_one_of_several():  # before what takes seconds is imported
        refuse()

    from netlathe.cli.phones import choose_phone
    from netlathe.runs.logs import check_tensorboard
    from netlathe.runs.pipeline import SearchOptions, join_search
    from netlathe.runs.pipeline import search as search_network
    from netlathe.runs.scores import parse_scores
    from netlathe.search import SearchConfig
    from netlathe.training import Compute
    from netlathe.training.ranks import joined
    from netlathe.training.recipes import make_training

    with joined() as ranks:
        terminal = Terminal(as_json=as_json, quiet=not ranks.leads)
        if ranks.count > 1:  # where one process tells it for all
            ranks.told(refuse)
        if tensorboard:
            check_tensorboard()
        several = parse_milliseconds(targets) if targets else None
        wanted = parse_targets(predictor, several[-1] if several else target_ms, target or ())
        options = SearchOptions(
            limits=parse_limits(limit or ()), profile=profile_file, benchmark_binary=benchmark_binary,
            device=ranks.told(lambda: choose_phone(device, terminal)) if device else None, update=update,
                train_from=train_from,
            baselines=parse_widths(baselines) if baselines else (),
            strategy=strategy, looks=parse_counts("--looks", looks),
            look_epochs=parse_counts("--look-epochs", look_epochs), storage=storage,
            score=parse_scores(score) if score else None,
            config=SearchConfig(
                start_epochs=start_epochs, warmup_epochs=warmup_epochs, epochs=epochs, batch_size=batch_size,
                accumulate=accumulate, batch_norm=batch_norm, learning_rate=learning_rate,
                    architecture_every=architecture_every,
                prune_below=prune_below, finalists=finalists, class_weights=class_weights, seed=seed,
            ),
            training=make_training(
                recipe, epochs=train_epochs, batch_size=train_batch_size, learning_rate=train_learning_rate,
                warmup_epochs=train_warmup_epochs, ema_decay=ema_decay, label_smoothing=label_smoothing,
                class_weights=class_weights, accumulate=accumulate, batch_norm=batch_norm, seed=seed,
            ),
            compute=Compute(compute_device, precision, compile_, workers, threads, ranks), resolution=resolution,
                width=width,
            limit_images=limit_images, skip_unreadable=skip_unreadable, unknown=unknown, tensorboard=tensorboard,
            page=not no_page, restart=restart, restart_training=restart_training, seed=seed, progress=terminal,
        )  # fmt: skip
        if worker:
            seen = join_search(space, data, target=wanted, output=output, targets_ms=several, **options)
            terminal.say(f"  Looked at {seen} networks; the search has all that it asked for")
            terminal.result({"looks": seen})
            return
        report: RunReport | CurveReport
        with tracked(track if ranks.leads else None, output, terminal) as listener:
            options["progress"] = listener
            if several:
                report = search_network(space, data, target=wanted, output=output, targets_ms=several, **options)
            else:
                report = search_network(space, data, target=wanted, output=output, **options)
        if ranks.leads:
            show_search(report, output, wanted, terminal, unknown=unknown)
        terminal.result(report.to_json())
    if report.is_missed or terminal.undone:
        raise typer.Exit(1)


def show_search(
    report: RunReport | CurveReport, folder: Path, targets: Sequence[Target], terminal: Terminal, *,
    unknown: Literal["refuse", "price"] = "refuse",
) -> None:  # fmt: skip
    """Shows targets, limits, accuracies, warnings; the curve of several targets; each network on each device."""
    from netlathe.hardware import compare
    from netlathe.runs.report import CurveReport

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
        show_prices(compare([run.folder for run in runs], predictors, unknown=unknown), terminal)
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
                *(percent_within(report.accuracy.get(name), report.test_images) for name in shown),
            )
            for report in reports
        ],
    )  # fmt: skip
    show_classification(reports, terminal)
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
