"""Page of a run: verdict, curve, layers, judges, learning, files, time, and how it was made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from netlathe.report.charts import Mark, draw_candidates, draw_judged, draw_marks
from netlathe.report.layer_charts import Bar, draw_stages
from netlathe.report.page import Chart, Notes, Page, Part, Section, Table, Tile, section
from netlathe.report.run_content import RunContent
from netlathe.report.run_sections import (
    classes_section,
    files_section,
    learning_section,
    made_section,
    time_section,
)
from netlathe.report.verdict import verdict_of, wilson
from netlathe.words import millions, milliseconds, percent

_KINDS = {"run": "Search", "compression": "Compression"}


def page_of_run(run: RunContent) -> Page:
    """The page of a finished run."""
    verdict = verdict_of(run)
    sections = (
        _curve(run),
        _layers(run),
        _widths(run),
        _judged(run),
        learning_section(run),
        classes_section(run),
        files_section(run),
        time_section(run),
        made_section(run),
    )
    notes = section("Warnings", [Notes(run.warnings, are_warnings=True)] if run.warnings else [])
    found = tuple(one for one in (notes, *sections) if one)
    return Page(run.name, _KINDS[run.kind], verdict.sentence, verdict.state, tuple(tiles_of(run)), found)


def tiles_of(run: RunContent) -> list[Tile]:
    """The numbers that one looks for first."""
    main = run.main
    tiles = [Tile("Target", f"{milliseconds(main.target_ms)} ms", f"on {main.device}")]
    if main.measured_ms is not None:
        ends = (main.measured_low_ms, main.measured_high_ms)
        note = f"90 %: {milliseconds(ends[0])} to {milliseconds(ends[1])} ms" if None not in ends else ""
        tiles.append(Tile("Measured", f"{milliseconds(main.measured_ms)} ms", note))
    note = f"90 %: {milliseconds(main.low_ms)} to {milliseconds(main.high_ms)} ms"
    tiles.append(Tile("Predicted", f"{milliseconds(main.predicted_ms)} ms", note))
    if run.own_accuracy is not None:
        ends95 = wilson(run.own_accuracy, run.test_images)
        told = f"95 %: {percent(ends95[0])} to {percent(ends95[1])}" if ends95 else ""
        tiles.append(Tile("Accuracy", percent(run.own_accuracy), told))
    if run.macs:
        tiles.append(Tile("MACs", millions(run.macs)))
    if run.parameters:
        tiles.append(Tile("Parameters", millions(run.parameters)))
    return tiles


def mark_of(run: RunContent) -> Mark | None:
    """A run between latency and accuracy; None where it has no accuracy."""
    main, own = run.main, run.own_accuracy
    if own is None:
        return None
    measured = main.measured_ms
    interval = (main.low_ms, main.high_ms)
    if measured is not None:
        known = main.measured_low_ms is not None and main.measured_high_ms is not None
        interval = (main.measured_low_ms, main.measured_high_ms) if known else None  # type: ignore[assignment]
    return Mark(
        run.name,
        main.predicted_ms if measured is None else measured,
        own,
        "chosen",
        measured is not None,
        interval,
        wilson(own, run.test_images),
        None if measured is None else main.predicted_ms,
    )


def marks_of(run: RunContent) -> list[Mark]:
    """The networks that a run knows the accuracy of: its own, its original, its baselines; and those that a compression
    looked at before any training."""
    own = mark_of(run)
    if own is None:
        return []
    marks = [own]
    if run.original_accuracy is not None and run.stages:
        latency = run.stages[0]["latencies"][0]
        interval = float(latency["low_ms"]), float(latency["high_ms"])
        share = run.original_accuracy
        marks.append(
            Mark("original", float(latency["ms"]), share, "original", False, interval, wilson(share, run.test_images))
        )
    for one in run.baselines:
        known = one.measured_low_ms is not None and one.measured_high_ms is not None
        ends = (one.measured_low_ms, one.measured_high_ms) if known else None
        marks.append(
            Mark(
                one.name,
                one.ms,
                one.accuracy,
                "baseline",
                one.measured_ms is not None,
                ends,  # type: ignore[arg-type]
                wilson(one.accuracy, one.test_images),
                None if one.measured_ms is None else one.predicted_ms,
            )
        )
    return [*marks, *run.untrained]


def chart_of_marks(marks: Sequence[Mark], target_ms: float | None) -> Chart:
    """Chart of latency against accuracy, with its numbers."""
    rows = tuple(
        (
            one.name if one.is_trained else f"{one.name}, untrained",
            milliseconds(one.ms),
            "measured" if one.is_measured else "predicted",
            ""
            if one.interval_ms is None
            else f"{milliseconds(one.interval_ms[0])} to {milliseconds(one.interval_ms[1])}",
            percent(one.accuracy),
            "" if one.interval is None else f"{percent(one.interval[0])} to {percent(one.interval[1])}",
        )
        for one in sorted(marks, key=lambda one: one.ms)
    )
    columns = ("network", "ms", "by", "90 % interval", "accuracy", "95 % interval")
    trained = [one for one in marks if one.is_trained]
    more = (
        f" Beside them {len(marks) - len(trained)} that were looked at before any training, by validation images: "
        "finalists, and the original with all layers narrowed alike."
        if len(trained) < len(marks)
        else ""
    )
    return Chart(
        "Latency against accuracy",
        f"{len(trained)} trained networks of {_ends([one.ms for one in trained], milliseconds)} ms, "
        f"{_ends([one.accuracy for one in trained], percent)} accurate.{more}",
        partial(draw_marks, marks=marks, target_ms=target_ms),
        table=Table(columns, rows, "Networks by latency", is_folded=True),
    )


def _ends(values: Sequence[float], words: Callable[[float], str]) -> str:
    """'98.6 % to 99.1 %', or one of them where both read alike."""
    return " to ".join(dict.fromkeys((words(min(values)), words(max(values)))))


def _curve(run: RunContent) -> Section | None:
    marks = marks_of(run)
    parts: list[Part | None] = [chart_of_marks(marks, run.main.target_ms) if len(marks) > 1 else None]
    if run.candidates:
        lower = run.candidate_label != "score"
        best = sorted(run.candidates, key=lambda one: one.score if lower else -one.score)
        rows = tuple(
            (one.name, milliseconds(one.ms), f"{one.score:.4g}", "chosen" if one.is_chosen else "") for one in best
        )
        parts.append(
            Chart(
                "Networks that were compared",
                f"{len(run.candidates)} networks by predicted latency and {run.candidate_label}; "
                + (
                    "the chosen one is a red star."
                    if any(one.is_chosen for one in run.candidates)
                    else "the red line is the latency of the chosen one, which came of what they taught."
                ),
                partial(
                    draw_candidates,
                    found=run.candidates,
                    target_ms=run.main.target_ms,
                    label=run.candidate_label,
                    lower_is_better=lower,
                    chosen=(run.name, run.main.predicted_ms),
                ),
                table=Table(
                    ("network", "predicted ms", run.candidate_label, ""),
                    rows,
                    "Compared networks, the best first",
                    is_folded=True,
                ),
            )
        )
    if len(run.targets) > 1:
        parts.append(_targets(run))
    if run.limits:
        limits = tuple((one.name, _number(one.limit), _number(one.value)) for one in run.limits)
        parts.append(Table(("limited", "at most", "has"), limits, "Further limits"))
    return section("Latency and accuracy", parts)


def _number(value: float) -> str:
    return millions(value) if value >= 1e5 else f"{value:.4g}"


def _targets(run: RunContent) -> Table:
    rows = tuple(
        (
            one.device,
            milliseconds(one.target_ms),
            milliseconds(one.predicted_ms),
            f"{milliseconds(one.low_ms)} to {milliseconds(one.high_ms)}",
            milliseconds(one.measured_ms),
            one.setup,
        )
        for one in run.targets
    )
    return Table(("on", "target ms", "predicted ms", "90 % interval", "measured ms", "setup"), rows, "Every device")


def _layers(run: RunContent) -> Section | None:
    parts: list[Part | None] = []
    for device in run.costs:
        parts += _device_parts(device)
    return section("Layer by layer", parts, "Predicted, as a whole network's time is measured and a layer's is not.")


def _device_parts(device: Mapping[str, Any]) -> list[Part | None]:
    after, before = device["networks"]["after"], device["networks"].get("before")
    stages = [one for one in after["stages"] if one["latency_ms"] is not None]
    if not stages:
        return []
    was = {one["name"]: one["latency_ms"] for one in before["stages"]} if before else {}
    bars = [
        Bar(
            one["block"] or one["name"],
            max(one["latency_ms"], 0.0),
            one["bound"] or "",
            one["name"],
            f"bound by {one['bound']}" if one["bound"] else "",
            was.get(one["name"]),
        )
        for one in stages
    ]
    rows = tuple(
        (
            one["name"],
            one["kernel"],
            milliseconds(one["latency_ms"]),
            percent(one["share"]),
            millions(one["macs"]),
            f"{one['bytes'] / 1e6:.3f}",
            one["bound"] or "-",
        )
        for one in after["kernels"]
    )
    tall = 0.05 * len(bars) + 0.13
    longest = max(bars, key=lambda bar: bar.ms)
    return [
        Chart(
            f"On {device['device']}: {milliseconds(after['predicted_ms'])} ms",
            f"Predicted milliseconds of each of {len(bars)} stages; the longest is {longest.name} with "
            f"{milliseconds(longest.ms)} ms.",
            partial(draw_stages, bars=bars),
            max(0.3, min(tall, 1.6)),
            max(0.6, min(2.6 * tall, 4.5)),
            Table(
                ("kernel", "ops", "ms", "of all", "MACs", "MB", "bound by"),
                rows,
                f"Kernels on {device['device']}",
                text=2,
                is_folded=True,
            ),
        ),
        Notes(tuple(one["text"] for one in after.get("advice", ()))) if after.get("advice") else None,
    ]


def _widths(run: RunContent) -> Section | None:
    if not run.layers:
        return None
    more = [name for name in run.layers[0].more if not name.endswith("_ms")]
    rows = tuple(
        (
            one.name,
            str(one.before),
            str(one.after),
            milliseconds(one.before_ms),
            milliseconds(one.after_ms),
            *(str(one.more.get(name, "")) for name in more),
        )
        for one in run.layers
    )
    changed = frozenset(
        index
        for index, one in enumerate(run.layers)
        if one.after != one.before or one.more.get("precision", "float32") != "float32"
    )
    columns = ("layer", "channels before", "after", "ms before", "ms after", *(name.replace("_", " ") for name in more))
    caption = f"{len(changed)} of {len(run.layers)} layers are others than before"
    return section("Before and after", [Table(columns, rows, caption, marked=changed)])


def _judged(run: RunContent) -> Section | None:
    if not run.timed:
        return None
    main = run.main
    band = (main.low_ms / main.predicted_ms, main.high_ms / main.predicted_ms)
    timed = run.timed
    rows = tuple((name, milliseconds(p), milliseconds(m), f"{100 * (m / p - 1):+.1f} %") for name, p, m in timed)
    chart = Chart(
        "Predicted against measured",
        f"{len(timed)} networks were timed on the device; the one that was taken was predicted "
        f"{milliseconds(timed[-1][1])} ms and measured {milliseconds(timed[-1][2])} ms.",
        partial(draw_judged, judged=timed, target_ms=main.target_ms, band=band),
        0.75,
        1.25,
        Table(
            ("network", "predicted ms", "measured ms", "off by"),
            rows,
            "Networks that were timed; the last was taken",
            is_folded=True,
        ),
    )
    return section("The choice", [chart], f"The judge was the {run.judge}.")
