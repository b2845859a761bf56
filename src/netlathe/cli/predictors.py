"""`netlathe predictors`: what ships, what each can price, and the card of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netlathe.cli.console import METRIC_COLUMNS, Terminal, metric_cells
from netlathe.cli.options import Json
from netlathe.words import percent

if TYPE_CHECKING:
    from netlathe.predictor.catalogue import Card
    from netlathe.pricing import Priced


def predictors(
    name: Annotated[str, typer.Argument(help="Predictor whose card to show: a shipped name, or a file.")] = "",
    as_json: Json = False,
) -> None:
    """List the predictors that ship with netlathe, or show one's card: source, accuracy, limits."""
    from netlathe.predictor.catalogue import read_card, shipped_names
    from netlathe.pricing import Priced

    terminal = Terminal(as_json=as_json)
    if name:
        card = read_card(name)
        priced = Priced.by(name, card)
        found = _to_json(name, card, priced)
        _print_card(card, priced, found["prices"]["unknown_ops"], terminal)
        terminal.result(found)
        return
    names = shipped_names()
    cards = [read_card(one) for one in names]
    prices = [Priced.by(one, card) for one, card in zip(names, cards, strict=True)]
    columns = ("name", "device", "runs", "prices", "within 10 %")
    terminal.table(columns, [_row(*both) for both in zip(cards, prices, strict=True)], numbers=False)
    parts = [card.name for card, priced in zip(cards, prices, strict=True) if not priced.networks]
    if parts:
        terminal.say(f"  No whole network can be priced by {', '.join(parts)}: ops of it were never measured.")
    terminal.say(
        "  `netlathe predictors NAME` shows the card; --predictor takes a name in place of a file.", style="dim"
    )
    if as_json:
        terminal.result({"predictors": [_to_json(*one) for one in zip(names, cards, prices, strict=True)]})


def _to_json(name: str, card: Card, priced: Priced) -> dict[str, Any]:
    """The card, and what the predictor itself tells."""
    from netlathe.pricing import load_predictor

    unknown = load_predictor(name).model_.unknown_kinds
    return {**card.to_json(), "prices": {**asdict(priced), "unknown_ops": list(unknown)}}


def _row(card: Card, priced: Priced) -> tuple[str, ...]:
    setup, (split, metrics) = card.setup, next(iter(card.accuracy.items()))
    told = (setup.runtime, setup.runtime_version, setup.delegate)
    runtime = " ".join(word for word in told if word and word != "version unstated")
    runs = f"{runtime}, {setup.dtype}, batch {setup.batch}"
    return card.name, setup.device, runs, priced.word, f"{percent(metrics.within_10, 0)} of {split}"


def _counts(card: Card) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in card.counts.items() if count)


def _print_card(card: Card, priced: Priced, unknown_ops: Sequence[str], terminal: Terminal) -> None:
    terminal.step(card.name)
    details = "; ".join(f"{name}: {value}" for name, value in card.setup.details)
    for label, text in (
        ("", card.summary), ("Setup: ", f"{card.setup}" + (f" ({details})" if details else "")),
        ("Fitted on: ", _counts(card)), ("Prices: ", priced.words), ("Never measured: ", ", ".join(unknown_ops)),
        ("Source: ", card.source), ("License of the measurements: ", card.license),
    ):  # fmt: skip
        terminal.say(f"  {label}{text}")
    rows = [(split, *metric_cells(metrics)) for split, metrics in card.accuracy.items()]
    terminal.table(("held out", *METRIC_COLUMNS), rows)
    for limit in card.limits:
        terminal.say(f"  - {limit}")
