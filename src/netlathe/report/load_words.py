"""A load that lasts as rows of words, for a terminal and for pages."""

from __future__ import annotations

from netlathe.archspace.sustained import SustainedMinute, SustainedRun
from netlathe.words import duration, milliseconds, percent

STRETCH_COLUMNS = ("from", "slower by", "°C", "MHz", "W")

Row = tuple[str, ...]


def stretch_rows(run: SustainedRun) -> list[Row]:
    """Stretch after stretch: speed, heat, clocks and power."""
    return [_stretch_row(one) for one in run.minutes]


def _stretch_row(one: SustainedMinute) -> Row:
    return (
        duration(one.at_s), percent(one.slower - 1), _number(one.temperature_c, ".1f"),
        _number(one.frequency_mhz, ".0f"), _number(one.power_w, ".2f"),
    )  # fmt: skip


def network_columns(run: SustainedRun) -> Row:
    """Columns of the networks' rows."""
    begin, end = ("minute 1", f"minute {run.duration_s / 60:.0f}") if run.window_s == 60 else ("at first", "at last")
    return ("network", f"ms, {begin}", f"ms, {end}", "slower by", "rank", "mJ")


def network_rows(run: SustainedRun) -> list[Row]:
    """Each network in the first and in the last stretch."""
    first, last = run.rankings
    return [
        (
            one.name, milliseconds(one.first_ms), milliseconds(one.last_ms), percent(one.slower - 1),
            f"{first.index(one.name) + 1} to {last.index(one.name) + 1}", _number(one.energy_mj, ".3g"),
        )
        for one in run.networks
    ]  # fmt: skip


def load_verdict(run: SustainedRun) -> str:
    """How much slower networks got, how soon, and whether their order changed, in a sentence."""
    first, last = run.rankings
    order = "the order stays" if first == last else "the order changes"
    settled = f", reached after {duration(run.settled_s)}" if run.is_settled else ""
    cut = " (interrupted)" if run.is_interrupted else ""
    return f"Under load for {duration(run.duration_s)}{cut}: {percent(run.level - 1)} slower{settled}; {order}."


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
