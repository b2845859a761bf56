"""Taking a phone for oneself, and giving it back as it was."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from profiler.adb import AdbConnection, open_connection
from profiler.devices.base import Report
from profiler.errors import DeviceError
from profiler.lock import exclusive
from profiler.phone import steady
from profiler.phone.description import PhoneDescription
from profiler.phone.provision import cache_directory
from profiler.phone.workspace import Workspace

BOOT_S = 120.0


def unit_of(connection: AdbConnection) -> str:
    """A name for this very phone, from which its serial number cannot be read back."""
    command = "getprop ro.serialno; settings get secure android_id 2>/dev/null"
    words = connection.run(command, timeout_s=30).stdout.split()
    return hashlib.sha256((words[0] if words else connection.address).encode()).hexdigest()[:8]


@contextmanager
def held(connection: AdbConnection) -> Iterator[str]:
    """Keeps other processes of this computer off the phone; gives its unit_of."""
    unit = unit_of(connection)
    folder = cache_directory()
    folder.mkdir(parents=True, exist_ok=True)
    refusal = f"{connection.address}: another netlathe is using this phone; wait for it to end"
    with exclusive(folder / "phone", unit, refusal):
        yield unit


def describe(workspace: Workspace) -> PhoneDescription:
    """What the phone is, once Android is up: adbd answers before the services do that keep the phone steady."""
    connection, until_s = workspace.connection, time.monotonic() + BOOT_S
    while connection.run("getprop sys.boot_completed", timeout_s=30).stdout.strip() != "1":
        if time.monotonic() > until_s:
            raise DeviceError(f"{connection.address}: Android has not finished booting after {BOOT_S:.0f} s")
        time.sleep(1.0)
    return PhoneDescription.parse(workspace.run(workspace.command("describe.sh"), "describe the phone").stdout)


def leave(workspace: Workspace, unread: Collection[str], report: Report) -> list[steady.StepOutcome]:
    """Restores the phone's settings and removes netlathe's directory; returns what became of the settings.

    What cannot be restored stays in the phone's journal for another try, and logs that nobody has read stay there.
    """
    outcomes = steady.restore(workspace.connection, workspace.directory)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    for outcome in failed:
        report(f"{workspace.connection.address}: {outcome.report}")
    kept = [*(["journal", "scripts"] if failed else []), *(["results"] if unread else [])]
    workspace.remove(kept)
    return outcomes


def clean_phone(address: str, report: Report) -> list[steady.StepOutcome]:
    """Restores what an interrupted campaign left changed, and returns that; removes netlathe's directory."""
    connection = open_connection(address, on_authorize=report)
    try:
        with held(connection):
            workspace = Workspace(connection)
            workspace.open()
            return leave(workspace, (), report)
    finally:
        connection.close()
