"""Bytes to and from a phone, over USB, TCP or an adb server. Knows nothing of benchmarks."""

from netlathe.profiler.adb.address import Address, parse_address
from netlathe.profiler.adb.connection import AdbConnection, ShellExit, ShellResult, quote
from netlathe.profiler.adb.discovery import PhoneRow, list_phones, open_connection

__all__ = [
    "AdbConnection",
    "Address",
    "PhoneRow",
    "ShellExit",
    "ShellResult",
    "list_phones",
    "open_connection",
    "parse_address",
    "quote",
]
