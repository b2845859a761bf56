"""Page of what goes on: how far each run is, what it does now, its devices, its curves so far."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from netlathe.progress_files import Phase, Step, Work
from netlathe.report.learning_charts import draw_numbers
from netlathe.report.page import Chart, Facts, Meters, Notes, Page, Part, Section, State, Table, Tile, section
from netlathe.report.profile_page import chart_of_rounds
from netlathe.report.watch_content import Unit, Watched
from netlathe.words import at_time, percent, span

_TO_COME = {
    "search": ("search", "choice", "training", "export", "run"),
    "compression": ("importance", "widths", "export", "compression"),
}
"""Phases that every run has, by its kind, as far as it has not told its own."""
_NAMES = {"run": "report", "compression": "report"}
"""Words for phases that are called after their records."""
_WORDS = {"working": "goes on", "dead": "not running", "stopped": "stopped", "failed": "failed", "finished": "finished"}
_MOST_CURVES = 10
_MOST_DEVICES, _MOST_TEMPERATURES = 6, 2
"""Devices whose temperatures are drawn, and how many of each."""
_SILENT_S = 600.0
"""Time without a word after which that is told."""


def page_of_watched(title: str, found: Sequence[Watched], now_s: float) -> Page:
    """The page of what is in a folder, at that time (seconds since the epoch)."""
    if len(found) == 1:
        one = found[0]
        return Page(
            title, "Watched", sentence(one, now_s), _state(found), _tiles(one, now_s), _sections(one, "", now_s)
        )
    counts = {word: sum(one.standing == word for one in found) for word in _WORDS}
    told = [f"{count} {_WORDS[word]}" for word, count in counts.items() if count]
    tiles = (
        Tile("Go on", f"{counts['working']} of {len(found)}"),
        Tile("Finished", str(counts["finished"])),
        Tile("Not running", str(counts["dead"] + counts["stopped"] + counts["failed"])),
        _as_of(now_s),
    )
    going, others = ([one for one in found if one.goes_on == which] for which in (True, False))
    meters = tuple((one.name, _share(one.work) if one.work else None, sentence(one, now_s)) for one in going)
    facts = tuple((one.name, f"{_WORDS[one.standing]}, a {one.kind}. {sentence(one, now_s)}") for one in others)
    overview = section("All", [Meters(meters) if meters else None, Facts(facts) if facts else None])
    single = [part for one in found if one.work for part in _sections(one, f" · {one.name}", now_s)]
    return Page(title, "Watched", f"{', '.join(told)}.", _state(found), tiles, tuple(filter(None, (overview, *single))))


def _state(found: Sequence[Watched]) -> State:
    if any(one.standing not in ("working", "finished") for one in found):
        return "bad"
    return "good" if all(one.standing == "finished" for one in found) else "open"


def sentence(one: Watched, now_s: float) -> str:
    """Its state in a sentence."""
    work = one.work
    if work is None:
        return one.verdict
    again = f"; the same command goes on: {work.command}" if work.command else "; the same call goes on"
    if one.standing == "dead":
        since = f"{at_time(work.at, now_s)} ({span(now_s - work.at)} ago)"
        return f"Not running since {since}, and it did not say why, as after a kill or a power cut{again}"
    if one.standing == "stopped":
        return f"Stopped at {at_time(work.at, now_s)}{again}"
    if one.standing == "failed":
        return f"Failed at {at_time(work.at, now_s)}: {work.message or 'without a word'}"
    silent = now_s - work.at
    unheard = f"; the last word is {span(silent)} old, from {work.host}" if silent > _SILENT_S else ""
    return f"{_present(work, now_s)}{unheard}."


def _present(work: Work, now_s: float) -> str:
    """Words on the present step, and how far that is."""
    if work.sides:
        left = _left_words(_left_s(work, now_s))
        return f"Measuring, {percent(_share(work), 0)} done{left}"
    if work.rows and work.below:
        return f"Measuring: {work.below}"
    step = work.step
    if step is None:
        phase = next((one.name for one in reversed(work.phases) if one.until is None), "")
        return f"Working on the {_phase_name(phase)}" if phase else "Beginning"
    words = f"{step.label[:1].upper()}{step.label[1:]}"
    if not step.total:
        return f"{words}, for {span(now_s - step.since)}{_whole_words(work, now_s)}"
    how_far = f"{step.done:,} of {step.total:,} {step.unit}".strip()
    return f"{words}: {how_far}{_left_words(_left_s(work, now_s))}{_whole_words(work, now_s)}"


def _whole_words(work: Work, now_s: float) -> str:
    """Words on the time left of the whole run, where it is more than that of the step."""
    left_s, uncounted = _whole_left(work, now_s)
    if not work.plan or left_s is None or left_s == _left_s(work, now_s):
        return ""
    return f"; about {span(_rough(left_s))} of the whole run{uncounted and f', {uncounted}'}"


def _rough(left_s: float) -> float:
    """A time to the minute, or to ten seconds where it is short: more than that is not known of phases to come."""
    unit_s = 60 if left_s >= 120 else 10
    return unit_s * round(left_s / unit_s)


def _whole_left(work: Work, now_s: float) -> tuple[float | None, str]:
    """Time left of all of it, from now on, and words on what is not counted in it."""
    left = work.left()
    names = list(dict.fromkeys(_phase_name(name) for name in left.uncounted))
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    seconds = None if left.seconds is None else max(0.0, left.seconds - (now_s - work.at))
    return seconds, f"without {listed}, whose time nothing tells" if names else ""


def _left_words(left_s: float | None) -> str:
    return "" if left_s is None else f", about {span(left_s)} left"


def _share(work: Work) -> float | None:
    """Share done of the step that is under way, or of the measurements of all devices."""
    if work.sides:
        return sum(one.share for one in work.sides) / len(work.sides)
    step = work.step
    return min(1.0, step.done / step.total) if step and step.total else None


def _left_s(work: Work, now_s: float) -> float | None:
    """Time left of that, from now on."""
    left = work.present_left_s()
    return None if left is None else max(0.0, left - (now_s - work.at))


def _as_of(now_s: float) -> Tile:
    time, _, zone = at_time(now_s, now_s).partition(" ")
    return Tile("As of", time, zone)


def _tiles(one: Watched, now_s: float) -> tuple[Tile, ...]:
    work = one.work
    if work is None:
        return (Tile("State", _WORDS[one.standing]), _as_of(now_s))
    until = now_s if one.goes_on else work.at
    state = Tile("State", _WORDS[one.standing])
    share, left = _share(work), _left_s(work, now_s)
    step = work.step.label if work.step else "of all that is to be measured"
    tiles = [Tile("Done", percent(share, 0), step)] if share is not None and one.goes_on else [state]
    if left is not None and one.goes_on:
        tiles.append(Tile("Left of this" if work.plan else "Left", span(left), "at the speed so far"))
    if work.plan and one.goes_on:
        whole, uncounted = _whole_left(work, now_s)
        note = uncounted if whole is None else ", ".join(filter(None, ("about", uncounted)))
        tiles.append(Tile("Left of all", "unknown" if whole is None else span(_rough(whole)), note))
    done = sum(phase.until is not None for phase in work.phases)
    if one.kind != "profile":
        tiles.append(Tile("Phases done", f"{done} of {max(len(_phases(work)), done)}"))
    return (*tiles, Tile("Runs for", span(until - work.since), f"since {at_time(work.since, now_s)}"), _as_of(now_s))


def _sections(one: Watched, ending: str, now_s: float) -> tuple[Section, ...]:
    work = one.work
    if work is None:
        return (Section(f"Where it is{ending}", (Facts((("path", str(one.path)),)),)),)
    warnings = Notes(tuple(work.warnings), are_warnings=True) if work.warnings else None
    found = (
        section(
            f"{'Now' if one.goes_on else 'So far'}{ending}",
            [*_meters(one, now_s), _phase_table(one, now_s)],
            work.title.replace("\n", " "),
        ),
        section(f"Devices{ending}", [_table(work), _unit_table(one.units, now_s), *_heat(one.units)]),
        section(f"Curves so far{ending}", [_curves(work)]),
        section(f"Warnings{ending}", [warnings]),
        section(f"Told so far{ending}", [Notes(tuple(work.notes)) if work.notes else None]),
        section(f"Where this comes from{ending}", [_facts(one, work, now_s)]),
    )
    return tuple(part for part in found if part)


def _facts(one: Watched, work: Work, now_s: float) -> Facts:
    rows = [
        ("path", str(one.path)),
        ("command", work.command or "a call from Python"),
        ("begun", at_time(work.since, now_s)),
        ("last word", at_time(work.at, now_s)),
        ("process", f"{work.process} on {work.host}"),
    ]
    return Facts(tuple(rows))


def _meters(one: Watched, now_s: float) -> list[Part | None]:
    work = one.work
    if work is None or not one.goes_on:
        return []
    late = now_s - work.at
    sides = tuple(
        (
            side.label,
            side.share,
            ", ".join(
                filter(
                    None,
                    (
                        percent(side.share, 0),
                        "" if side.left_s is None else f"{span(side.left_s - late)} left",
                        side.note,
                    ),
                )
            ),
        )
        for side in work.sides
    )
    step = () if work.step is None else (_step_row(work.step, work, now_s),)
    return [Meters((*step, *sides))] if step or sides else []


def _step_row(step: Step, work: Work, now_s: float) -> tuple[str, float | None, str]:
    if not step.total:
        return step.label, None, f"for {span(now_s - step.since)}"
    left = step.left_s(work.at)
    left = None if left is None else left - (now_s - work.at)
    told = f"{step.done:,} of {step.total:,} {step.unit}{_left_words(left)}"
    return step.label, min(1.0, step.done / step.total), f"{told}{f'; {step.note}' if step.note else ''}"


def _phases(work: Work) -> list[tuple[str, Phase | None]]:
    """Phases that were begun, and after them those that every run has; of a curve's runs, those that were begun."""
    told: list[tuple[str, Phase | None]] = [(one.name, one) for one in work.phases]
    if work.plan:
        begun = {one.name for one in work.phases}
        return told + [(name, None) for name in work.plan if name not in begun]
    if any("/" in one.name for one in work.phases):
        return told
    names = {one.name for one in work.phases}
    return told + [(name, None) for name in _TO_COME.get(work.kind, ()) if name not in names]


