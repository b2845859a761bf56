"""Page of a predictor: errors by split and kind, coverage of its intervals, what it was fitted on, its card."""

from __future__ import annotations

from functools import partial

from netlathe.fitting import HELD_OUT
from netlathe.predictor.validation.crossval import CrossValidation
from netlathe.predictor.validation.metrics import LEVELS, Metrics, Predictions
from netlathe.report.page import (
    ORIGIN,
    Chart,
    Facts,
    Notes,
    Page,
    Part,
    Section,
    State,
    Table,
    Tile,
    made_facts,
    section,
)
from netlathe.report.predictor_charts import HeldOut, draw_coverage, draw_errors, draw_held_out, draw_kinds
from netlathe.report.predictor_content import PredictorContent
from netlathe.report.profile_page import setup_facts
from netlathe.words import first_names, milliseconds, percent

_WORST = 20


def page_of_predictor(content: PredictorContent) -> Page:
    """The page of a predictor."""
    sentence, state = _verdict(content)
    sections = (
        _errors(content),
        _kinds(content),
        _coverage(content),
        _card(content),
        _fitted(content),
        _origin(content),
    )
    return Page(
        content.name, "Predictor", sentence, state, tuple(_tiles(content)), tuple(one for one in sections if one)
    )


def headline(content: PredictorContent) -> tuple[str, Metrics] | None:
    """The split to quote, in words, and its metrics: networks where they were held out, else blocks; or the card's."""
    if content.validation is not None:
        for split in ("network", "configuration"):
            if split in content.validation.splits:
                return HELD_OUT[split], content.validation.splits[split].metrics
    if content.card is not None:
        return next(iter(content.card.accuracy.items()))
    return None


def _verdict(content: PredictorContent) -> tuple[str, State]:
    found = headline(content)
    fitted = " and ".join(f"{count:,} {kind}" for kind, count in content.counts.items() if count)
    if found is None:
        return f"Fitted on {fitted} of {content.setup}; its file does not tell what was held out.", "open"
    split, metrics = found
    told = (
        f", {percent(metrics.coverage, 0)} of them inside their 90 % interval" if metrics.coverage is not None else ""
    )
    sentence = (
        f"Of {metrics.n:,} {split}, held out, {percent(metrics.within_10, 0)} are predicted within ±10 % (mean error "
        f"{percent(metrics.mape)}){told}; fitted on {fitted} of {content.setup}."
    )
    return sentence, "good" if metrics.within_10 >= 0.8 else "open"


def _tiles(content: PredictorContent) -> list[Tile]:
    tiles = []
    if found := headline(content):
        split, metrics = found
        tiles += [Tile("Within ±10 %", percent(metrics.within_10, 0), split), Tile("Mean error", percent(metrics.mape))]
        if metrics.coverage is not None:
            tiles.append(Tile("In 90 % interval", percent(metrics.coverage, 0)))
    tiles += [Tile(f"Fitted on {kind}", f"{count:,}") for kind, count in content.counts.items() if count]
    if content.validation is not None and content.validation.noise_floor is not None:
        tiles.append(Tile("Noise floor", percent(content.validation.noise_floor), "of the measurements"))
    return tiles


def _errors(content: PredictorContent) -> Section | None:
    validation = content.validation
    if validation is None or not validation.splits:
        return None
    rows = tuple((HELD_OUT[split], *_cells(one.metrics)) for split, one in validation.splits.items())
    columns = ("held out", "n", "mean error", "within 5 %", "within 10 %", "Spearman", "in 90 % interval")
    usual = {split: validation.splits[split] for split in ("configuration", "network") if split in validation.splits}
    drawn = [held_out(split, one) for split, one in (usual or validation.splits).items()]
    worst = _worst(validation)
    parts: list[Part | None] = [
        Table(columns, rows, "Errors of predictions by what was held out"),
        Chart(
            "Predicted against measured",
            f"{sum(len(one.names) for one in drawn)} held-out latencies beside the diagonal.",
            partial(draw_held_out, splits=drawn),
            0.75,
            1.2,
        ),
        Chart(
            "Errors by latency",
            "How far each measurement is from its prediction; bars are 90 % intervals.",
            partial(draw_errors, splits=drawn),
            0.48,
            1.0,
            worst,
        ),
        Notes(
            tuple(
                f"Not held out: {HELD_OUT.get(split, split)}, as {why}" for split, why in validation.impossible.items()
            )
        )
        if validation.impossible
        else None,
    ]
    if validation.not_predicted:
        names = first_names(validation.not_predicted)
        parts.append(Notes((f"Fitted, but not in every row, as nothing left in the fit has such ops: {names}",)))
    return section("Errors on what was held out", parts)


