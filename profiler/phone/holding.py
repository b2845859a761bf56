"""Possession of a phone: taken for oneself, and given back as it was."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from netlathe.archspace.files import cache_directory
from netlathe.profiler.adb import open_connection
from netlathe.profiler.device import Report
from netlathe.profiler.errors import ClaimedError, DeviceError
from netlathe.profiler.lock import exclusive
from netlathe.profiler.phone import steady
from netlathe.profiler.phone.description import PhoneDescription
from netlathe.profiler.phone.link import PhoneLink
from netlathe.profiler.phone.workspace import Workspace

BOOT_S = 120.0


@contextmanager
def held(link: PhoneLink) -> Iterator[None]:
    """Identifies the phone, and keeps other processes of this computer off it."""
    unit = link.identify()
    folder = cache_directory()
    folder.mkdir(parents=True, exist_ok=True)
    refusal = f"{link.connection.address}: another netlathe is using this phone; wait for it to end"
    with exclusive(folder / "phone", unit, refusal):
        yield


def describe_phone(workspace: Workspace) -> PhoneDescription:
    """Description of the phone, once Android is up: adbd answers before the services do that keep the phone steady."""
    connection, until_s = workspace.connection, time.monotonic() + BOOT_S
    while connection.run("getprop sys.boot_completed", timeout_s=30).stdout.strip() != "1":
        if time.monotonic() > until_s:
            raise DeviceError(f"{connection.address}: Android has not finished booting after {BOOT_S:.0f} s")
        time.sleep(1.0)
    return PhoneDescription.parse(workspace.run(workspace.command("describe.sh"), "describe the phone").stdout)


def leave(link: PhoneLink, workspace: Workspace, sessions: Collection[str] | None) -> list[steady.StepOutcome]:
    """Restores the phone's settings and removes netlathe's directory; returns what became of the settings.

    What cannot be restored stays in the phone's journal for another try, and so do logs of other `sessions` than these,
    which nobody has read; None removes them all.
    Raises DeviceError, and touches nothing, where it is another phone by now; ClaimedError where another computer
    measures on it.
    """
    link.check()
    if not workspace.exists():
        return []
    workspace.open()
    outcomes = steady.restore(workspace.connection, workspace.directory)
    failed = any(outcome.state == "failed" for outcome in outcomes)
    unread = sessions is not None and not set(workspace.logs()) <= set(sessions)
    workspace.remove([*(["journal", "scripts"] if failed else []), *(["results"] if unread else [])])
    return outcomes


def what_remains(workspace: Workspace, steps: Iterable[steady.StepOutcome], reason: BaseException) -> str:
    """Words for a phone that could not be given back as it was."""
    address = workspace.connection.address
    if isinstance(reason, ClaimedError):
        return f"{reason}. Nothing was touched there: that run puts back what this one changed"
    held = [step.step.replace("_", " ") for step in steps if step.step in steady.CHANGING and step.state == "held"]
    settings = f"these settings: {', '.join(held)}; and " if held else ""
    return (
        f"{address}: the phone was not given back as it was ({str(reason) or 'interrupted'}). There remain {settings}"
        f"files in {workspace.directory}. The next profile of that phone puts it right, or "
        f"`netlathe device clean --device {address}`"
    )


def clean_phone(address: str, report: Report) -> list[steady.StepOutcome]:
    """Restores what an interrupted campaign left changed, and returns that; removes netlathe's directory. Raises
    DeviceError."""
    connection = open_connection(address, on_authorize=report)
    try:
        link = PhoneLink(connection, report)
        with held(link):
            return link.retry(lambda: leave(link, Workspace(connection), None))
    finally:
        connection.close()
