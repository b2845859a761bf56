"""Devices, one file per target. A runtime is imported when its device is opened, not before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from netlathe.archspace.errors import did_you_mean
from netlathe.archspace.forms.model_file import FileFormat
from netlathe.profiler.device import Device, Report, Visit
from netlathe.profiler.devices.listing import DeviceRow, available_devices
from netlathe.profiler.errors import DeviceError
from netlathe.profiler.protocol import Plan, PlansItsEffort

if TYPE_CHECKING:
    from netlathe.profiler.devices.in_process import InProcessDevice

__all__ = [
    "Device",
    "DeviceOptions",
    "DeviceRow",
    "Visit",
    "available_devices",
    "check_device",
    "default_plan",
    "file_format_at",
    "is_phone",
    "open_device",
]


@dataclass(frozen=True)
class DeviceOptions:
    """Options for running graphs on a device, which refuses those that it does not have with a DeviceError."""

    threads: int = 1
    batch: int | None = None
    """Images per inference: 1 by default, 8 on cuda."""
    cores: str = ""
    """Cores to run on: a hexadecimal mask, on a phone also big, mid, little or all; '' for the scheduler's choice."""
    dtype: str | None = None
    """float32 by default, on cuda float16."""
    delegate: Literal["cpu", "gpu", "nnapi", "npu"] = "cpu"
    """Delegate that executes the ops on a phone."""
    xnnpack: bool = True
    """Whether a phone's CPU runs XNNPACK's kernels rather than TFLite's own."""
    benchmark_binary: Path | None = None
    """benchmark_model for a phone, instead of the official one."""
    max_thermal_status: int = 0
    """Android's thermal status up to which rounds count."""
    allow_partial: bool = False
    """Whether a phone's delegate other than the CPU's may take a part of a graph and leave the CPU the rest."""
    sustained: bool = False
    """Whether it is measured under a load that lasts: nothing waits for it to cool, and heat redoes no round."""


def _open_local(options: DeviceOptions) -> InProcessDevice:
    from netlathe.profiler.devices.local import LocalDevice

    return LocalDevice(
        threads=options.threads, batch=_batch(options, 1), cores=_core_numbers(options.cores),
        dtype=options.dtype or "float32",
    )  # fmt: skip


def _open_onnxruntime(options: DeviceOptions) -> InProcessDevice:
    from netlathe.profiler.devices.onnxruntime import OnnxRuntimeDevice

    return OnnxRuntimeDevice(threads=options.threads, batch=_batch(options, 1), cores=_core_numbers(options.cores))


def _open_cuda(options: DeviceOptions) -> InProcessDevice:
    from netlathe.profiler.devices.cuda import CudaDevice

    return CudaDevice(batch=_batch(options, 8), dtype=options.dtype or "float16")


def _open_phone(address: str, options: DeviceOptions, report: Report) -> Device:
    from netlathe.profiler.adb import open_connection
    from netlathe.profiler.phone.device import PhoneDevice

    return PhoneDevice(
        open_connection(address, on_authorize=report), benchmark_binary=options.benchmark_binary,
        threads=options.threads, cores=options.cores, dtype=options.dtype or "float32", delegate=options.delegate,
        xnnpack=options.xnnpack, max_thermal_status=options.max_thermal_status, allow_partial=options.allow_partial,
        sustained=options.sustained, report=report,
    )  # fmt: skip


_OPENERS: dict[str, Callable[[DeviceOptions], InProcessDevice]] = {
    "local": _open_local,
    "onnxruntime": _open_onnxruntime,
    "cuda": _open_cuda,
}

PHONES = ("usb", "tcp", "server")
"""First words of the addresses of phones."""


