"""Numbers as people read them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.proportions import wilson_interval

_UNITS_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


_PASSWORD = re.compile(r"(?<=://)[^/@\s]*@")


def without_passwords(text: str) -> str:
    """A command line without the users and passwords of its addresses."""
    return _PASSWORD.sub("…@", text)


def percent(share: float | None, digits: int = 1) -> str:
    """0.123 -> '12.3 %'; a dash when unknown."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def points(value: float | None) -> str:
    """1.234 -> '1.23'; a dash when unknown."""
    return "-" if value is None else f"{value:.2f}"


def percent_within(share: float | None, images: int, digits: int = 1) -> str:
    """0.981 of 360 images -> '98.1 % ± 1.5': the share, and half of its 95 % interval (Wilson's) in points; a dash when
    unknown."""
    if share is None or images < 1:
        return percent(share, digits)
    low, high = wilson_interval(round(share * images), images)
    return f"{percent(share, digits)} ± {50 * (high - low):.{digits}f}"


def milliseconds(value: float | None) -> str:
    """Three significant digits; a dash when unknown."""
    if value is None:
        return "-"
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def millions(value: float) -> str:
    """1234567 -> '1.23 M', 1234 -> '1.2 K'."""
    return f"{value / 1e6:.2f} M" if value >= 1e5 else f"{value / 1e3:.1f} K"


def duration(seconds: float) -> str:
    """900 -> '15 min', 90 -> '90 s'."""
    return f"{seconds / 60:g} min" if seconds >= 60 and seconds % 60 == 0 else f"{seconds:.3g} s"


def span(seconds: float) -> str:
    """42 -> '42 s', 75 -> '1 min 15 s', 960 -> '16 min', 3700 -> '1 h 1 min', 200000 -> '2 d 7 h'."""
    whole = max(0, round(seconds))
    for large, small, one, other in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large} {one}" + (f" {rest} {other}" if rest and whole < 10 * large else "")
    return f"{whole} s"


def at_time(seconds: float, now_s: float) -> str:
    """A time in seconds since the epoch, as clocks here show it: '06:31:05 UTC', on another day with its date; a dash
    for what no calendar has."""
    if not 0 <= seconds < 2.5e11:
        return "-"
    found, now = (datetime.fromtimestamp(one).astimezone() for one in (seconds, now_s))
    return found.strftime("%H:%M:%S %Z" if found.date() == now.date() else "%Y-%m-%d %H:%M %Z")


def read_duration_s(text: str) -> float:
    """'15m' -> 900, '90s' -> 90, '1h' -> 3600. Raises NetlatheError for other words, and for less than a second."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h)\s*", text)
    seconds = float(found[1]) * _UNITS_S[found[2]] if found else 0.0
    if not 1 <= seconds <= 24 * 3600:
        raise NetlatheError(f"{text!r} is not a duration from 1s to 24h; write 90s, 15m or 1h")
    return seconds


def first_names(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
