"""`netlathe check`: its options, and its report as a table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from netlathe.archspace.errors import FormatError
from netlathe.cli.console import Terminal
from netlathe.cli.options import BenchmarkBinary, Seed, Shapes, UnknownOps, parse_shapes
from netlathe.words import milliseconds

if TYPE_CHECKING:
    from netlathe.checked import Checked, CheckReport

_STYLES = {"failed": "red", "error": "red", "warned": "yellow"}
_VERDICTS = {"passed": "passed", "warned": "in doubt", "failed": "FAILED", "error": "ERROR"}
_MOST_CHANGES = 5
"""Most changes of kernels that are shown of a network."""


def check(
    what: Annotated[
        list[str],
        typer.Argument(
            help="Any .tflite or .onnx files, names (also timm:..., torchvision:..., FILE.py:FUNCTION), "
            "architecture .json, run folders; "
            "any other folder stands for the model files below it."
        ),
    ],
    max_ms: Annotated[
        float | None, typer.Option(help="Latency limit of each network in ms.", show_default="no limit")
    ] = None,
    predictor: Annotated[
        Path | None, typer.Option(help="Predictor to check by: a file, or a name from `netlathe predictors`.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Device to time on in its place: local (LiteRT), onnxruntime, cuda, or a phone: usb, tcp:HOST:PORT, "
            "server:SERIAL.",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(help="JSON of an earlier check (--json) to compare with, by kernel where it has them."),
    ] = None,
    max_slower: Annotated[
        str | None,
        typer.Option(help="How much slower than in the baseline a network may be, such as 5%.", show_default="any"),
    ] = None,
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json", metavar="<path>", help="JSON file to write, a later check's baseline; - for standard output."
        ),
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="JUnit XML to write: a test case per network.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Markdown summary to write; appended where it is $GITHUB_STEP_SUMMARY.")
    ] = None,
    coverage: Annotated[
        float, typer.Option(help="Share of measurements that a predictor's interval is to hold, 0 to 1.")
    ] = 0.9,
    shape: Shapes = None,
    op_profile: Annotated[
        bool, typer.Option("--op-profile", help="With --device: also time each kernel, to be compared later.")
    ] = False,
    budget_s: Annotated[float, typer.Option(min=1, help="With --device: most seconds to measure for.")] = 10.0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="With --device: threads of the runtime on a CPU.", show_default="1")
    ] = None,
    cores: Annotated[
        str | None,
        typer.Option(
            help="With --device: CPU cores to run on, as `netlathe profile --cores` takes them.",
            show_default="the scheduler's choice",
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "int8", "float16"] | None,
        typer.Option(help="With --device: number type of networks that are no files.", show_default="float32"),
    ] = None,
    delegate: Annotated[
        Literal["cpu", "gpu", "npu", "nnapi"] | None,
        typer.Option(help="With --device: processor that runs the networks on a phone.", show_default="cpu"),
    ] = None,
    benchmark_binary: BenchmarkBinary = None,
    unknown: UnknownOps = "refuse",
    seed: Seed = 0,
) -> None:
    """Check that networks are fast enough, and no slower than they were: a test for CI.

    A network fails where its whole interval is above --max-ms, and is in
    doubt where the interval holds that limit. With --baseline and
    --max-slower, it also fails where it got slower by more than that.

    Exit code: 0 where none failed (doubts are told), 1 where one did, 2 where
    one cannot be read, priced or timed, or the command is wrong.
    """
    from netlathe import checking
    from netlathe.cli.phones import choose_phone

    to_stdout = json_file == "-"
    terminal = Terminal(as_json=to_stdout)
    report = checking.check(
        what, max_ms=max_ms, predictor=predictor, device=choose_phone(device, terminal) if device else None,
        baseline=baseline, max_slower=None if max_slower is None else parse_share(max_slower),
        json=None if to_stdout else json_file, junit=junit, markdown=markdown, coverage=coverage,
        shapes=parse_shapes(shape), op_profile=op_profile, budget_s=budget_s, threads=threads, cores=cores, dtype=dtype,
        delegate=delegate,
        benchmark_binary=benchmark_binary, unknown=unknown, seed=seed, progress=terminal,
    )  # fmt: skip
    show_check(report, terminal)
    terminal.result(report.to_json())
    if report.exit_code or terminal.undone:
        raise typer.Exit(report.exit_code or 2)


def parse_share(text: str) -> float:
    """'5%' -> 0.05. Raises FormatError."""
    found = re.fullmatch(r"([0-9]{1,4}(?:\.[0-9]{1,6})?) ?%", text.strip())
    if not found:
        raise FormatError(f"--max-slower {text!r:.40}: expected a number of percent, such as 5%")
    return float(found[1]) / 100


def show_check(report: CheckReport, terminal: Terminal) -> None:
    """A line per network, what is to be said of each, and the outcome."""
    columns = ["network", "timed ms" if report.device else "predicted ms", f"{100 * report.coverage:g} % interval"]
    columns += ["limit"] if report.max_ms is not None else []
    columns += ["before", "change"] if report.baseline else []
    terminal.table((*columns, "verdict"), [_row(one, report) for one in report.networks])
    terminal.say(f"  {report.how}", style="dim")
    for one in report.networks:
        for text in one.messages:
            tell = terminal.alarm if one.verdict in _STYLES else terminal.say
            tell(f"  {text}", style=_STYLES.get(one.verdict, ""))
        _show_changes(one, terminal)
    terminal.warn(report.warnings)
    terminal.say(f"  {report.title}", style="bold")


def _row(one: Checked, report: CheckReport) -> tuple[str, ...]:
    from netlathe.check_files import change_of, interval_words

    found = one.latency
    cells = (milliseconds(found.latency_ms), interval_words(found)) if found else ("-", "-")
    limit = () if report.max_ms is None else (f"{report.max_ms:g}",)
    before = (milliseconds(one.baseline_ms), change_of(one)) if report.baseline else ()
    return one.name, *cells, *limit, *before, _VERDICTS[one.verdict]


def _show_changes(one: Checked, terminal: Terminal) -> None:
    from netlathe.check_files import change_words

    if one.changes:
        terminal.say(f"  Kernels of {one.name} that changed most:")
    for change in one.changes[:_MOST_CHANGES]:
        terminal.say(f"    {change_words(change)}")
