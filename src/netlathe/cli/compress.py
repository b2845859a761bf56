"""`netlathe compress`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netlathe.cli.console import Terminal, show_classification
from netlathe.cli.options import (
    COMPUTE,
    MEET,
    TRAIN,
    Accumulate,
    BatchNorm,
    ClassWeights,
    Compile,
    Json,
    JudgeBinary,
    JudgeDevice,
    JudgeProfile,
    LimitImages,
    NoPage,
    Precision,
    RecipeName,
    Seed,
    Shapes,
    SkipUnreadable,
    Threads,
    Track,
    TrainBatchSize,
    UnknownOps,
    Workers,
    parse_shapes,
)
from netlathe.words import milliseconds, percent_within

if TYPE_CHECKING:
    from netlathe.runs.compression.report import CompressReport

WIDTHS = "The widths"
ACCURACIES = {
    "torch": "accuracy", "tflite": "of .tflite", "int8": "of int8 .tflite", "mixed": "of mixed .tflite",
    "onnx": "of .onnx",
}  # fmt: skip


def compress(
    model: Annotated[
        str,
        typer.Argument(
            help="Model to compress: a .onnx or .tflite file with its weights; FILE.py:FUNCTION, which returns "
            "a torch module, (module, example inputs) or an exported program; or timm:..., torchvision:..."
        ),
    ],
    target: Annotated[
        list[str],
        typer.Option(
            help="Predictor and ms, as PREDICTOR=MS: once for each of several devices. A device's predictors of "
            "float32 and int8 go together, as PREDICTOR+PREDICTOR=MS.",
            rich_help_panel=MEET,
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder for all files; the same command continues what is there.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="Images of the model's task: a folder of one folder per class, an .npz, a .parquet, or 'digits'.",
            show_default="none: widths alone, and nothing is trained",
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="Further limit: macs=300e6, parameters=4e6, memory-kb=512 (KiB of activations alive at once), "
            "size-kb=800 (KiB of the .tflite file).",
            rich_help_panel=MEET,
        ),
    ] = None,
    costs: Annotated[
        Path | None,
        typer.Option(
            help="Table of layers' costs on other hardware (columns op, shape, bits, and ms or mJ); --limit mJ=3 then "
            "limits the sum of that column.",
            rich_help_panel=MEET,
        ),
    ] = None,
    unknown: UnknownOps = "refuse",
    device: JudgeDevice = None,
    profile_file: JudgeProfile = None,
    benchmark_binary: JudgeBinary = None,
    ignored: Annotated[
        list[str] | None,
        typer.Option(help="Layer that keeps its channels; several times for several.", rich_help_panel=WIDTHS),
    ] = None,
    step: Annotated[int, typer.Option(min=1, help="Channels from one width to the next.", rich_help_panel=WIDTHS)] = 8,
    least_share: Annotated[
        float,
        typer.Option(min=0.01, max=1, help="Least width of a layer, as a share of its own.", rich_help_panel=WIDTHS),
    ] = 0.25,
    strategy: Annotated[
        str,
        typer.Option(
            help="Way to choose: integer-program, by the importance of channels; uniform, all layers alike; netadapt, "
            "one layer's cut after the other; or, looking at whole networks within the limits one by one: ego, uct, "
            "evolution, local, thompson, actor-critic, tpe, nsga2, random.",
            rich_help_panel=WIDTHS,
        ),
    ] = "integer-program",
    looks: Annotated[
        int,
        typer.Option(min=1, help="Networks that netadapt and those after it look at.", rich_help_panel=WIDTHS),
    ] = 100,
    precisions: Annotated[
        str,
        typer.Option(
            help="Precisions that parts of the network may have, with commas between: float32, float16 (weights "
            "alone), int8, int8-weights. The mixed .tflite has what was chosen.",
            rich_help_panel=WIDTHS,
        ),
    ] = "float32",
    leave_out: Annotated[
        bool, typer.Option("--leave-out", help="Lets residual blocks go as a whole.", rich_help_panel=WIDTHS)
    ] = False,
    finalists: Annotated[
        int,
        typer.Option(min=1, help="Networks that integer-program compares on validation data.", rich_help_panel=WIDTHS),
    ] = 8,
    recipe: RecipeName = None,
    train_epochs: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Epochs that the narrower network is trained for.",
            show_default="10, or the recipe's",
            rich_help_panel=TRAIN,
        ),
    ] = None,
    train_batch_size: TrainBatchSize = None,
    train_learning_rate: Annotated[
        float | None,
        typer.Option(
            min=1e-9,
            help="Highest learning rate of the training.",
            show_default="0.02, or the recipe's",
            rich_help_panel=TRAIN,
        ),
    ] = None,
    class_weights: ClassWeights = "none",
    baselines: Annotated[
        str | None,
        typer.Option(
            help="Widths such as 0.35,0.5,1 at which MobileNetV2 is trained from scratch and timed, too, to compare "
            "with.",
            rich_help_panel=TRAIN,
        ),
    ] = None,
    distillation: Annotated[
        float,
        typer.Option(min=0, max=1, help="Part of the loss that is against the model's outputs.", rich_help_panel=TRAIN),
    ] = 0.5,
    temperature: Annotated[
        float, typer.Option(min=0.1, help="Temperature of these outputs.", rich_help_panel=TRAIN)
    ] = 4.0,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Points of accuracy, such as 0.5, that files in int8 may lose against float32 on validation images: "
            "what loses more is calibrated better, and trained with its rounding.",
            show_default="as many as they do",
            rich_help_panel=TRAIN,
        ),
    ] = None,
    normalization: Annotated[
        str | None,
        typer.Option(
            help="How the model takes images: imagenet, -1..1, 0..1, 0..255, or MEAN/STD of pixels from 0 to 1, each "
            "one number or three with commas.",
            show_default="what it clearly does best with, else -1..1",
        ),
    ] = None,
    shape: Shapes = None,
    compute_device: Annotated[
        str, typer.Option(help="Where to train: cpu, cuda, cuda:1, ..., or auto.", rich_help_panel=COMPUTE)
    ] = "auto",
    precision: Precision = "auto",
    compile_: Compile = False,
    workers: Workers = None,
    threads: Threads = 0,
    accumulate: Accumulate = 1,
    batch_norm: BatchNorm = "synchronised",
    limit_images: LimitImages = None,
    skip_unreadable: SkipUnreadable = 0,
    track: Track = None,
    no_page: NoPage = False,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew, whatever the folder holds.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Narrow a trained model until it meets a latency target, train it further, and export it.

    The same command continues an interrupted one. Several processes that torchrun starts share the training. A model
    that meets the target already is left alone. Exit code 1 also where the result was measured above its target at the
    end.
    """
    from netlathe.arguments import Common, compress_goal
    from netlathe.runs.settings import parse_widths
    from netlathe.targets import parse_limits, parse_targets
    from netlathe.tracking import check_tracker, tracked
    from netlathe.training.launch import is_one_of_several
    from netlathe.training.normalization import Normalization

    def refuse() -> None:
        parse_shapes(shape)
        if track:
            check_tracker(track)
        if baselines:
            parse_widths(baselines)
        if normalization is not None:
            Normalization.parse(normalization)
        common = Common(
            target=parse_targets(None, None, target), output=output, data=data,
            limits=parse_limits(limit or (), costs), unknown=unknown, device=device, profile=profile_file,
            benchmark_binary=benchmark_binary, recipe=recipe,
        )  # fmt: skip
        compress_goal(common, model, strategy=strategy, precisions=precisions.split(","))

    if not is_one_of_several():  # before what takes seconds is imported
        refuse()

    from netlathe.cli.phones import choose_phone
    from netlathe.runs.compression.pipeline import compress as compress_model
    from netlathe.runs.compression.pipeline import tuning
    from netlathe.training import Compute
    from netlathe.training.ranks import joined

    with joined() as ranks:
        terminal = Terminal(as_json=as_json, quiet=not ranks.leads)
        if ranks.count > 1:  # where one process tells it for all
            ranks.told(refuse)
        training = tuning(
            recipe, epochs=train_epochs, batch_size=train_batch_size, learning_rate=train_learning_rate,
            class_weights=class_weights, accumulate=accumulate, batch_norm=batch_norm, seed=seed,
        )  # fmt: skip
        with tracked(track if ranks.leads else None, output, terminal) as listener:
            report = compress_model(
                model,
                target=parse_targets(None, None, target),
                output=output,
                data=data,
                limits=parse_limits(limit or (), costs),
                ignored=ignored or (),
                precisions=precisions.split(","),
                leave_out=leave_out,
                step=step,
                least_share=least_share,
                strategy=strategy,
                looks=looks,
                finalists=finalists,
                training=training,
                baselines=parse_widths(baselines) if baselines else (),
                distillation=distillation,
                temperature=temperature,
                max_drop=max_drop,
                normalization=normalization,
                device=ranks.told(lambda: choose_phone(device, terminal)) if device else None,
                profile=profile_file,
                benchmark_binary=benchmark_binary,
                shapes=parse_shapes(shape),
                compute=Compute(compute_device, precision, compile_, workers, threads, ranks),
                limit_images=limit_images,
                skip_unreadable=skip_unreadable,
                unknown=unknown,
                page=not no_page,
                restart=restart,
                seed=seed,
                progress=listener,
            )
        show_compression(report, terminal)
        terminal.result(report.to_json())
    if report.is_missed or terminal.undone:
        raise typer.Exit(1)


