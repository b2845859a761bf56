"""Page of a run: verdict, curve, layers, judges, learning, files, time, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from netlathe.report.charts import Mark, draw_candidates, draw_judged, draw_marks
from netlathe.report.layer_charts import Bar, draw_classes, draw_shares, draw_stages
from netlathe.report.learning_charts import draw_decisions, draw_expectations, draw_looks, draw_training
from netlathe.report.page import Chart, Facts, Notes, Page, Part, Section, Table, Tile, section
from netlathe.report.run_content import RunContent
from netlathe.report.snippets import forms, snippets_of, torch_snippet
from netlathe.report.verdict import verdict_of, wilson
from netlathe.words import millions, milliseconds, percent

_MOST_CLASSES = 40
_FORMS = {"torch": "PyTorch", "tflite": ".tflite", "int8": "int8 .tflite", "onnx": ".onnx", "mixed": "mixed .tflite"}
_KINDS = {"run": "Search", "compression": "Compression"}


def page_of_run(run: RunContent) -> Page:
    """The page of a finished run."""
    verdict = verdict_of(run)
    sections = (
        _curve(run),
        _layers(run),
        _widths(run),
        _judged(run),
        _learning(run),
        _classes(run),
        _files(run),
        _time(run),
        _made(run),
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
    """The trained networks that a run knows of: its own, its original, its baselines."""
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
    return marks


def chart_of_marks(marks: Sequence[Mark], target_ms: float | None) -> Chart:
    """Chart of latency against accuracy, with its numbers."""
    rows = tuple(
        (
            one.name,
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
    return Chart(
        "Latency against accuracy",
        f"{len(marks)} trained networks from {milliseconds(min(one.ms for one in marks))} to "
        f"{milliseconds(max(one.ms for one in marks))} ms, {percent(min(one.accuracy for one in marks))} to "
        f"{percent(max(one.accuracy for one in marks))} accurate.",
        partial(draw_marks, marks=marks, target_ms=target_ms),
        table=Table(columns, rows, "Trained networks by latency", is_folded=True),
    )


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
                f"{len(run.candidates)} networks by predicted latency and {run.candidate_label}; red: chosen.",
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


def _learning(run: RunContent) -> Section | None:
    parts: list[Part | None] = []
    if run.training:
        last = run.training[-1]
        parts.append(
            Chart(
                "Training of the network",
                f"{last[0]:.0f} epochs: {percent(last[2])} of the images trained on are right; loss {last[1]:.3g}.",
                partial(draw_training, rows=run.training),
                0.42,
                0.95,
                _by_epoch(run.training),
            )
        )
    if run.looks:
        parts.append(
            Chart(
                "Scores by look",
                f"{len(run.looks)} networks were looked at; the best score is {max(run.looks):.4g}.",
                partial(draw_looks, scores=run.looks, label=run.candidate_label),
                0.42,
                0.9,
            )
        )
    if run.history:
        warm = next((row.epoch for row in run.history if row.phase == "search"), 0)
        tall = len(run.lines)
        parts.append(
            Chart(
                "Cost of the architecture while it is searched",
                "; ".join(f"{one.name} ends at {one.expected[-1]:.4g}, limit {one.limit:.4g}" for one in run.lines)
                + ".",
                partial(draw_expectations, lines=run.lines, warm=warm),
                0.2 + 0.33 * tall,
                0.3 + 0.85 * tall,
            )
        )
        row = run.history[-1]
        parts.append(
            Chart(
                "Decisions of the architecture",
                f"At the end, sampled paths are {percent(row.accuracy)} accurate; entropy is {row.entropy:.2f} nats.",
                partial(draw_decisions, history=run.history, warm=warm),
                0.55,
                1.25,
            )
        )
    return section("Learning", parts)


def _by_epoch(rows: Sequence[tuple[float, float, float]]) -> Table:
    cells = tuple((f"{epoch:.0f}", f"{loss:.4g}", percent(right)) for epoch, loss, right in rows)
    return Table(("epoch", "loss", "accuracy"), cells, "Training by epoch", text=0, is_folded=True)


def _classes(run: RunContent) -> Section | None:
    counted = [one for one in run.classes if one.images]
    if not counted:
        return None
    ordered = sorted(counted, key=lambda one: (one.right / one.images, one.name))
    rows = tuple((one.name, str(one.images), str(one.right), percent(one.right / one.images)) for one in ordered)
    shown = ordered[:_MOST_CLASSES]
    drawn = [
        (one.name, one.right / one.images, wilson(one.right / one.images, one.images) or (0.0, 1.0)) for one in shown
    ]
    words = f" (the worst {len(shown)} of {len(ordered)})" if len(shown) < len(ordered) else ""
    tall = 0.035 * len(shown) + 0.12
    chart = Chart(
        f"Accuracy by class{words}",
        f"The worst class is {ordered[0].name} with {percent(drawn[0][1])}, the best {ordered[-1].name} with "
        f"{percent(ordered[-1].right / ordered[-1].images)}.",
        partial(draw_classes, classes=drawn),
        tall,
        min(2.4 * tall, 3.5),
        Table(
            ("class", "test images", "right", "accuracy"), rows, "Accuracy by class, the worst first", is_folded=True
        ),
    )
    return section("Classes", [chart])


def _files(run: RunContent) -> Section | None:
    parts: list[Part | None] = []
    if run.accuracy:
        rows = tuple((_FORMS.get(form, form), percent(share)) for form, share in run.accuracy.items())
        if run.original_accuracy is not None:
            rows = (
                ("the original", percent(run.original_accuracy)),
                ("shaped, before its training", percent(run.untrained_accuracy)),
                *rows,
            )
        parts.append(Table(("form", "accuracy"), rows, f"Accuracy on {run.test_images:,} test images"))
    parts.append(Facts(forms(run.files)) if run.files else None)
    parts += [torch_snippet(run), *snippets_of(run)]
    return section("Files, and how to use them", parts)


def _time(run: RunContent) -> Section | None:
    parts = [(name, seconds) for name, seconds in run.seconds.items() if seconds > 0]
    if not parts:
        return None
    total = sum(seconds for _, seconds in parts)
    unit, scale = ("s", 1.0) if total < 600 else ("min", 60.0) if total < 36000 else ("h", 3600.0)
    scaled = [(name, seconds / scale) for name, seconds in parts]
    told = ", ".join(f"{name} {value:.3g} {unit}" for name, value in scaled)
    chart = Chart(
        "Where the time went",
        f"{told}.",
        partial(draw_shares, parts=scaled, unit=unit),
        0.08 * len(parts) + 0.1,
        0.18 * len(parts) + 0.2,
    )
    return section("Time", [chart])


def _made(run: RunContent) -> Section | None:
    rows: list[tuple[str, str]] = [("setup", run.main.setup)]
    config = run.inputs.get("config")
    seed = config.get("seed") if isinstance(config, dict) else run.inputs.get("seed")
    if seed is not None:
        rows.append(("seed", str(seed)))
    data = run.inputs.get("data")
    if isinstance(data, dict) and isinstance(data.get("images"), dict):
        rows.append(
            ("images", f"{data.get('name', '')}: " + ", ".join(f"{n:,} {s}" for s, n in data["images"].items()))
        )
    rows.append(("folder", str(run.folder)))
    return section("How it was made", [Facts((*rows, *made_facts(run.made)))])


def made_facts(made: Mapping[str, Any] | None) -> tuple[tuple[str, str], ...]:
    """Facts on when, by what and how something was made; none where that was not recorded."""
    if made is None:
        return ()
    packages = ", ".join(f"{name} {found}" for name, found in dict(made.get("packages", {})).items())
    rows = [
        ("command", made.get("command")),
        ("finished", made.get("finished_at")),
        ("netlathe", made.get("netlathe")),
        ("Python", made.get("python")),
        ("system", made.get("system")),
        ("packages", packages),
    ]
    return tuple((name, str(value)) for name, value in rows if value)
