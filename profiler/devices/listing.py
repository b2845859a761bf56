"""List of what can be profiled from here: phones that are found, and runtimes that are installed on this computer."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from netlathe.profiler.devices.host import machine_name, processor_name
from netlathe.profiler.errors import DeviceError

if TYPE_CHECKING:
    from netlathe.profiler.adb import PhoneRow

PROBE_S = 5.0  # to look at one phone


@dataclass(frozen=True)
class DeviceRow:
    """One line of `netlathe devices`."""

    name: str
    """Name of the device, as `open_device` takes it."""
    kind: Literal["phone", "computer"]
    state: str
    """ready: it was opened, or answered. installed: what it needs is there, but it was not tried. unavailable. Of a
    phone also unauthorized, offline, busy, no permission."""
    detail: str
    """Description of the device, else why it is unavailable."""
    hint: str = ""
    """Remedy when it cannot be used."""
    model: str = ""
    soc: str = ""
    android: str = ""


def available_devices(addresses: Sequence[str] = (), *, check: bool = False) -> list[DeviceRow]:
    """Every device that can be found from here, phones first.

    `addresses` are further phones to look at, as tcp:HOST:PORT, which nobody announces. This computer's own devices are
    opened only to `check` them, which imports their runtimes and so takes seconds. Raises DeviceError for an address
    that is none.
    """
    from netlathe.profiler.adb.address import parse_address
    from netlathe.profiler.adb.discovery import list_phones, probe

    given = [place for place in map(parse_address, addresses) if place.kind == "tcp"]  # others are found anyway
    phones = (*list_phones(), *(probe(place, PROBE_S) for place in given))
    own = map(_opened, ("local", "onnxruntime", "cuda")) if check else _installed()
    return [*map(_phone_row, phones), *own]


def _phone_row(phone: PhoneRow) -> DeviceRow:
    android = f"Android {phone.android}" if phone.android else ""
    detail = ", ".join(filter(None, (phone.model, phone.soc, android)))
    return DeviceRow(phone.address, "phone", phone.state, detail, phone.hint, phone.model, phone.soc, phone.android)


def _opened(name: str) -> DeviceRow:
    from netlathe.profiler.devices import open_device

    try:
        with open_device(name) as device:
            setup = device.setup
            return DeviceRow(name, "computer", "ready", str(setup), model=setup.device, soc=setup.processor)
    except DeviceError as error:
        reason, _, hint = str(error).partition("; ")
        return _unavailable(name, reason, hint)


def _installed() -> list[DeviceRow]:
    return [
        _runtime("local", "ai_edge_litert", "LiteRT", _version("ai-edge-litert"), "pip install ai-edge-litert"),
        _runtime(
            "onnxruntime", "onnxruntime", "ONNX Runtime", _version("onnxruntime"),
            "pip install 'netlathe[onnxruntime]'",
        ),
        _cuda(),
    ]  # fmt: skip


def _runtime(name: str, module: str, title: str, number: str, remedy: str) -> DeviceRow:
    """A runtime for this computer's CPU."""
    if find_spec(module) is None:
        return _unavailable(name, f"{title} is not installed", remedy)
    model, processor = machine_name(), processor_name()
    return DeviceRow(
        name, "computer", "installed", f"{model} ({processor}), {title} {number}".rstrip(), model=model, soc=processor
    )


def _cuda() -> DeviceRow:
    if find_spec("torch") is None:
        return _unavailable("cuda", "PyTorch is not installed", "install a CUDA build of PyTorch (pytorch.org)")
    torch = f"PyTorch {_version('torch')}".rstrip()
    if torch.endswith("+cpu"):
        return _unavailable("cuda", f"{torch} is a build for CPUs", "install a CUDA build of PyTorch (pytorch.org)")
    if not _has_nvidia_driver():
        return _unavailable("cuda", f"{torch}, but no NVIDIA driver", "install the driver, and check nvidia-smi")
    return DeviceRow("cuda", "computer", "installed", f"{torch} and an NVIDIA driver", model=machine_name())


def _unavailable(name: str, reason: str, hint: str) -> DeviceRow:
    return DeviceRow(name, "computer", "unavailable", reason, hint)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # installed without metadata, or under another name, as onnxruntime-gpu
        return ""


def _has_nvidia_driver() -> bool:
    """Whether the driver's library is there. Whether there is a GPU that works, only opening it tells."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