def _phase_name(name: str) -> str:
    series, slash, own = name.rpartition("/")
    return f"{series}{slash}{_NAMES.get(own, own)}"


def _phase_table(one: Watched, now_s: float) -> Table | None:
    work = one.work
    if work is None or work.kind == "profile":
        return None
    rows = tuple((_phase_name(name), *_phase_cells(phase, one, now_s)) for name, phase in _phases(work))
    current = frozenset(index for index, (_, phase) in enumerate(_phases(work)) if phase and phase.until is None)
    return Table(("phase", "state", "time"), rows, "Phases", text=2, marked=current) if rows else None


def _phase_cells(phase: Phase | None, one: Watched, now_s: float) -> tuple[str, str]:
    """State of a phase, and the time that it took."""
    if phase is None:
        return "to come", ""
    if phase.until is not None:
        return "done", span(phase.until - phase.since) if phase.until > phase.since else "earlier"
    until_s = now_s if one.goes_on or one.work is None else one.work.at
    return ("now" if one.goes_on else "begun"), span(until_s - phase.since)


def _table(work: Work) -> Table | None:
    """Many things side by side, as the run tells them: the phones of a pool, with their states."""
    columns = tuple(column or "now" for column in work.columns)
    rows = tuple(tuple(row) for row in work.rows)
    loud = frozenset(index for index, row in enumerate(rows) if len(row) > 1 and row[1] in ("quarantined", "out"))
    return Table(columns, rows, work.below or "Devices", text=2, marked=loud) if rows else None


