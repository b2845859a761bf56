"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def percent(share: float | None, digits: int = 1) -> str:
    """0.123 -> '12.3 %'; a dash when unknown."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def milliseconds(value: float | None) -> str:
    """Three significant digits; a dash when unknown."""
    if value is None:
        return "-"
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def millions(value: float) -> str:
    """1234567 -> '1.23 M', 1234 -> '1.2 K'."""
    return f"{value / 1e6:.2f} M" if value >= 1e5 else f"{value / 1e3:.1f} K"


def first_names(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
