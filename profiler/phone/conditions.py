"""Conditions of a phone, as conditions.sh tells them: how hot, fast and busy it is."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

COOL_C = 35.0
"""Skin temperature below which there is no reason to wait: makers' own lowest limits are 36 to 50 degC, as phones tell
them in `dumpsys thermalservice`."""

WARMER_K = 2.0
"""Rise of the skin's temperature since it last came to rest which says that the phone does not get rid of its heat."""

FALL_K, SETTLE_S = 0.5, 120.0
"""A skin that does not fall by so much within this time is at rest. It lags behind the processor by a minute or so."""

REBOOT_SLACK_S = 5.0
"""Difference of two readings of a clock that is no reboot: they are a moment apart, and some phones round them."""

_STATUS_NAMES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_TEXTS = ("freq_mhz", "capped", "powered")
"""Words that stay text, even where they look like a number: a list of one core."""


@dataclass(frozen=True)
class Conditions:
    """One reading of a phone's conditions. Raises nothing: what a phone does not tell is missing."""

    values: Mapping[str, float | str] = field(default_factory=dict)
    """Units stand in the names: status, cpu_c, gpu_c, battery_c, skin_c, freq_mhz and capped (texts: a value per
    core; core:MHz of those that may not run as fast as they can), load1, battery (%), voltage_mv and current_ua of the
    battery (a discharge is negative, or positive, as its maker has it), powered, uptime_s."""

    @classmethod
    def parse(cls, words: str) -> Conditions:
        """Reads 'key=value key=value'; words of another form are left out."""
        pairs = (word.partition("=") for word in words.split())
        values = {key: _value(key, text) for key, _, text in pairs if key and text}
        return cls({key: value for key, value in values.items() if isinstance(value, str) or math.isfinite(value)})

    def number(self, name: str) -> float | None:
        """A value that is a number, or None."""
        value = self.values.get(name)
        return value if isinstance(value, float) else None

    @property
    def caps_mhz(self) -> dict[int, float]:
        """The highest allowed frequency of cores that could do more, by core."""
        pairs = (entry.partition(":") for entry in str(self.values.get("capped", "")).split(","))
        return {int(core): float(mhz) for core, _, mhz in pairs if core.isdigit() and mhz.isdigit()}

    def status_reason(self, limit_status: int = 0) -> str | None:
        """The thermal status where it is above the limit, or None."""
        status = self.number("status")
        if status is None or status <= limit_status:
            return None
        name = _STATUS_NAMES[int(status)] if int(status) < len(_STATUS_NAMES) else "unknown"
        return f"thermal status {status:.0f} ({name})"

    def hot_reason(self, start: Conditions, limit_status: int = 0, cores: Collection[int] | None = None) -> str | None:
        """Reason why what is timed now must not count, or None when it may: a thermal status above the limit, or a cap
        on the frequency of one of these cores (None: of any) that was not there at the start. A warm skin alone is no
        reason: the clocks are full."""
        return self.status_reason(limit_status) or self.capped_reason(start, cores)

    def capped_reason(self, start: Conditions, cores: Collection[int] | None = None) -> str | None:
        """Reason that names the cores that are capped more than they were at the start, or None."""
        before = start.caps_mhz
        found = [
            f"core {core} at {mhz:.0f} MHz"
            for core, mhz in sorted(self.caps_mhz.items())
            if mhz < before.get(core, math.inf) and (cores is None or core in cores)
        ]
        return f"frequency capped: {', '.join(found)}" if found else None

    def reboot_reason(self, start: Conditions) -> str | None:
        """Reason that the phone has rebooted since the start, or None."""
        now_s, start_s = self.number("uptime_s"), start.number("uptime_s")
        if now_s is None or start_s is None or now_s > start_s - REBOOT_SLACK_S:
            return None
        return f"the phone rebooted {now_s:.0f} s ago"


class SkinWatch:
    """Judgement whether a phone should cool down, by its skin: as long as it is warm and waiting makes it cooler.

    No first reading is a measure, for a phone may be plugged in cold or hot: one from a cold room warms up once and for
    all, one from a charger has yet to cool down. Nor is any temperature too hot in itself, as some makers call a sensor
    beside the processor skin, and the room may be hot: what stays warm at rest is measured as it is, and the thermal
    status and the frequency caps judge each round.
    """

    def __init__(self) -> None:
        self.rest_c: float | None = None
        """Temperature at which a warm skin came to rest last; None as long as it never did."""
        self._low_c = math.inf
        self._since_s = 0.0

    @property
    def is_cooling(self) -> bool:
        """Whether the last reading was a reason to wait. Such a wait ends: it lasts as long as the skin falls."""
        return self._low_c < math.inf

    def reason(self, skin_c: float | None, now_s: float) -> str | None:
        """Reason to wait and read again, or None. `now_s` is any steady clock's."""
        limit_c = max(COOL_C, (self.rest_c or -math.inf) + WARMER_K)
        if skin_c is None or skin_c < limit_c:
            self._low_c = math.inf
            return None
        if skin_c <= self._low_c - FALL_K:
            self._low_c, self._since_s = skin_c, now_s
        if now_s - self._since_s < SETTLE_S:
            return f"skin at {skin_c:.1f} degC, needs to be below {limit_c:.1f} degC or to come to rest"
        self.rest_c, self._low_c = skin_c, math.inf
        return None


def _value(key: str, text: str) -> float | str:
    if key in _TEXTS:
        return text
    try:
        return float(text)
    except ValueError:
        return text