def _unit_table(units: Sequence[Unit], now_s: float) -> Table | None:
    if not units:
        return None
    rows = tuple(
        (
            one.name,
            str(one.rounds),
            str(one.graphs),
            str(one.failed),
            str(one.leased),
            "-" if one.latest is None else f"{one.latest.drift:.3f}",
            ", ".join(f"{place} {value:.1f} °C" for place, value in one.temperatures.items()) or "-",
            "-" if one.latest is None else at_time(one.latest.started_at, now_s),
        )
        for one in units
    )
    columns = ("device", "rounds", "graphs", "failed", "leased", "drift", "temperatures", "latest round")
    return Table(columns, rows, "What the profile holds of each device, earlier calls included")


def _heat(units: Sequence[Unit]) -> list[Part | None]:
    """Charts of the devices that tell temperatures, over their latest rounds."""
    told = [one for one in units if one.temperatures][:_MOST_DEVICES]
    title = "Drift and temperatures of {}, its latest {} rounds"
    return [chart_of_rounds(one.log, title.format(one.name, len(one.log)), most=1 + _MOST_TEMPERATURES) for one in told]


def _curves(work: Work) -> Chart | None:
    told = [(name, tuple(points)) for name, points in work.numbers.items() if points]
    if not told:
        return None
    latest = told[-1][0].rpartition("/")[0]
    told.sort(key=lambda one: one[0].rpartition("/")[0] != latest)  # first what moves now
    told = told[:_MOST_CURVES]
    ends = "; ".join(f"{name} {points[-1][1]:.4g} at step {points[-1][0]:.0f}" for name, points in told)
    rows = -(-len(told) // 2)
    return Chart(
        "Numbers by step",
        f"The latest: {ends}.",
        partial(draw_numbers, curves=tuple(told)),
        0.05 + 0.24 * rows,
        0.05 + 0.55 * len(told),
    )
