"""Link to one very phone, mended for a while when it breaks; another phone is not taken for it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import TypeVar

from netlathe.profiler.adb import AdbConnection
from netlathe.profiler.device import Report
from netlathe.profiler.errors import CommandTimeoutError, ConnectionLostError, DeviceError

RECONNECT_S = 180.0
"""Time for which a phone may be away, as with a pulled cable or while it reboots."""

BREAKS = (ConnectionLostError, CommandTimeoutError)

T = TypeVar("T")


def unit_of(connection: AdbConnection) -> str:
    """A name for this very phone, from which its serial number cannot be read back."""
    command = "getprop ro.serialno; settings get secure android_id 2>/dev/null"
    said = connection.run(command, timeout_s=30).stdout.split()
    words = [word for word in said if word not in ("null", "unknown")]  # in place of a number
    return hashlib.sha256((words[0] if words else connection.address).encode()).hexdigest()[:8]


class PhoneLink:
    """Link to a phone over a connection, which retries what may be done twice as long as it breaks.

    `report` gets one line when the phone goes and one when it is back. `unit` is the phone's, once it was identified;
    `is_given_up` says whether the phone was waited for in vain.
    """

    def __init__(self, connection: AdbConnection, report: Report) -> None:
        self.connection, self.report = connection, report
        self.unit = ""
        self.is_given_up = False

    def identify(self) -> str:
        """The phone's unit, which from now on has to answer. Raises DeviceError."""
        self.unit = self.retry(lambda: unit_of(self.connection))
        return self.unit

    def check(self) -> None:
        """Raises DeviceError when another phone answers at the address than the one that was identified."""
        if self.unit and unit_of(self.connection) != self.unit:
            raise DeviceError(
                f"{self.connection.address}: this is another phone than before, and was left alone; "
                "plug in the first one"
            )

    def retry(
        self,
        action: Callable[[], T],
        error: DeviceError | None = None,
        *,
        mend: Callable[[], None] = lambda: None,
        patience_s: float | None = None,
    ) -> T:
        """Retries the action while the link breaks, at once where there is an `error` already: connects again, makes
        sure that it is the same phone, calls `mend`, and acts then, as often as it takes.

        The phone may be away for `patience_s` in all, RECONNECT_S by default. Raises what is no break of the link at
        once.
        """
        if error is None:
            try:
                return action()
            except BREAKS as broken:
                error = broken
        return self._insist(action, error, mend, RECONNECT_S if patience_s is None else patience_s)

    def _insist(self, action: Callable[[], T], error: DeviceError, mend: Callable[[], None], patience_s: float) -> T:
        until_s = time.monotonic() + patience_s
        if patience_s > 0:
            self.report(f"{error}. Waiting up to {patience_s:.0f} s for the phone.")
        while True:
            self._reconnect(error, until_s - time.monotonic())
            try:
                self.check()
                mend()
                result = action()
            except BREAKS as again:  # said once: a link may break a hundred times a minute
                error = again
                continue
            self.report(f"{self.connection.address}: back again.")
            return result

    def _reconnect(self, error: DeviceError, left_s: float) -> None:
        self.is_given_up = True
        if left_s <= 0:
            raise error
        self.connection.reconnect(left_s)
        self.is_given_up = False
