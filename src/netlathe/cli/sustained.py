"""A load that lasts, as tables: speed, heat, clocks and power over time, and who throttles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netlathe.cli.console import Terminal
from netlathe.words import duration, milliseconds, percent

if TYPE_CHECKING:
    from netlathe.profiler.sustained import SustainedMinute, SustainedRun


def show_sustained(run: SustainedRun, terminal: Terminal) -> None:
    """The speed, stretch after stretch, then each network at the start and at the end."""
    columns = ("from", "slower by", "°C", "MHz", "W")
    terminal.table(columns, [_cells(one) for one in run.minutes])
    begin, end = ("minute 1", f"minute {run.duration_s / 60:.0f}") if run.window_s == 60 else ("at first", "at last")
    first, last = run.rankings
    rows = [
        (
            one.name, milliseconds(one.first_ms), milliseconds(one.last_ms), percent(one.slower - 1),
            f"{first.index(one.name) + 1} to {last.index(one.name) + 1}",
            "-" if one.energy_mj is None else f"{one.energy_mj:.3g}",
        )
        for one in run.networks
    ]  # fmt: skip
    terminal.table(("network", f"ms, {begin}", f"ms, {end}", "slower by", "rank", "mJ"), rows)
    terminal.say(f"  {_verdict(run)}", style="dim")
    terminal.warn(_warnings(run))


def _cells(one: SustainedMinute) -> tuple[object, ...]:
    return (
        duration(one.at_s), percent(one.slower - 1), _number(one.temperature_c, 1), _number(one.frequency_mhz, 0),
        _number(one.power_w, 2),
    )  # fmt: skip


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _verdict(run: SustainedRun) -> str:
    first, last = run.rankings
    order = "the order stays" if first == last else "the order changes"
    settled = f", reached after {duration(run.settled_s)}" if run.is_settled else ""
    return f"Under load for {duration(run.duration_s)}: {percent(run.level - 1)} slower{settled}; {order}."


def _warnings(run: SustainedRun) -> list[str]:
    warnings = []
    if not run.is_settled:
        warnings.append("the speed still changed at the end; give the load longer (--sustained 30m)")
    if all(one.power_w is None for one in run.minutes):
        charged = any(one.conditions.get("powered") not in (None, "none") for one in run.points)
        if charged:
            warnings.append(
                "no energy is told, as the phone was charged meanwhile; reach it over Wi-Fi (tcp:HOST:PORT), unplugged"
            )
    return warnings
