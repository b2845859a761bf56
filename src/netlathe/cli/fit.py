"""`netlathe fit`: its options, and its report as a table of errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from netlathe.cli.console import METRIC_COLUMNS, Terminal, metric_cells
from netlathe.cli.options import Force, Json, NoPage, Seed
from netlathe.words import first_names, percent

if TYPE_CHECKING:
    from netlathe.fitting import FitReport
    from netlathe.predictor import CrossValidation, LatencyPredictor, Metrics


def fit(
    profile_file: Annotated[
        Path, typer.Argument(help="Profile file, or a table (.csv, .parquet) of records or of blocks and latencies.")
    ],
    output: Annotated[
        Path, typer.Option(help="Predictor file (JSON) to write; an earlier predictor there is replaced.")
    ],
    residual: Annotated[
        Literal["auto", "none", "gp", "xgboost", "forest"],
        typer.Option(
            help="Learned correction of the physical model: a Gaussian process (gp), XGBoost, a random forest, none, "
            "or the mixture of them that does best in cross-validation (auto)."
        ),
    ] = "auto",
    few_shot: Annotated[
        bool, typer.Option("--few-shot", help="Adapt what is known of 49 phones to this one: for 3 to 50 measurements.")
    ] = False,
    like: Annotated[
        list[Path] | None,
        typer.Option(help="Profile of a similar device, to be adapted to this one; several times for several."),
    ] = None,
    setup: Annotated[str, typer.Option(help="Key of the setup to fit; needed where the file holds several.")] = "",
    latency_column: Annotated[
        str, typer.Option(help="Column of a table that holds the latencies, in ms.")
    ] = "latency_ms",
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Fit on single kernels, from a profile that was made with --op-profile.")
    ] = False,
    splits: Annotated[
        Literal["all", "configuration"],
        typer.Option(help="Splits that errors are told for: all, or single configurations held out alone."),
    ] = "all",
    plot: Annotated[
        Path | None,
        typer.Option(help="PNG to write: predicted against measured, errors by size, coverage of intervals."),
    ] = None,
    no_page: NoPage = False,
    force: Force = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fit a latency predictor on a profile or table, and tell its errors on what was held out."""
    from netlathe import fitting

    terminal = Terminal(as_json=as_json)
    report = fitting.fit(
        profile_file, output, residual=residual, few_shot=few_shot, like=like or (), setup=setup,
        latency_column=latency_column, kernels=kernels, splits=() if splits == "all" else (splits, "network"),
        plot=plot, page=not no_page, force=force, seed=seed, progress=terminal,
    )  # fmt: skip
    show_fit(report, terminal)
    terminal.warn(report.not_drawn)
    terminal.say(f"  Wrote {output}" + (f" and {report.plot}" if report.plot else ""))
    terminal.result(report.to_json())


def show_fit(fitted: FitReport, terminal: Terminal) -> None:
    """The table of errors, what they can be compared with, and warnings."""
    from netlathe.fitting import fit_warnings

    validation, model = fitted.validation, fitted.predictor
    if validation.splits:
        rows = [(label, *metric_cells(metrics)) for label, metrics in _labelled_metrics(validation)]
        terminal.table(("held out", *METRIC_COLUMNS), rows)
    noise = percent(validation.noise_floor)
    terminal.say(
        f"  Noise floor (two halves of the same measurements): {noise}. {_what_was_fitted(model)}.", style="dim"
    )
    if validation.not_predicted:
        names = first_names(validation.not_predicted)
        terminal.say(f"  Fitted, but not in every row, as nothing left in the fit has such ops: {names}.", style="dim")
    terminal.warn(fit_warnings(fitted))


def _labelled_metrics(validation: CrossValidation) -> Iterator[tuple[str, Metrics]]:
    """A row per split, and below the split by configuration a row per kind of block."""
    from netlathe.fitting import HELD_OUT

    for split, predictions in validation.splits.items():
        yield HELD_OUT[split], predictions.metrics
        kinds = predictions.by_kind()
        if split == "configuration" and len(kinds) > 1:
            yield from ((f"  {kind}", part.metrics) for kind, part in kinds.items())


def _what_was_fitted(model: LatencyPredictor) -> str:
    share, network = model.prior_share_, model.model_.networks
    if 0 < share < 1:
        return (
            f"What is known of other devices, adapted, for {100 * share:.0f} %, and these measurements alone "
            f"for {100 - 100 * share:.0f} %"
        )
    if share:
        return "What is known of other devices, adapted"
    parts = f"Physics + {model.residual_} residual" if model.residual_ != "none" else "Physics alone"
    if not model.n_networks_ or not model.adds_up_ or network is None:
        return parts
    terms = [f"{network.slope:.3f} x its blocks"]
    for value, unit in (
        (1e3 * network.offset_ms, ""), (1e3 * network.ms_per_weight_mb, " per MB of weights"),
        (1e3 * network.ms_per_block, " per block"),
    ):  # fmt: skip
        if abs(value) > 1e-3:
            terms.append(f"{'-' if value < 0 else '+'} {abs(value):.3g} us{unit}")
    return f"{parts}. Network = {' '.join(terms)}"
