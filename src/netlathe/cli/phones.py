"""The devices that are found, as a user meets them: what there is, how to get a phone, which of several is meant."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from netlathe.archspace.errors import NetlatheError
from netlathe.cli.console import Terminal

if TYPE_CHECKING:
    from netlathe.profiler.devices import DeviceRow

GET_A_PHONE = (
    "On the phone, open Settings > About phone and tap Build number seven times: this turns on the developer options.",
    "In Settings > System > Developer options, turn on USB debugging.",
    "Plug it in with a cable that carries data, not only power. If the phone asks what USB is for, choose file "
    "transfer.",
    "Unlock it, run `netlathe profile --device usb ...`, and tap Allow when the phone asks whether to trust this "
    "computer.",
)
"""Instructions, step by step, where no phone is found."""

UDEV = (
    "Only on Linux, where it is then listed with 'no permission': install Android's udev rules (Debian, Ubuntu: sudo "
    "apt install android-sdk-platform-tools-common), sudo usermod -aG plugdev $USER, log in again, replug the phone."
)


def show_devices(rows: Sequence[DeviceRow], terminal: Terminal) -> list[str]:
    """The table, and what to do about what is missing; returns the steps to a phone where none was found."""
    terminal.table(("device", "state", "what it is"), [(r.name, r.state, r.detail) for r in rows], numbers=False)
    for row in rows:
        if row.hint:
            names_itself = row.kind == "phone" and row.name in row.hint
            terminal.say(f"  {row.hint if names_itself else f'{row.name}: {row.hint}'}.".replace("?.", "?"))
    if any(row.state == "installed" for row in rows):
        terminal.say("  Installed, but not tried: netlathe devices --check", style="dim")
    # 'usb' without a serial number says that USB itself does not work
    if any(row.kind == "phone" and row.name != "usb" for row in rows):
        return []
    steps = [*GET_A_PHONE, UDEV] if sys.platform.startswith("linux") else list(GET_A_PHONE)
    terminal.say("\n  No phone was found. To get one:")
    terminal.steps(steps)
    return steps


def choose_phone(address: str, terminal: Terminal) -> str:
    """The address; where it means one of several phones and somebody is there to ask, that of the one that is chosen.

    Raises NetlatheError where none is, DeviceError for an address that is none.
    """
    if address.partition(":")[0].partition("@")[0] not in ("usb", "server") or not terminal.can_ask:
        return address
    from netlathe.profiler.adb.address import parse_address
    from netlathe.profiler.adb.discovery import candidates

    with terminal.working("looking for phones"):
        phones = candidates(parse_address(address))
    if not phones:
        return address
    rows = [(phone.address, phone.model, phone.android, phone.state) for phone in phones]
    chosen = terminal.choose("Which phone?", ("device", "model", "Android", "state"), rows)
    if chosen is None:
        raise NetlatheError(f"no phone was chosen; name one, as --device {phones[0].address}")
    terminal.say(f"  Next time: --device {phones[chosen].address}", style="dim")
    return phones[chosen].address
