"""Page of several runs, predictors or profiles, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

from netlathe.pareto_front import Point, mark_front
from netlathe.report.charts import Mark
from netlathe.report.layer_charts import draw_compared
from netlathe.report.page import Chart, Facts, Notes, Page, Part, Section, Table, section
from netlathe.report.predictor_content import PredictorContent
from netlathe.report.predictor_page import headline
from netlathe.report.profile_content import ProfileContent, SetupContent
from netlathe.report.run_content import RunContent
from netlathe.report.run_page import chart_of_marks, mark_of, marks_of
from netlathe.report.verdict import wilson
from netlathe.words import millions, milliseconds, percent


def page_of_runs(runs: Sequence[RunContent]) -> Page:
    """Finished runs side by side; those of one setup on one curve."""
    names = told_apart([run.name for run in runs], [run.folder for run in runs])
    setups = list(dict.fromkeys(run.main.setup for run in runs))
    parts: list[Part | None] = [_table_of_runs(runs, names)]
    sentences = []
    for setup in setups:
        together = [(run, name) for run, name in zip(runs, names, strict=True) if run.main.setup == setup]
        marks = _marks(together)
        if len(marks) > 1:
            chart = chart_of_marks(marks, None)
            parts.append(chart if len(setups) == 1 else replace(chart, title=f"{chart.title} on {setup}"))
            sentences.append(_sentence(marks, setup))
    if len(setups) > 1:
        parts.append(Notes(("Latencies of unlike setups do not compare: each setup has a curve of its own.",)))
    rows = tuple((name, str(run.folder)) for run, name in zip(runs, names, strict=True))
    sections = (
        section("Latency and accuracy", parts),
        _devices(runs, names),
        section("Where they are", [Facts(rows)]),
    )
    verdict = " ".join(sentences) or f"{len(runs)} runs, which have no accuracy on one setup to be compared by."
    return Page(f"{len(runs)} runs", "Comparison", verdict, "open", (), tuple(one for one in sections if one))


def told_apart(names: Sequence[str], places: Sequence[Path]) -> list[str]:
    """The names; those that are given twice with their folders or files."""
    return [
        name if names.count(name) == 1 else f"{name} ({place.name})" for name, place in zip(names, places, strict=True)
    ]


def _marks(runs: Sequence[tuple[RunContent, str]]) -> list[Mark]:
    """Runs with what no other beats as the front, then the baselines and originals that they know of, each once."""
    own = [(mark, name) for run, name in runs if (mark := mark_of(run))]
    points = [Point(str(index), "", mark.ms, None, mark.accuracy) for index, (mark, _) in enumerate(own)]
    front = {int(point.name) for point in mark_front(points) if point.on_front}
    found = [
        replace(mark, name=name, role="front" if index in front else "other") for index, (mark, name) in enumerate(own)
    ]
    others = {(mark.name, mark.ms): mark for run, _ in runs for mark in marks_of(run)[1:] if mark.is_trained}
    return [*found, *others.values()]


def _sentence(marks: Sequence[Mark], setup: str) -> str:
    own = [mark for mark in marks if mark.role in ("front", "other")]
    fastest, best = min(own, key=lambda one: one.ms), max(own, key=lambda one: (one.accuracy, -one.ms))
    beaten = sum(mark.role == "other" for mark in own)
    if fastest is best:
        return f"{fastest.words}, and no other run on {setup} is faster or more accurate."
    return f"The fastest is {fastest.words}; the most accurate {best.words}; {beaten} of {len(own)} are beaten in both."


def _table_of_runs(runs: Sequence[RunContent], names: Sequence[str]) -> Table:
    rows = []
    for run, name in zip(runs, names, strict=True):
        main, own = run.main, run.own_accuracy
        ends = None if own is None else wilson(own, run.test_images)
        rows.append(
            (
                name,
                main.device,
                milliseconds(main.target_ms),
                milliseconds(main.predicted_ms),
                milliseconds(main.measured_ms),
                percent(own),
                f"{percent(ends[0])} to {percent(ends[1])}" if ends else "-",
                "-" if not run.macs else millions(run.macs),
                "-" if not run.parameters else millions(run.parameters),
                f"{sum(run.seconds.values()) / 60:.1f}",
            )
        )
    columns = (
        "network",
        "on",
        "target ms",
        "predicted ms",
        "measured ms",
        "accuracy",
        "95 % interval",
        "MACs",
        "parameters",
        "minutes",
    )
    return Table(columns, tuple(rows), "Runs side by side", text=2)


def _devices(runs: Sequence[RunContent], names: Sequence[str]) -> Section | None:
    """Every network on every device that all runs know of."""
    shared = [
        one.device for one in runs[0].targets if all(one.device in {t.device for t in run.targets} for run in runs)
    ]
    if len(shared) < 2:
        return None
    rows = [
        (device, [next(t.predicted_ms for t in run.targets if t.device == device) for run in runs]) for device in shared
    ]
    cells = tuple((device, *map(milliseconds, values)) for device, values in rows)
    chart = Chart(
        "Predicted latency on each device",
        f"{len(runs)} networks on {len(shared)} devices.",
        partial(draw_compared, rows=rows, names=names),
        0.12 * len(rows) + 0.15,
        0.35 * len(rows) + 0.3,
        Table(("device", *names), cells, "Predicted ms", is_folded=True),
    )
    return section("Devices", [chart])


def page_of_predictors(predictors: Sequence[PredictorContent]) -> Page:
    """Predictors side by side, each by the split to quote."""
    names = told_apart([one.name for one in predictors], [one.path.parent for one in predictors])
    rows = []
    for one, name in zip(predictors, names, strict=True):
        found = headline(one)
        cells = ("-",) * 5
        if found:
            split, metrics = found
            cells = (
                split,
                str(metrics.n),
                percent(metrics.mape),
                percent(metrics.within_10, 0),
                percent(metrics.coverage, 0),
            )
        rows.append((name, *cells, str(one.setup)))
    columns = ("predictor", "held out", "n", "mean error", "within 10 %", "in 90 % interval", "setup")
    known = [
        (name, found[1].within_10) for one, name in zip(predictors, names, strict=True) if (found := headline(one))
    ]
    best = max(known, key=lambda pair: pair[1], default=None)
    verdict = f"{best[0]} is within ±10 % most often, in {percent(best[1], 0)} of what was held out." if best else ""
    parts = (
        Table(columns, tuple(rows), "Predictors side by side", text=2),
        Notes(("Each was judged on what was held out of its own measurements: compare setups before errors.",)),
    )
    return Page(
        f"{len(predictors)} predictors",
        "Comparison",
        verdict or "None tells what was held out.",
        "open",
        (),
        (Section("Errors", parts),),
    )


def page_of_profiles(profiles: Sequence[ProfileContent]) -> Page:
    """Profiles side by side: their setups, and how the latencies of what all have differ."""
    setups = [(profile.path.name, one) for profile in profiles for one in profile.setups]
    rows = tuple(
        (
            name,
            str(one.setup),
            str(len(one.measured)),
            str(len(one.unstable)),
            str(len(one.failed)),
            percent(one.noise_floor),
            str(len(one.log)),
        )
        for name, one in setups
    )
    columns = ("profile", "setup", "latencies", "unstable", "failed", "noise floor", "rounds")
    parts: list[Part | None] = [Table(columns, rows, "Profiles side by side", text=2), _ratios(setups)]
    found = section("Measurements", parts)
    verdict = f"{len(setups)} setups with {sum(len(one.measured) for _, one in setups)} latencies."
    return Page(f"{len(profiles)} profiles", "Comparison", verdict, "open", (), (found,) if found else ())


def _ratios(setups: Sequence[tuple[str, SetupContent]]) -> Table | None:
    """Median ratio of the latencies that a setup shares with the first one."""
    latencies = [{record.graph.key: record.latency_ms for record in one.measured} for _, one in setups]
    rows = []
    for (name, one), found in zip(setups[1:], latencies[1:], strict=True):
        ratios = sorted(ms / latencies[0][key] for key, ms in found.items() if key in latencies[0])
        if ratios:
            rows.append(
                (
                    name,
                    str(one.setup),
                    str(len(ratios)),
                    f"{median(ratios):.3f}",
                    f"{ratios[0]:.3f}",
                    f"{ratios[-1]:.3f}",
                )
            )
    columns = ("profile", "setup", "shared", "median", "least", "most")
    caption = f"Latencies over those of {setups[0][0]}" if setups else ""
    return Table(columns, tuple(rows), caption, text=2) if rows else None
