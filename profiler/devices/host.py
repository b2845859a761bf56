"""This computer: what it is and how busy it is."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path


def _read(path: str | Path) -> str:
    """Text of a system file, '' where it is missing or forbidden."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        return ""


def machine_name() -> str:
    """Model of this computer, from the firmware or the device tree; its host name where neither tells."""
    places = ("/sys/devices/virtual/dmi/id/product_name", "/proc/device-tree/model")
    return next(filter(None, map(_read, places)), platform.node() or "unknown")


def processor_name() -> str:
    """Model name of the CPU, its architecture where the system does not tell."""
    lines = (line.partition(":") for line in _read("/proc/cpuinfo").splitlines())
    names = (value.strip() for field, _, value in lines if field.strip() == "model name")
    return next(names, platform.processor() or platform.machine() or "unknown")


def os_name() -> str:
    """'Linux 6.1 x86_64': without the patch level, which changes weekly and not the times."""
    release = ".".join(platform.release().split(".")[:2])
    return f"{platform.system()} {release} {platform.machine()}"


class HostMonitor:
    """Conditions of this computer; needs Linux for all but the load average."""

    def __init__(self) -> None:
        self._busy_s = self._all_busy_s()
        self._own_s, self._at = time.process_time(), time.monotonic()

    @staticmethod
    def _all_busy_s() -> float:
        """CPU time spent by all programs since boot: user, nice, system, irq, softirq, steal of /proc/stat."""
        fields = _read("/proc/stat").partition("\n")[0].split()[1:]
        ticks = sum(int(fields[i]) for i in (0, 1, 2, 5, 6, 7)) if len(fields) > 7 else 0
        return ticks / os.sysconf("SC_CLK_TCK") if ticks else 0.0

    def conditions(self) -> dict[str, float | str]:
        """load_1min, other_cpus (cores that other programs kept busy since the last call), frequency_mhz (mean over
        cores) and temperature_c (hottest zone); those that cannot be read are left out."""
        found: dict[str, float | str] = {"load_1min": os.getloadavg()[0]} if hasattr(os, "getloadavg") else {}
        busy_s, own_s, at = self._all_busy_s(), time.process_time(), time.monotonic()
        if busy_s and at - self._at > 0.1:  # /proc/stat counts in ticks of 10 ms
            others_s = (busy_s - self._busy_s) - (own_s - self._own_s)
            found["other_cpus"] = round(max(0.0, others_s / (at - self._at)), 2)
            self._busy_s, self._own_s, self._at = busy_s, own_s, at
        clocks = _numbers("/sys/devices/system/cpu", "cpu[0-9]*/cpufreq/scaling_cur_freq")
        if clocks:
            found["frequency_mhz"] = sum(clocks) / len(clocks) / 1e3
        zones = _numbers("/sys/class/thermal", "thermal_zone*/temp")
        if zones:
            found["temperature_c"] = max(zones) / 1e3
        return found


def _numbers(folder: str, pattern: str) -> list[float]:
    texts = (_read(path) for path in Path(folder).glob(pattern))
    return [float(text) for text in texts if text.lstrip("-").isdigit()]
