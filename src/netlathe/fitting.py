"""Fitting: records in, a saved predictor out, and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from netlathe.archspace.errors import RecordError, paragraph
from netlathe.archspace.files import writing
from netlathe.archspace.records import LatencyRecord
from netlathe.archspace.tables import check_records_file, read_records
from netlathe.events import Listener, listener_of
from netlathe.outputs import Output, check_outputs
from netlathe.predictor.files import find_file
from netlathe.provenance import now, provenance
from netlathe.report.writing import make_page
from netlathe.words import first_names, percent

if TYPE_CHECKING:
    from netlathe.predictor import CrossValidation, KernelTimes, LatencyPredictor, Metrics
    from netlathe.predictor.transfer.prior import Prior

Residual = Literal["auto", "none", "gp", "xgboost", "forest"]
"""Correction learned on top of the physics; auto: whichever does best in cross-validation."""

FEW_BLOCKS = 30
NOISY = 0.05
"""Noise floor from which on the measurements themselves are in doubt."""
HONEST = 0.85, 0.95
"""Shares of measurements that a 90 % interval may hold before a warning is due."""
MOST_SETUPS = 20
"""How many a message lists."""
HELD_OUT: Mapping[str, str] = {
    "configuration": "blocks, by configuration",
    "random": "blocks, at random",
    "kernel": "blocks of a kernel size left out",
    "stage": "blocks of a stage left out",
    "larger": "blocks on larger inputs than fitted on",
    "network": "networks",
}
_TIMED_INSIDE = "kernels were timed inside the networks, so none is held out, and errors on networks are unknown"
_EXTRAPOLATIONS = ("kernel", "stage", "larger")


class SeveralSetupsError(RecordError):
    """A file of several setups, of which the message lists one a line."""

    is_paragraph = False


@dataclass(frozen=True)
class FitReport:
    """A fitted predictor, and how well it predicts what it has not seen."""

    predictor: LatencyPredictor
    records: list[LatencyRecord]
    """Records that it was fitted on, and those beside them that have no latency."""
    validation: CrossValidation
    kernels: KernelTimes | None = None
    """The single kernels that it was fitted on in place of blocks."""
    output: Path | None = None
    """The predictor's file."""
    plot: Path | None = None
    """The picture; None where there was nothing to draw."""
    not_drawn: tuple[str, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """Warnings that a user should know before trusting the predictor, each with its remedy."""
        return [*fit_warnings(self), *self.not_drawn]

    def to_json(self) -> dict[str, Any]:
        output = {"output": str(self.output)} if self.output else {}
        return {**output, **fit_json(self), "warnings": self.warnings}


def fit(
    source: str | Path | Sequence[LatencyRecord],
    output: str | Path | None = None,
    *,
    residual: Residual = "auto",
    few_shot: bool = False,
    like: Sequence[str | Path] = (),
    prior: Prior | str | None = None,
    setup: str = "",
    latency_column: str = "latency_ms",
    kernels: bool = False,
    splits: Sequence[str] = (),
    plot: str | Path | None = None,
    page: bool = True,
    force: bool = False,
    seed: int = 0,
    progress: bool | Listener = False,
) -> FitReport:
    """Fits a latency predictor, cross-validates it, and saves it at `output`, where that is given.

    `source` is a profile file, a .csv or .parquet table of records or configurations, or records; `setup` is the
    beginning of the key of the one to fit, where there are several, and `latency_column` a table's milliseconds.
    `few_shot` adapts what is known of 49 phones, `like` the profiles of similar devices, `prior` one of your own: for 3
    to 50 measurements. With `kernels`, the runtime's own times of single kernels take the place of the blocks. `splits`
    says what is held out, by default all that the records admit (netlathe.predictor.validation.crossval.SPLITS). `plot`
    is a PNG to draw. Without `page`, no page is made beside the file. `force` replaces any file at `output` and `plot`.

    Raises OutputError for files that must not or cannot be written, FormatError for a source that cannot be read,
    RecordError where there is no such setup or several, PredictorError where there is too little to fit.
    """
    listener = listener_of(progress)
    place, picture = (None if one is None else Path(one) for one in (output, plot))
    wanted = [Output("--output", place, "predictor")] if place else []
    wanted += [Output("--plot", picture, "picture")] if picture else []
    files = [str(one) for one in (source, *like) if isinstance(one, str | Path)]
    check_outputs(wanted, files, force=force)
    for file in files:
        check_records_file(file)
    if isinstance(prior, str):
        find_file(prior, "priors")
    with listener.working("fitting and cross-validating"):
        if prior is None and (like or few_shot):
            prior = known_devices(like, latency_column, few_shot=few_shot, fitted=(source, setup))
        report = _fit(source, residual, prior, seed, setup, latency_column, splits, kernels)
    if place:
        made = {"finished_at": now(), "source": _named(source), **provenance(listener.command)}
        report.predictor.save(place, report.validation, made=made)
    not_drawn = _draw(report.validation, picture) if picture else ()
    if place and page:
        make_page(place, listener)
    return replace(report, output=place, plot=None if not_drawn else picture, not_drawn=not_drawn)


def _named(source: str | Path | Sequence[LatencyRecord]) -> str:
    """Source of the measurements, in words."""
    return str(source) if isinstance(source, str | Path) else f"{len(source)} records"


def _fit(
    source: str | Path | Sequence[LatencyRecord],
    residual: Residual,
    prior: Prior | str | None,
    seed: int,
    setup_key: str,
    latency_column: str,
    splits: Sequence[str],
    kernels: bool,
) -> FitReport:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    from netlathe.predictor import LatencyPredictor, cross_validate
    from netlathe.predictor.validation.crossval import SPLITS

    chosen = records_of_one_setup(source, setup_key, latency_column)
    times = kernels_of_profile(source, chosen) if kernels else None
    if times:
        chosen = [*times.records, *(r for r in chosen if r.kind == "network")]
    held_out = [split for split in splits or SPLITS if not (times and times.of_networks and split == "network")]
    with threadpool_limits(1):  # threads cost more than they save on matrices of a few hundred rows
        model = LatencyPredictor(residual, seed, prior).fit(chosen)
        taken = (None if prior else model.model_.residual_weights) or residual  # chosen once
        validation = cross_validate(chosen, residual=taken, prior=prior, splits=held_out, seed=seed)
    if times and times.of_networks:
        validation = replace(validation, impossible={**validation.impossible, "network": _TIMED_INSIDE})
    return FitReport(model, chosen, validation, times)


def _draw(validation: CrossValidation, plot: Path) -> tuple[str, ...]:
    """A warning where there is nothing to draw. The predictor is written by then, whatever comes of the picture."""
    from netlathe.predictor import TooFewRecordsError, plot_validation

    try:
        with writing(plot) as part:
            plot_validation(validation, part)
    except TooFewRecordsError as error:
        return (f"{plot} was not drawn: {error}",)
    return ()


def kernels_of_profile(path: object, records: Sequence[LatencyRecord]) -> KernelTimes:
    """The kernels that a profile has times of, on the setup of these records. Raises RecordError without any."""
    from netlathe.archspace.profile_file import ProfileFile
    from netlathe.predictor import kernel_records

    if not isinstance(path, str | Path):
        raise RecordError("kernels are read from a profile file; give its path instead of records")
    with ProfileFile(path) as file:
        found = kernel_records(file, records[0].setup) if records else None
    if not found or not found.records:
        raise RecordError(f"{path}: holds no times of single kernels; profile a phone with --op-profile")
    return found


def known_devices(
    profiles: Sequence[str | Path], latency_column: str, *, few_shot: bool, fitted: tuple[object, str]
) -> Prior | str | None:
    """The prior to adapt: what these profiles of similar devices say, each setup as a device, else the shipped one of
    phones, else none. What is `fitted` (path, setup's key) is no known device: nothing could be held out from it.
    Raises RecordError for a profile without other measurements."""
    if not profiles:
        return "phones49" if few_shot else None
    from netlathe.predictor import Prior

    devices = {}
    for path in map(Path, profiles):
        records = [r for r in read_records(path, latency_column) if r.measurement and r.graph.nodes]
        if isinstance(fitted[0], str | Path) and path.resolve() == Path(fitted[0]).resolve():
            records = [r for r in records if not r.setup.key.startswith(fitted[1])]
        if not records:
            raise RecordError(
                f"{path}: holds nothing beside what is fitted; choose that by --setup, or others by --like"
            )
        for setup in dict.fromkeys(record.setup for record in records):
            devices[f"{path} {setup.key[:8]}"] = [record for record in records if record.setup == setup], None
    return Prior.learn(devices)


def records_of_one_setup(
    source: str | Path | Sequence[LatencyRecord], setup_key: str, latency_column: str = "latency_ms"
) -> list[LatencyRecord]:
    """Those of the setup whose key begins so. Raises RecordError when that leaves none or several setups."""
    path = str(source) if isinstance(source, str | Path) else "records"
    records = read_records(Path(source), latency_column) if isinstance(source, str | Path) else list(source)
    chosen = [record for record in records if record.setup.key.startswith(setup_key)]
    if records and not chosen:
        keys = ", ".join(sorted({record.setup.key for record in records}))
        raise RecordError(f"{path}: no setup's key begins with {setup_key!r}; there are {keys}")
    if len({record.setup for record in chosen}) > 1:
        raise SeveralSetupsError(f"{paragraph(str(path))}: choose one of its setups with --setup:\n{_setups(chosen)}")
    return chosen


def _setups(records: Sequence[LatencyRecord]) -> str:
    """A line per setup: the beginning of its key, what it is, and in what else it differs from the first."""
    setups = list(dict.fromkeys(record.setup for record in records))
    first = dict(setups[0].details)
    lines = []
    for setup in setups:
        others = [f"{name} {value}" for name, value in setup.details if first.get(name) != value]
        lines.append(f"  {setup.key[:8]}  {setup}" + (f" ({', '.join(others)})" if others else ""))
    more = f"\n  and {len(lines) - MOST_SETUPS} more" if len(lines) > MOST_SETUPS else ""
    return "\n".join(paragraph(line) for line in lines[:MOST_SETUPS]) + more


def fit_warnings(fitted: FitReport) -> list[str]:
    """Warnings that a user should know before trusting the predictor, each with its remedy."""
    validation, model = fitted.validation, fitted.predictor
    adapted = model.prior_share_ > 0
    warnings = []
    if model.prior is not None and not adapted:
        warnings.append(
            "the known devices do not serve here (they lack some of its ops, or are too unlike): fitted on these "
            "measurements alone; profile about 100 blocks"
        )
    if not validation.splits:
        warnings.append("too little is measured to hold anything out, so its errors are unknown: profile more blocks")
    elif 0 < model.n_blocks_ < FEW_BLOCKS and not adapted:
        warnings.append(f"only {model.n_blocks_} blocks; about 100 make a good predictor: profile a larger space")
    if not model.n_networks_ and not adapted:
        warnings.append(
            "no whole networks were measured, so a network is taken as the plain sum of its blocks, which may be off "
            "by 10 % and more: profile with --networks 12"
        )
    if missing := [record for record in fitted.records if record.measurement is None]:
        first = missing[0]
        warnings.append(
            f"{len(missing)} of {len(fitted.records)} records hold no latency and were left out, the first of them "
            f"{first.name} ({first.message or first.status}): measure them again, `netlathe profile --again failed`, "
            "or correct the table"
        )
    warnings += model.warnings_
    if validation.unsteady:
        warnings.append(
            f"the measurements of {first_names(validation.unsteady)} disagree with themselves and were left out: "
            "measure them again on a quiet machine, `netlathe profile --again unstable`"
        )
    warnings += _kernel_warnings(fitted.kernels) if fitted.kernels else []
    if (noise := validation.noise_floor or 0.0) > NOISY:
        warnings.append(f"measurements differ by {percent(noise)} between their own halves: profile on a quiet machine")
    return warnings + _coverage_warnings(validation) + _setup_warnings(fitted)


def _kernel_warnings(times: KernelTimes) -> list[str]:
    warnings = [f"{_TIMED_INSIDE}: profile blocks too, with --op-profile"] if times.of_networks else []
    if times.unmatched:
        warnings.append(
            f"{len(times.unmatched)} times of the runtime's table belong to no kernel for certain and were left out "
            f"({first_names(times.unmatched)}): if they matter, fit without --kernels"
        )
    return warnings


def _coverage_warnings(validation: CrossValidation) -> list[str]:
    """Warnings where 90 % intervals hold too few or too many, by more than chance explains with so many predictions.
    Far from what was fitted on, too many is as it should be."""
    warnings = []
    for split, predictions in validation.splits.items():
        metrics = predictions.metrics
        share = metrics.coverage or 0.0
        chance = 2 * math.sqrt(0.9 * 0.1 / metrics.n)
        honest = HONEST[0] <= share <= HONEST[1] or abs(share - 0.9) <= chance
        if honest or (share > 0.9 and split in _EXTRAPOLATIONS):
            continue
        hint = "too narrow there: ask for a higher" if share < 0.9 else "wider than they need to be: ask for a lower"
        warnings.append(f"90 % intervals hold {percent(share, 0)} of {HELD_OUT[split]}; they are {hint} --coverage")
    return warnings


def _setup_warnings(fitted: FitReport) -> list[str]:
    unknown = dict(fitted.predictor.setup_.details).get("not told")
    if unknown is None:
        return []
    return [
        f"the table does not tell {unknown}, so nothing can warn of predictions for another setup: add columns with "
        "these names"
    ]


def fit_json(fitted: FitReport) -> dict[str, Any]:
    """Fit report for machines, JSON-able."""
    validation, model = fitted.validation, fitted.predictor
    content: dict[str, Any] = {
        "setup": model.setup_.to_json(),
        "residual": model.residual_,
        "network_offset_ms": model.network_offset_ms_,
    }
    networks = model.model_.networks
    if networks is not None:
        content["network_slope"] = networks.slope
        content["network_ms_per_weight_mb"] = networks.ms_per_weight_mb
        content["network_ms_per_block"] = networks.ms_per_block
    return {**content, **validation_json(validation), "warnings": fit_warnings(fitted)}


def validation_json(validation: CrossValidation) -> dict[str, Any]:
    """Metrics by split and, of the split by configuration, by kind of block; `blocks` and `networks` are the usual."""
    splits = {split: _metrics_json(predictions.metrics) for split, predictions in validation.splits.items()}
    by_configuration = validation.splits.get("configuration")
    kinds = by_configuration.by_kind() if by_configuration else {}
    usual = {"blocks": splits.get("configuration"), "networks": splits.get("network")}
    return {
        **{name: metrics for name, metrics in usual.items() if metrics},
        "splits": splits,
        "kinds": {kind: _metrics_json(part.metrics) for kind, part in kinds.items()},
        "not_held_out": dict(validation.impossible),
        "not_predicted": list(validation.not_predicted),
        "unsteady": list(validation.unsteady),
        "noise_floor": validation.noise_floor,
    }


def _metrics_json(metrics: Metrics) -> dict[str, Any]:
    """JSON has no NaN."""
    return {name: None if value != value else value for name, value in asdict(metrics).items()}
