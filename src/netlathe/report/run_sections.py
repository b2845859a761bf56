"""Sections on a run itself: how it learned, its classes and files, where the time went, and how it was made."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from netlathe.report.layer_charts import draw_classes, draw_shares
from netlathe.report.learning_charts import draw_decisions, draw_expectations, draw_looks, draw_training
from netlathe.report.page import ORIGIN, Chart, Facts, Part, Section, Table, made_facts, section
from netlathe.report.run_content import RunContent
from netlathe.report.snippets import forms, snippets_of, torch_snippet
from netlathe.report.verdict import wilson
from netlathe.words import percent, percent_within

_MOST_CLASSES = 40
_FORMS = {"torch": "PyTorch", "tflite": ".tflite", "int8": "int8 .tflite", "onnx": ".onnx", "mixed": "mixed .tflite"}


def learning_section(run: RunContent) -> Section | None:
    """Curves of the training, the looks and the search."""
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


def classes_section(run: RunContent) -> Section | None:
    """Accuracy by class, the worst first."""
    counted = [one for one in run.classes if one.images]
    if not counted:
        return None
    ordered = sorted(counted, key=lambda one: (one.right / one.images, one.name))
    rows = tuple(
        (one.name, str(one.images), str(one.right), percent_within(one.right / one.images, one.images))
        for one in ordered
    )
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
    return section("Classes", [_over_classes(run), chart, _confused(run)])


def _over_classes(run: RunContent) -> Facts | None:
    """Accuracies over all classes, with their intervals."""
    told = run.classification
    if told is None:
        return None
    low, high = told["balanced_interval"]
    facts = [("balanced accuracy", f"{percent(told['balanced_accuracy'])}, 95 %: {percent(low)} to {percent(high)}")]
    if told["classes"] > 10:
        facts.append(("among the five likeliest", percent_within(told["top5_accuracy"], run.test_images)))
    return Facts(tuple(facts))


def _confused(run: RunContent) -> Table | None:
    """The most frequent errors."""
    told = (run.classification or {}).get("confusion", ())
    names = [one.name for one in run.classes]
    found = sorted(
        ((count, row, column) for row, counts in enumerate(told) for column, count in enumerate(counts)
         if count > 0 and row != column and row < len(names)),
        key=lambda one: (-one[0], one[1:]),
    )  # fmt: skip
    rows = tuple(
        (
            names[row],
            names[column] if column < len(names) else f"output {column}",
            str(count),
            str(run.classes[row].images),
        )
        for count, row, column in found[:10]
    )
    columns = ("class", "taken for", "images", "of")
    return Table(columns, rows, "The most frequent errors", text=2, is_folded=True) if rows else None


def files_section(run: RunContent) -> Section | None:
    """Accuracy of each file, the files, and lines of code that use them."""
    parts: list[Part | None] = []
    if run.accuracy:
        shares = [(_FORMS.get(form, form), share) for form, share in run.accuracy.items()]
        if run.original_accuracy is not None:
            before = [("the original", run.original_accuracy), ("shaped, before its training", run.untrained_accuracy)]
            shares = [*((name, share) for name, share in before if share is not None), *shares]
        rows = tuple((form, percent_within(share, run.test_images)) for form, share in shares)
        caption = f"Accuracy on {run.test_images:,} test images; ± is half of the 95 % interval"
        parts.append(Table(("form", "accuracy"), rows, caption))
    for one in run.recoveries:
        columns = (f"{one.form} file", "accuracy", "points below float32")
        parts.append(Table(columns, tuple(one.rows()), f"On {one.images:,} validation images: {one}"))
    parts.append(Facts(forms(run.files)) if run.files else None)
    parts += [torch_snippet(run), *snippets_of(run)]
    return section("Files, and how to use them", parts)


def time_section(run: RunContent) -> Section | None:
    """Seconds of each phase."""
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


def made_section(run: RunContent) -> Section | None:
    """Setup, seed, images, command and versions."""
    rows: list[tuple[str, str]] = [("setup", run.main.setup)]
    config = run.inputs.get("config")
    seed = config.get("seed") if isinstance(config, dict) else run.inputs.get("seed")
    if seed is not None:
        rows.append(("seed", str(seed)))
    train = run.inputs.get("train")
    if isinstance(train, dict) and isinstance(train.get("recipe"), str):
        rows.append(("recipe", train["recipe"]))
    data = run.inputs.get("data")
    if isinstance(data, dict) and isinstance(data.get("images"), dict):
        rows.append(
            ("images", f"{data.get('name', '')}: " + ", ".join(f"{n:,} {s}" for s, n in data["images"].items()))
        )
    rows.append(("folder", str(run.folder)))
    return section(ORIGIN, [Facts((*rows, *made_facts(run.made)))])
