"""Parts of a page on a load that lasts: its course over time, and each network at its begin and its end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from netlathe.archspace.sustained import SustainedMinute, SustainedPoint, SustainedRun, frequency_mhz, temperature_c
from netlathe.report.load_charts import LoadCourse, draw_load
from netlathe.report.load_words import STRETCH_COLUMNS, load_verdict, network_columns, network_rows, stretch_rows
from netlathe.report.page import Chart, Table
from netlathe.words import duration

_Visited = Callable[[SustainedPoint], float | None]
_Mean = Callable[[SustainedMinute], float | None]


def load_parts(run: SustainedRun) -> tuple[Chart, Table]:
    """The chart of a load with its numbers, and the table of its networks."""
    networks = Table(network_columns(run), tuple(network_rows(run)), "Networks at the begin and at the end of the load")
    return _course(run), networks


def _course(run: SustainedRun) -> Chart:
    first_ms = {one.name: one.first_ms for one in run.networks}

    def slower(one: SustainedPoint) -> float | None:
        known_ms = first_ms.get(run.names[one.key])
        return None if known_ms is None else 100 * (one.latency_ms / known_ms - 1)

    courses = [
        _course_of(run, "slower than at first, %", slower, lambda one: 100 * (one.slower - 1), usual=0.0),
        _course_of(run, "temperature, °C", lambda one: temperature_c(one.conditions), lambda one: one.temperature_c),
        _course_of(run, "cores' clocks, MHz", lambda one: frequency_mhz(one.conditions), lambda one: one.frequency_mhz),
        _course_of(run, "power, W", lambda one: one.power_w, lambda one: one.power_w),
    ]
    told = [one for one in courses if one.stretches]
    caption = f"Means of stretches of {duration(run.window_s)}"
    stretches = Table(STRETCH_COLUMNS, tuple(stretch_rows(run)), caption)
    return Chart(
        "Speed, heat, clocks and power under a load that lasts", load_verdict(run), partial(draw_load, courses=told),
        0.1 + 0.18 * len(told), 0.2 + 0.4 * len(told), stretches,
    )  # fmt: skip


def _course_of(run: SustainedRun, name: str, visited: _Visited, mean: _Mean, usual: float | None = None) -> LoadCourse:
    visits = [(one.at_s / 60, value) for one in run.points if (value := visited(one)) is not None]
    middle_s = run.window_s / 2
    stretches = [((one.at_s + middle_s) / 60, value) for one in run.minutes if (value := mean(one)) is not None]
    return LoadCourse(name, tuple(visits), tuple(stretches), usual)