def show_compression(report: CompressReport, terminal: Terminal) -> None:
    """Shows each layer before and after, targets, accuracies, warnings."""
    if report.is_changed:
        terminal.step(f"{report.name}: channels before and after, by {report.importance}")
        terminal.table(
            ("layer", "before", "after", "ms before", "ms after", *(("precision",) if report.precisions else ())),
            [
                (
                    one.name, one.before, one.after or "left out", milliseconds(one.before_ms),
                    milliseconds(one.after_ms), *((one.precision,) if report.precisions else ()),
                )
                for one in report.layers
            ],
        )  # fmt: skip
        terminal.say("")
    columns = ("on", "target ms", "predicted ms", "90 % interval", "measured ms")
    terminal.table(
        columns,
        [
            (
                one.device, milliseconds(one.target_ms), milliseconds(one.predicted_ms),
                f"{milliseconds(one.low_ms)} to {milliseconds(one.high_ms)}", milliseconds(one.measured_ms),
            )
            for one in report.targets
        ],
    )  # fmt: skip
    shown = [name for name in ACCURACIES if name in report.accuracy]
    if shown:
        terminal.say("")
        terminal.table(
            ("the model's accuracy", "narrower, untrained", *(ACCURACIES[name] for name in shown)),
            [
                (
                    *(
                        percent_within(share, report.test_images)
                        for share in (
                            report.original_accuracy, report.untrained_accuracy,
                            *(report.accuracy[name] for name in shown),
                        )
                    ),
                )
            ],
            text=0,
        )  # fmt: skip
        show_classification([report], terminal)
    for one in report.recoveries:
        terminal.say("")
        terminal.table(
            (f"{one.form} file, on {one.images:,} validation images", "accuracy", "points below float32"),
            one.rows(),
        )
    terminal.warn(report.warnings)
    for form, file in report.files.items():
        terminal.say(f"  {form}: {file}")