def check_device(name: str, options: DeviceOptions | None = None) -> None:
    """Raises DeviceError for a name that is no device's, and for options that such a device does not have, by
    themselves: nothing is imported or looked for."""
    options = options or DeviceOptions()
    if is_phone(name):
        _check_phone(name, options)
    elif name not in _OPENERS:
        known = ", ".join((*_OPENERS, "usb", "usb:SERIAL", "tcp:HOST:PORT", "server:SERIAL", "server@HOST:SERIAL"))
        meant = did_you_mean(name.partition(":")[0], (*_OPENERS, *PHONES))
        raise DeviceError(f"unknown device {name!r}{meant}; known: {known}. `netlathe devices` lists those found here")
    else:
        _check_computer(name, options)


def _check_phone(address: str, options: DeviceOptions) -> None:
    from netlathe.profiler.adb.address import parse_address
    from netlathe.profiler.phone.provision import check_given

    parse_address(address)
    if options.dtype not in (None, "float32", "int8", "int8-weights"):
        raise DeviceError(
            f"{address}: a phone measures float32, int8 or int8-weights, got dtype {options.dtype!r}: its CPU computes "
            "files of float16 weights in float32, and its GPU float32 files at the precision that its delegate chooses"
        )
    if options.batch not in (None, 1):
        raise DeviceError(f"{address}: a phone measures batches of 1, got batch {options.batch}; leave it out")
    if options.benchmark_binary is not None:
        check_given(options.benchmark_binary)


def _check_computer(name: str, options: DeviceOptions) -> None:
    """Options of a device of this computer."""
    _only_on_phones(name, options)
    if name == "onnxruntime" and options.dtype not in (None, "float32"):
        raise DeviceError(
            f"onnxruntime: measures float32, got dtype {options.dtype!r}: netlathe writes no other .onnx; a file of "
            "yours is timed as it is (netlathe time FILE --device onnxruntime)"
        )
    if name != "cuda":
        _core_numbers(options.cores)
    elif options.threads != 1 or options.cores:
        raise DeviceError("cuda: threads and cores are for devices that run on this computer's CPU; leave them out")


def _only_on_phones(name: str, options: DeviceOptions) -> None:
    given = {"delegate": options.delegate != "cpu", "benchmark_binary": options.benchmark_binary is not None}
    given["xnnpack"] = not options.xnnpack
    for option, is_given in given.items():
        if is_given:
            raise DeviceError(f"{name}: the option {option} is for phones; leave it out")


def _batch(options: DeviceOptions, default: int) -> int:
    return default if options.batch is None else options.batch


def _core_numbers(mask: str) -> list[int]:
    """Core numbers of a hexadecimal mask: 'a' -> [1, 3]."""
    try:
        bits = int(mask or "0", 16)
    except ValueError:
        raise DeviceError(f"cores: this computer takes a hexadecimal mask such as 3 or f0, got {mask!r}") from None
    return [core for core in range(bits.bit_length()) if bits >> core & 1]


def open_device(name: str, options: DeviceOptions | None = None, *, report: Report = lambda message: None) -> Device:
    """Opens 'local' (LiteRT on this CPU), 'onnxruntime' (the same CPU), 'cuda' (PyTorch on the first GPU), or a phone:
    'usb', 'usb:SERIAL', 'tcp:HOST:PORT', 'server:SERIAL' through a running adb server, or 'server@HOST:SERIAL' through
    that of another computer.

    `report` is told what a person should know or do, as to look at the phone. Raises DeviceError for an unknown name,
    or where the device cannot be used and why.
    """
    options = options or DeviceOptions()
    check_device(name, options)
    if is_phone(name):
        return _open_phone(name, options, report)
    device = _OPENERS[name](options)
    device.is_sustained = options.sustained
    return device


def is_phone(name: str) -> bool:
    """Whether that is the address of a phone."""
    return name.partition(":")[0].partition("@")[0] in PHONES


def file_format_at(name: str) -> FileFormat | None:
    """The format of model files that the device of this name runs as they are; None where it runs none."""
    if is_phone(name) or name == "local":
        return "tflite"
    return "onnx" if name == "onnxruntime" else None


def default_plan(device: Device) -> Plan:
    """Effort that a latency deserves there, unless a user says otherwise: the device's own default, or Plan()."""
    return device.default_plan if isinstance(device, PlansItsEffort) else Plan()