def held_out(split: str, one: Predictions) -> HeldOut:
    """Predictions as charts take them."""
    column = one.half_widths[:, LEVELS.index(0.9)]
    arrays = (tuple(values.tolist()) for values in (one.measured_ms, one.predicted_ms, column))
    return HeldOut(HELD_OUT[split], one.names, *arrays)


def _cells(metrics: Metrics) -> tuple[str, ...]:
    spearman = "-" if metrics.spearman != metrics.spearman else f"{metrics.spearman:.3f}"
    return (
        str(metrics.n),
        percent(metrics.mape),
        percent(metrics.within_5, 0),
        percent(metrics.within_10, 0),
        spearman,
        percent(metrics.coverage, 0),
    )


def _worst(validation: CrossValidation) -> Table | None:
    """The predictions that are farthest off."""
    found = [
        (abs(predicted / measured - 1), name, HELD_OUT[split], measured, predicted)
        for split in ("configuration", "network")
        if (one := validation.splits.get(split))
        for name, measured, predicted in zip(
            one.names, one.measured_ms.tolist(), one.predicted_ms.tolist(), strict=True
        )
    ]
    rows = tuple(
        (name, split, milliseconds(measured), milliseconds(predicted), f"{100 * (predicted / measured - 1):+.1f} %")
        for _, name, split, measured, predicted in sorted(found, reverse=True)[:_WORST]
    )
    columns = ("item", "held out", "measured ms", "predicted ms", "off by")
    return Table(columns, rows, "The predictions that are farthest off", text=2, is_folded=True) if rows else None


def _kinds(content: PredictorContent) -> Section | None:
    by_configuration = content.validation.splits.get("configuration") if content.validation else None
    if by_configuration is None:
        return None
    kinds = sorted(by_configuration.by_kind().items(), key=lambda pair: -pair[1].metrics.mape)
    drawn = [(kind, part.metrics.n, part.metrics.mape) for kind, part in kinds][:40]
    rows = tuple((kind, *_cells(part.metrics)) for kind, part in kinds)
    tall = 0.035 * len(drawn) + 0.1
    columns = ("kind", "n", "mean error", "within 5 %", "within 10 %", "Spearman", "in 90 % interval")
    chart = Chart(
        "Mean error by kind of block",
        f"From {percent(drawn[-1][2])} ({drawn[-1][0]}) to {percent(drawn[0][2])} ({drawn[0][0]}).",
        partial(draw_kinds, kinds=drawn),
        tall,
        min(2.4 * tall, 3.6),
        Table(columns, rows, "Errors by kind, the largest first", is_folded=True),
    )
    return section("Kinds", [chart])


def _coverage(content: PredictorContent) -> Section | None:
    if content.validation is None or not content.validation.splits:
        return None
    splits = [(HELD_OUT[split], one.coverages().tolist()) for split, one in content.validation.splits.items()]
    rows = tuple((name, *(percent(share, 0) for share in shares)) for name, shares in splits)
    chart = Chart(
        "Coverage of the intervals",
        "Share of measurements inside intervals of each nominal coverage.",
        partial(draw_coverage, levels=LEVELS, splits=splits),
        0.5,
        1.1,
        Table(
            ("held out", *(percent(level, 0) for level in LEVELS)),
            rows,
            "Measurements inside, by nominal coverage",
            is_folded=True,
        ),
    )
    return section("Intervals", [chart])


def _card(content: PredictorContent) -> Section | None:
    card = content.card
    if card is None:
        return None
    rows = tuple((split, *_cells(metrics)) for split, metrics in card.accuracy.items())
    columns = ("held out", "n", "mean error", "within 5 %", "within 10 %", "Spearman", "in 90 % interval")
    prices = tuple((name, ", ".join(found) or "-") for name, found in (card.prices or {}).items())
    parts: list[Part | None] = [
        Facts((("about", card.summary), ("source", card.source), ("license", card.license), *prices)),
        Table(columns, rows, "Accuracy as its card tells it"),
        Notes(card.limits) if card.limits else None,
    ]
    return section("Card", parts)


def _fitted(content: PredictorContent) -> Section | None:
    counts = tuple((kind, f"{count:,}") for kind, count in content.counts.items())
    return section(
        "How it was fitted",
        [Facts((*counts, *content.facts)), Facts(setup_facts(content.setup))],
    )


def _origin(content: PredictorContent) -> Section:
    """The file, and the command and versions that fitted it, where it tells them."""
    return Section(ORIGIN, (Facts((("file", str(content.path)), *made_facts(content.made))),))
