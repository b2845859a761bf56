"""`netlathe predictors`: what ships, and the card of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from netlathe.console import METRIC_COLUMNS, Terminal, metric_cells, percent
from netlathe.options import Json

if TYPE_CHECKING:
    from netlathe.predictor.catalogue import Card


def predictors(
    name: Annotated[str, typer.Argument(help="Show the card of this one: a shipped name or a predictor file.")] = "",
    as_json: Json = False,
) -> None:
    """List the predictors that ship with netlathe, or show one's card: source, accuracy, and what it cannot know."""
    from netlathe.predictor.catalogue import read_card, shipped_names

    terminal = Terminal(as_json=as_json)
    if name:
        card = read_card(name)
        _print_card(card, terminal)
        terminal.result(card.to_json())
        return
    cards = [read_card(shipped) for shipped in shipped_names()]
    columns = ("name", "device", "runtime", "type", "fitted on", "within 10 %", "held out")
    terminal.table(columns, [_row(card) for card in cards], numbers=False)
    terminal.say(
        "  `netlathe predictors NAME` shows the card; --predictor takes a name in place of a file.", style="dim"
    )
    terminal.result({"predictors": [card.to_json() for card in cards]})


def _row(card: Card) -> tuple[str, ...]:
    setup, (split, metrics) = card.setup, next(iter(card.accuracy.items()))
    runtime = " ".join(filter(None, (setup.runtime, setup.runtime_version, setup.delegate)))
    return card.name, setup.device, runtime, setup.dtype, _counts(card), percent(metrics.within_10, 0), split


def _counts(card: Card) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in card.counts.items() if count)


def _print_card(card: Card, terminal: Terminal) -> None:
    terminal.step(card.name)
    details = "; ".join(f"{name}: {value}" for name, value in card.setup.details)
    for label, text in (
        ("", card.summary), ("Setup: ", f"{card.setup}" + (f" ({details})" if details else "")),
        ("Fitted on: ", _counts(card)), ("Source: ", card.source), ("License of the measurements: ", card.license),
    ):  # fmt: skip
        terminal.say(f"  {label}{text}")
    rows = [(split, *metric_cells(metrics)) for split, metrics in card.accuracy.items()]
    terminal.table(("held out", *METRIC_COLUMNS), rows)
    for limit in card.limits:
        terminal.say(f"  - {limit}")
