"""Phones of a DeviceFarmer (STF), reserved through its REST interface and reached over the network.

Its manual: doc/API.md of github.com/DeviceFarmer/stf.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from netlathe.profiler.device import Device, Report
from netlathe.profiler.devices import DeviceOptions, open_device
from netlathe.profiler.errors import ConnectionLostError, DeviceError

TIMEOUT_S = 30.0
IDLE_MS = 3_600_000
"""Time without traffic after which the farm takes a phone back."""
MOST_BYTES = 1 << 24


@dataclass(frozen=True)
class Farm:
    """DeviceFarmer at a URL, whose access token stands in an environment variable. All methods raise DeviceError;
    ConnectionLostError where trying again may help."""

    url: str
    token_variable: str

    def phones(self, models: Sequence[str] = ()) -> list[str]:
        """Serial numbers of all phones of these models, whoever uses them now; of any model where none is named."""
        devices = self._ask("GET", "devices")["devices"]
        return [
            str(one["serial"]) for one in devices
            if isinstance(one, dict) and one.get("present") and (not models or _model(one) in models)
        ]  # fmt: skip

    @contextmanager
    def reserved(self, serial: str) -> Iterator[str]:
        """Context around a phone that is this user's meanwhile; gives its address. Raises ConnectionLostError where
        somebody else uses it."""
        path = f"user/devices/{urllib.parse.quote(serial, safe='')}"
        self._ask("POST", "user/devices", {"serial": serial, "timeout": IDLE_MS})
        try:
            place = self._ask("POST", f"{path}/remoteConnect")["remoteConnectUrl"]
            yield f"tcp:{place}"
        finally:
            for one in (f"{path}/remoteConnect", path):
                with suppress(DeviceError):  # the farm takes it back once it is idle
                    self._ask("DELETE", one)

    def _ask(self, method: str, path: str, content: object = None) -> dict[str, Any]:
        """The farm's answer, of an interface that says by itself whether it succeeded."""
        token = os.environ.get(self.token_variable, "")
        if not token:
            raise DeviceError(f"{self.url}: set {self.token_variable} to an access token (Settings, Keys, in the farm)")
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/api/v1/{path}", method=method,
            data=None if content is None else json.dumps(content).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                found = json.loads(answer.read(MOST_BYTES))
        except urllib.error.HTTPError as error:
            raise self._refused(error, path) from error
        except (OSError, ValueError) as error:
            raise ConnectionLostError(f"{self.url}: the farm does not answer as one ({error})") from error
        if not isinstance(found, dict) or not found.get("success"):
            raise DeviceError(f"{self.url}: {path}: the farm says {found!r:.200}")
        return found

    def _refused(self, error: urllib.error.HTTPError, path: str) -> DeviceError:
        with error:
            try:
                reason = str(json.loads(error.read(MOST_BYTES)).get("description", ""))
            except (OSError, ValueError, AttributeError):
                reason = ""
        reason = reason or error.reason
        if error.code == 401:
            return DeviceError(f"{self.url}: refuses the token in {self.token_variable} ({reason}); make a new one")
        if error.code in (403, 404):  # in use, or unplugged
            return ConnectionLostError(f"{self.url}: {path}: {reason}")
        return DeviceError(f"{self.url}: {path}: {reason} (HTTP {error.code})")


def _model(device: dict[str, Any]) -> str:
    return str(device.get("model") or "")


@dataclass(frozen=True)
class FarmMember:
    """A phone of a farm: away as long as somebody else uses it."""

    farm: Farm
    serial: str
    options: DeviceOptions

    @property
    def name(self) -> str:
        return f"{urllib.parse.urlsplit(self.farm.url).netloc}:{self.serial}"

    @contextmanager
    def open(self, report: Report) -> Iterator[Device]:
        with self.farm.reserved(self.serial) as address, open_device(address, self.options, report=report) as device:
            yield device
