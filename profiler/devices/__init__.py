"""One file per target. A runtime is imported when its device is opened, not before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from profiler.devices.base import Device, Visit
from profiler.errors import DeviceError

__all__ = ["Device", "DeviceRow", "Visit", "available_devices", "open_device"]


def _open_local(threads: int, batch: int | None, cores: Sequence[int], dtype: str | None) -> Device:
    from profiler.devices.local import LocalDevice

    _only_float32("local", dtype)
    return LocalDevice(threads=threads, batch=1 if batch is None else batch, cores=cores)


def _open_onnxruntime(threads: int, batch: int | None, cores: Sequence[int], dtype: str | None) -> Device:
    from profiler.devices.onnxruntime import OnnxRuntimeDevice

    _only_float32("onnxruntime", dtype)
    return OnnxRuntimeDevice(threads=threads, batch=1 if batch is None else batch, cores=cores)


def _open_cuda(threads: int, batch: int | None, cores: Sequence[int], dtype: str | None) -> Device:
    from profiler.devices.cuda import CudaDevice

    if threads != 1 or cores:
        raise DeviceError("cuda: threads and cores are for devices that run on this computer's CPU; leave them out")
    return CudaDevice(batch=8 if batch is None else batch, dtype=dtype or "float16")


_OPENERS: dict[str, Callable[[int, int | None, Sequence[int], str | None], Device]] = {
    "local": _open_local,
    "onnxruntime": _open_onnxruntime,
    "cuda": _open_cuda,
}


def _only_float32(name: str, dtype: str | None) -> None:
    if dtype not in (None, "float32"):
        raise DeviceError(f"{name}: measures float32, got dtype {dtype!r}")


def open_device(
    name: str,
    *,
    threads: int = 1,
    batch: int | None = None,
    cores: Sequence[int] = (),
    dtype: str | None = None,
) -> Device:
    """Opens 'local' (LiteRT on this CPU), 'onnxruntime' (the same CPU) or 'cuda' (PyTorch on the first GPU).

    `batch` is 1 by default, 8 on cuda; `cores` pins to CPU cores by number; `dtype` is float32, on cuda also float16,
    its default. Raises DeviceError for an unknown name, or where the device cannot be used and why.
    """
    if name not in _OPENERS:
        raise DeviceError(f"unknown device {name!r}; known: {', '.join(_OPENERS)}")
    return _OPENERS[name](threads, batch, cores, dtype)


@dataclass(frozen=True)
class DeviceRow:
    """One line of `netlathe devices`."""

    name: str
    state: Literal["ready", "unavailable"]
    detail: str
    """The setup when ready, else why not."""
    hint: str = ""
    """What to do when it is not ready."""


def available_devices() -> list[DeviceRow]:
    """Every known device, and whether it can be opened with its defaults."""
    return [_row(name) for name in _OPENERS]


def _row(name: str) -> DeviceRow:
    try:
        with open_device(name) as device:
            return DeviceRow(name, "ready", str(device.setup))
    except DeviceError as error:
        reason, _, hint = str(error).partition("; ")
        return DeviceRow(name, "unavailable", reason, hint)
