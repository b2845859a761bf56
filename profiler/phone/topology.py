"""A phone's cores by speed, and masks that keep a program on some of them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from netlathe.profiler.errors import DeviceError
from netlathe.profiler.phone.description import PhoneDescription

NAMES = ("big", "mid", "little", "all")
"""Names of groups of cores: the fastest, those between, the slowest, and all of them."""


def core_groups(description: PhoneDescription) -> dict[int | None, list[int]]:
    """Core numbers by the highest frequency in kHz, slowest first; those that do not tell theirs last, under None."""
    groups: dict[int | None, list[int]] = {}
    for core in description.cores:
        groups.setdefault(core.max_khz, []).append(core.number)
    return dict(sorted(groups.items(), key=lambda group: (group[0] is None, group[0] or 0)))


def core_summary(description: PhoneDescription) -> str:
    """The cores in one text, as '4x1.70 + 4x2.37 + 1x2.91 GHz'."""
    groups = core_groups(description)
    if set(groups) == {None}:
        return f"{len(description.cores)} cores"
    parts = (f"{len(cores)}x{'?' if khz is None else f'{khz / 1e6:.2f}'}" for khz, cores in groups.items())
    return f"{' + '.join(parts)} GHz"


def core_mask(description: PhoneDescription, cores: str) -> str:
    """The mask for `taskset`, hexadecimal digits without 0x, of 'big', 'mid', 'little', 'all', or of a mask itself
    ('F0', '0xf0').

    Raises DeviceError for groups that the phone does not have, and for cores that do not exist, are offline, or are
    not left to a shell by the system.
    """
    chosen = _named(description, cores) if cores in NAMES else _in_mask(cores)
    _check(description, cores, chosen)
    return f"{sum(1 << number for number in chosen):x}"


def _named(description: PhoneDescription, name: str) -> list[int]:
    groups = core_groups(description)
    everything = [core.number for core in description.cores]
    if name == "all":
        return everything
    if None in groups:
        raise DeviceError(
            f"which cores are {name} is unknown, as the phone does not tell the frequency of {_cores(groups[None])}; "
            f"give a hexadecimal mask, such as {1 << everything[-1]:x} for core {everything[-1]}, or 'all'"
        )
    by_speed = list(groups.values())
    if name == "mid":
        if len(by_speed) < 3:
            raise DeviceError(
                f"this phone has no mid cores, its cores are {core_summary(description)}; choose big, little or all"
            )
        return [number for group in by_speed[1:-1] for number in group]
    return by_speed[-1] if name == "big" else by_speed[0]


def _in_mask(text: str) -> list[int]:
    digits = text.lower().removeprefix("0x")
    if not re.fullmatch(r"[0-9a-f]{1,64}", digits) or not int(digits, 16):
        raise DeviceError(f"cores are big, mid, little, all, or a hexadecimal mask such as f0, got {text!r}")
    mask = int(digits, 16)
    return [number for number in range(mask.bit_length()) if mask >> number & 1]


def _check(description: PhoneDescription, given: str, chosen: Iterable[int]) -> None:
    count = len(description.cores)
    absent = [number for number in chosen if number >= count]
    if absent:
        raise DeviceError(f"{given}: the phone has no {_cores(absent)}, its {count} cores are 0 to {count - 1}")
    offline = [number for number in chosen if not description.cores[number].is_online]
    if offline:
        raise DeviceError(
            f"{given}: offline now: {_cores(offline)}; turn the battery saver off, let the phone cool down, or "
            "choose other cores"
        )
    denied = sorted(set(chosen) - description.allowed_cores)
    if denied:
        raise DeviceError(
            f"{given}: the system does not let a shell use {_cores(denied)}, as for programs in the background; turn "
            "the screen on and the battery saver off, or choose other cores"
        )


def _cores(numbers: list[int]) -> str:
    return f"core{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
