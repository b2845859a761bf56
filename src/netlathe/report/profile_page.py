"""Page of a profile: records by stability, the machine over time, what was measured again, and every record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from netlathe.archspace.profile_file import RoundConditions
from netlathe.archspace.records import STABLE_SPREAD, LatencyRecord, Setup
from netlathe.profiler.summary import machine_warnings, quality_warnings
from netlathe.report.load_parts import load_parts
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
from netlathe.report.profile_charts import Course, RecordDot, draw_courses, draw_stability
from netlathe.report.profile_content import ProfileContent, SetupContent
from netlathe.words import milliseconds, percent

_UNITS = {"_c": "°C", "_mhz": "MHz", "_khz": "kHz", "_pct": "%", "_percent": "%", "_mb": "MB", "_ma": "mA", "_mv": "mV"}
_MOST_COURSES = 6
_COURSES = "Drift, temperatures and load, round by round"
_MOST_ROWS = 2000
_MOST_LOADS = 3


def page_of_profile(content: ProfileContent) -> Page:
    """The page of a profile, with sections for each of its setups."""
    several = len(content.setups) > 1
    sections: list[Section] = []
    for one in content.setups:
        sections += _sections(one, f" · {one.setup.device} {one.setup.key[:8]}" if several else "")
    sentence, state = verdict_of_profile(content)
    sections.append(_origin(content))
    return Page(content.path.name, "Profile", sentence, state, tuple(_tiles(content)), tuple(sections))


def _origin(content: ProfileContent) -> Section:
    """The file, the versions of the latest call that measured into it, and all such calls."""
    facts = (("file", f"{content.path} (SQLite)"), *(made_facts(content.made[-1][1]) if content.made else ()))
    rows = tuple((_day(at), str(made.get("netlathe", "")), _command(made)) for at, made in content.made)
    calls = Table(("since", "netlathe", "command"), rows, "Calls that measured into it", text=3)
    return Section(ORIGIN, (Facts(facts), calls) if len(rows) > 1 else (Facts(facts),))


def _command(made: Mapping[str, Any]) -> str:
    return str(made.get("command") or "a call from Python")


def verdict_of_profile(content: ProfileContent) -> tuple[str, State]:
    """One sentence on each setup, and whether most of it is stable."""
    sentences = []
    for one in content.setups:
        measured, unstable, failed = len(one.measured), len(one.unstable), len(one.failed)
        noise = one.noise_floor
        told = f"{measured} latencies on {one.setup}"
        told += f", {measured - unstable} of them stable" if measured else ""
        told += f"; two halves of a measurement differ by {percent(noise)} (median)" if noise is not None else ""
        told += f"; {failed} have no latency" if failed else ""
        sentences.append(f"{told}.")
    if not sentences:
        return "Nothing is measured yet.", "open"
    bad = any(len(one.unstable) > 0.1 * max(1, len(one.measured)) or not one.measured for one in content.setups)
    return " ".join(sentences), "bad" if bad else "good"


def _tiles(content: ProfileContent) -> list[Tile]:
    if len(content.setups) != 1:
        return [Tile("Setups", str(len(content.setups)))]
    one = content.setups[0]
    latencies = [record.latency_ms for record in one.measured]
    drifts = [entry.drift for entry in one.log if "redone" not in entry.conditions]
    tiles = [Tile("Records", str(len(one.records)), _kinds(one.records))]
    if latencies:
        tiles.append(
            Tile("Slowest", f"{milliseconds(max(latencies))} ms", f"fastest {milliseconds(min(latencies))} ms")
        )
    stable = len(one.measured) - len(one.unstable)
    tiles += [Tile("Stable", f"{stable} of {len(one.measured)}"), Tile("Noise floor", percent(one.noise_floor))]
    redone = sum(count for _, count in one.redone)
    tiles.append(Tile("Rounds", str(len(one.log)), f"{redone} measured again" if redone else ""))
    if drifts:
        tiles.append(Tile("Drift", f"{min(drifts):.2f} to {max(drifts):.2f}", "1: the usual speed"))
    return tiles


def _kinds(records: Sequence[LatencyRecord]) -> str:
    networks = sum(record.kind == "network" for record in records)
    return f"{len(records) - networks} blocks, {networks} networks"


def _sections(one: SetupContent, ending: str) -> list[Section]:
    warnings = [*quality_warnings(one.records), *machine_warnings([r for r in one.log if "redone" not in r.conditions])]
    found = (
        section(f"Warnings{ending}", [Notes(tuple(warnings), are_warnings=True)] if warnings else []),
        section(f"Stability{ending}", [_stability(one)]),
        *_loads(one, ending),
        section(f"The machine meanwhile{ending}", [chart_of_rounds(one.log, _COURSES)]),
        section(f"Measured again{ending}", _again(one)),
        section(f"Without a latency{ending}", [_failed(one)]),
        section(f"Records{ending}", [_records(one)]),
        section(
            f"Setup{ending}",
            [Facts(setup_facts(one.setup)), Facts((("anchors", ", ".join(one.anchors)),)) if one.anchors else None],
        ),
    )
    return [one for one in found if one]


def _stability(one: SetupContent) -> Chart | None:
    dots = [
        RecordDot(record.name, record.kind, record.latency_ms, measured.relative_error, measured.is_stable)
        for record in one.records
        if (measured := record.measurement) and len(measured.rounds) > 1
    ]
    if not dots:
        return None
    return Chart(
        "Records by latency and standard error",
        f"{sum(dot.is_stable for dot in dots)} of {len(dots)} records are stable: their rounds agree within "
        f"{percent(STABLE_SPREAD, 0)}.",
        partial(draw_stability, records=dots, threshold=STABLE_SPREAD),
    )


def chart_of_rounds(log: Sequence[RoundConditions], title: str, *, most: int = _MOST_COURSES) -> Chart | None:
    """Drift and what a device told of itself over the rounds, temperatures first, at most so many quantities; None for
    fewer than two rounds."""
    if len(log) < 2:
        return None
    numbers = [
        name
        for name in dict.fromkeys(name for entry in log for name in entry.conditions)
        if any(isinstance(entry.conditions.get(name), int | float) for entry in log)
    ]
    temperatures = [name for name in numbers if name.endswith("_c")]
    chosen = [*temperatures, *(name for name in numbers if name not in temperatures)][: most - 1]
    courses = [Course("drift: slowness by the anchors", "", tuple(entry.drift for entry in log), 1.0)]
    courses += [Course(*_named(name), tuple(_number(entry.conditions.get(name)) for entry in log)) for name in chosen]
    drifts = [entry.drift for entry in log]
    summary = f"Over {len(log)} rounds, drift was {min(drifts):.3f} to {max(drifts):.3f}"
    for name in temperatures:
        values = [value for entry in log if (value := _number(entry.conditions.get(name))) is not None]
        summary += f", {_named(name)[0]} {min(values):.1f} to {max(values):.1f} °C"
    tall = len(courses)
    return Chart(
        title,
        f"{summary}.",
        partial(
            draw_courses,
            starts=[entry.started_at for entry in log],
            courses=courses,
            redone=["redone" in entry.conditions for entry in log],
        ),
        0.1 + 0.16 * tall,
        0.2 + 0.36 * tall,
    )


def _loads(one: SetupContent, ending: str) -> list[Section | None]:
    """A section for each of the latest loads that heated the device before its rounds."""
    latest = one.loads[-_MOST_LOADS:]
    return [section(f"Under load since {_day(load.started_at)}{ending}", load_parts(load)) for load in reversed(latest)]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _named(name: str) -> tuple[str, str]:
    """'battery_c' -> ('battery', '°C'); 'other_cpus' -> ('other cpus', '')."""
    for ending, unit in _UNITS.items():
        if name.endswith(ending):
            return name.removesuffix(ending).replace("_", " "), unit
    return name.replace("_", " "), ""


def _again(one: SetupContent) -> list[Part | None]:
    rounds = Table(
        ("reason", "rounds"),
        tuple((reason, str(count)) for reason, count in one.redone),
        "Rounds that did not count, and were measured again",
    )
    rows = tuple(
        (name, told.what, _day(told.since), "done" if told.is_done else "begun", told.message)
        for name, told in one.again
    )
    records = Table(("record", "because it was", "since", "", "note"), rows, "Records that were measured again", text=5)
    words = f"{one.discounted} visits no longer count, or not yet; their samples are kept."
    return [rounds if one.redone else None, records if rows else None, Notes((words,)) if one.discounted else None]


def _day(seconds: float) -> str:
    if not 0 <= seconds < 2.5e11:  # a damaged file's
        return "-"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _failed(one: SetupContent) -> Table | None:
    rows = tuple((record.name, str(record.status), record.message) for record in one.failed)
    return Table(("record", "outcome", "why"), rows, f"{len(rows)} records without a latency", text=3) if rows else None


def _records(one: SetupContent) -> Table | None:
    measured = sorted(one.measured, key=lambda record: -record.latency_ms)[:_MOST_ROWS]
    rows = tuple(_row(record) for record in measured)
    caption = (
        f"The {len(rows)} longest of {len(one.measured)} records" if len(rows) < len(one.measured) else "All records"
    )
    marked = frozenset(index for index, record in enumerate(measured) if record in one.unstable)
    columns = ("record", "kind", "ms", "90 % interval", "spread", "rounds", "stable")
    return Table(columns, rows, caption, 2, marked, is_folded=True) if rows else None


def _row(record: LatencyRecord) -> tuple[str, ...]:
    measured = record.measurement
    assert measured is not None
    ends = measured.interval_ms
    interval = "-" if ends is None else f"{milliseconds(ends[0])} to {milliseconds(ends[1])}"
    return (
        record.name,
        record.kind,
        milliseconds(measured.latency_ms),
        interval,
        percent(measured.spread),
        str(len(measured.rounds)),
        "yes" if measured.is_stable else "no",
    )


def setup_facts(setup: Setup) -> tuple[tuple[str, str], ...]:
    """Facts of a setup."""
    rows = [
        (name.replace("_", " "), str(value)) for name, value in setup.to_json().items() if name != "details" and value
    ]
    return (*rows, *((name.replace("_", " "), value) for name, value in setup.details), ("key", setup.key))
