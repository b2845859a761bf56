"""Devices that can be profiled from here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netlathe.profiler.devices import DeviceRow


def devices(addresses: Sequence[str] = (), *, check: bool = False) -> list[DeviceRow]:
    """Every device that can be found from here, phones first: its name for profile, its state, and what to do about it.

    `addresses` are further phones to look at, as tcp:HOST:PORT. With `check`, this computer's own devices are opened,
    which takes seconds. Raises DeviceError for an address that is none.
    """
    from netlathe.profiler.devices import available_devices

    return available_devices(addresses, check=check)
