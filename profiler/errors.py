"""The profiler's branch of the error tree.

NetlatheError               (archspace/errors.py)
└── ProfilerError
    ├── DeviceError             a device that cannot be found, opened or used any more: the campaign ends
    │   ├── ConnectionLostError     the link to a phone broke; connecting again may help
    │   ├── CommandTimeoutError     a command on a phone said nothing for too long
    │   ├── ClaimedError            another computer measures on the phone
    │   └── NotRestoredError        a phone could not be given back as it was
    ├── UnsupportedGraphError   a graph that the runtime does not execute there, with the runtime's reason: it stays so
    └── MeasurementError        a measurement that should have worked and did not: a later run tries again
"""

from __future__ import annotations

from netlathe.archspace.errors import NetlatheError


class ProfilerError(NetlatheError):
    """Base of the profiler's failures."""


class DeviceError(ProfilerError):
    """A device that cannot be found, opened or used any more."""


class ConnectionLostError(DeviceError):
    """The link to a phone broke, or the phone vanished; connecting again may help."""


class CommandTimeoutError(DeviceError):
    """A command on a phone was silent, or took, longer than it may."""


class ClaimedError(DeviceError):
    """Another computer measures on the phone, which is left alone."""


class NotRestoredError(DeviceError):
    """A phone that could not be given back as it was: the message says what remains there, and who puts it right. What
    was measured is not concerned."""


class UnsupportedGraphError(ProfilerError):
    """A graph that the device's runtime does not execute; the message holds the runtime's reason."""


class MeasurementError(ProfilerError):
    """A measurement that should have worked and did not."""
