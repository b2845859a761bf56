"""The profiler's branch of the error tree.

NetlatheError               (archspace/errors.py)
└── ProfilerError
    ├── DeviceError             a device that cannot be found, opened or used any more: the campaign ends
    ├── UnsupportedGraphError   a graph that the runtime does not execute there, with the runtime's reason: it stays so
    └── MeasurementError        a measurement that should have worked and did not: a later run tries again
"""

from __future__ import annotations

from archspace.errors import NetlatheError


class ProfilerError(NetlatheError):
    """Base of the profiler's failures."""


class DeviceError(ProfilerError):
    """A device that cannot be found, opened or used any more."""


class UnsupportedGraphError(ProfilerError):
    """A graph that the device's runtime does not execute; the message holds the runtime's reason."""


class MeasurementError(ProfilerError):
    """A measurement that should have worked and did not."""
