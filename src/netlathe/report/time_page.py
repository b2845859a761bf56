"""Page of what `netlathe time` has found: latencies, and the load that lasted, if there was one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netlathe.report.load_parts import load_parts
from netlathe.report.load_words import load_verdict
from netlathe.report.page import ORIGIN, Facts, Notes, Page, Section, State, Table, Tile, made_facts, section
from netlathe.report.profile_page import setup_facts
from netlathe.timed import Timed, TimeReport
from netlathe.words import milliseconds, percent


def page_of_times(report: TimeReport, made: Mapping[str, Any]) -> Page:
    """The page of a report; `made` are the command and the versions."""
    several = len({one.device for one in report.timed}) > 1
    loads = [
        section(f"Under load{f' · {address}' if several else ''}", load_parts(load))
        for address, load in report.sustained.items()
    ]
    setups = dict.fromkeys(one.setup for one in report.timed if one.setup)
    sections = (
        section("Warnings", [Notes(report.warnings, are_warnings=True)] if report.warnings else []),
        section("Latencies", [_latencies(report)]),
        *loads,
        section("Without a latency", [_failed(report)]),
        *(Section(f"Setup{f' · {one}' if len(setups) > 1 else ''}", (Facts(setup_facts(one)),)) for one in setups),
        Section(ORIGIN, (Facts(made_facts(made)),)),
    )
    sentence, state = _verdict(report)
    title = ", ".join(dict.fromkeys(one.name for one in report.timed))
    return Page(title, "Latencies", sentence, state, _tiles(report), tuple(one for one in sections if one))


def _verdict(report: TimeReport) -> tuple[str, State]:
    timed = [one for one in report.timed if one.measurement]
    if not timed:
        return f"Nothing could be timed: {report.failure}.", "bad"
    places = ", ".join(dict.fromkeys(str(one.setup) for one in timed))
    sentences = [f"{len(timed)} of {len(report.timed)} latencies on {places}."]
    sentences += [load_verdict(load) for load in report.sustained.values()]
    return " ".join(sentences), "good" if report.is_stable else "bad"


def _tiles(report: TimeReport) -> tuple[Tile, ...]:
    found = [Tile("Latencies", str(sum(one.measurement is not None for one in report.timed)))]
    for load in report.sustained.values():
        heat = [one.temperature_c for one in load.minutes if one.temperature_c is not None]
        found.append(
            Tile("Slower under load", percent(load.level - 1), "settled" if load.is_settled else "not settled")
        )
        found += [Tile("Hottest", f"{max(heat):.1f} °C", f"from {heat[0]:.1f} °C")] if heat else []
    return tuple(found)


def _latencies(report: TimeReport) -> Table | None:
    timed = [one for one in report.timed if one.measurement]
    rows = tuple(_row(one) for one in timed)
    columns = ("network", "device", "ms", "90 % interval", "spread", "rounds", "stable", "predicted ms")
    caption = "Latencies at the end of the load" if report.sustained else "Latencies"
    return Table(columns, rows, caption, text=2) if rows else None


def _row(one: Timed) -> tuple[str, ...]:
    measured = one.measurement
    assert measured is not None
    interval = measured.interval_ms
    return (
        one.name, one.device, milliseconds(measured.latency_ms),
        "-" if interval is None else " to ".join(map(milliseconds, interval)), percent(measured.spread),
        str(len(measured.rounds)), "yes" if measured.is_stable else "no", milliseconds(one.predicted_ms),
    )  # fmt: skip


def _failed(report: TimeReport) -> Table | None:
    rows = tuple((one.name, one.device, one.error) for one in report.timed if one.measurement is None)
    return Table(("network", "device", "why"), rows, "What could not be timed", text=3) if rows else None
