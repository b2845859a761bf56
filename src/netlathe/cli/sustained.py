"""A load that lasts, as tables: speed, heat, clocks and power over time, and who throttles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netlathe.cli.console import Terminal
from netlathe.report.load_words import STRETCH_COLUMNS, load_verdict, network_columns, network_rows, stretch_rows

if TYPE_CHECKING:
    from netlathe.archspace.sustained import SustainedRun


def show_sustained(run: SustainedRun, terminal: Terminal) -> None:
    """The speed, stretch after stretch, then each network at the start and at the end."""
    terminal.table(STRETCH_COLUMNS, stretch_rows(run))
    terminal.table(network_columns(run), network_rows(run))
    terminal.say(f"  {load_verdict(run)}", style="dim")
    terminal.warn(_warnings(run))


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
