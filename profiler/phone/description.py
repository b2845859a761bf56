"""Description of a phone, as describe.sh tells it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from netlathe.profiler.errors import DeviceError


@dataclass(frozen=True)
class Core:
    """One core; what the phone does not tell is None or ''."""

    number: int
    max_khz: int | None
    """Highest frequency of the core, whatever it is allowed now; known for offline cores where a sibling is online."""
    governor: str
    is_online: bool


@dataclass(frozen=True)
class PhoneDescription:
    """A phone's identity, cores, tools and space; texts are '' where the phone does not tell."""

    manufacturer: str
    model: str
    soc: str
    release: str
    """Android's version, as '14'."""
    sdk: int | None
    fingerprint: str
    """Fingerprint of the Android build."""
    abis: tuple[str, ...]
    """ABIs of the phone, the best first, as ('arm64-v8a', 'armeabi-v7a')."""
    serial: str
    kernel: str
    boot_id: str
    """Identity of the boot: another one after every boot."""
    uptime_s: float | None
    cores: tuple[Core, ...]
    allowed_cores: frozenset[int]
    """Numbers of the cores that the system leaves to a shell; all where it does not tell."""
    tools: frozenset[str]
    """Programs on the phone among those that netlathe uses where they exist."""
    data_free_kb: int | None
    """Space left on /data."""
    screen_on: bool | None

    @property
    def governors(self) -> tuple[str, ...]:
        """Frequency governors of the cores that tell theirs."""
        return tuple(core.governor for core in self.cores if core.governor)

    @classmethod
    def parse(cls, text: str) -> PhoneDescription:
        """Reads describe.sh's output; lines of another form are left out.

        Raises DeviceError when it does not tell the phone's ABIs and cores: then it is something else.
        """
        values = {
            key.strip(): value.strip() for key, mark, value in (li.partition("=") for li in text.splitlines()) if mark
        }
        count = _integer(values.get("cores", ""))
        # Before Android 5 there was no list.
        listed = values.get("ro.product.cpu.abilist") or ",".join(
            values.get(f"ro.product.cpu.{key}", "") for key in ("abi", "abi2")
        )
        abis = tuple(filter(None, listed.split(",")))
        if not count or not abis:
            missing = "the number of its cores" if abis else "which programs it runs (ro.product.cpu.abilist)"
            raise DeviceError(f"this does not describe an Android phone, as it does not tell {missing}: {text[:500]!r}")
        cores = _cores(values, count)
        allowed = core_list(values.get("allowed_cores", ""))
        socs = (values.get(key, "") for key in ("ro.soc.model", "ro.board.platform"))
        return cls(
            manufacturer=values.get("ro.product.manufacturer", ""),
            model=values.get("ro.product.model", ""),
            soc=next((soc for soc in socs if soc and soc.lower() != "unknown"), ""),
            release=values.get("ro.build.version.release", ""),
            sdk=_integer(values.get("ro.build.version.sdk", "")),
            fingerprint=values.get("ro.build.fingerprint", ""),
            abis=abis,
            serial=values.get("ro.serialno", ""),
            kernel=values.get("kernel", ""),
            boot_id=values.get("boot_id", ""),
            uptime_s=_seconds(values.get("uptime_s", "")),
            cores=cores,
            allowed_cores=allowed or frozenset(core.number for core in cores),
            tools=frozenset(values.get("tools", "").split()),
            data_free_kb=_integer(values.get("data_free_kb", "")),
            screen_on={"on": True, "off": False}.get(values.get("screen", "")),
        )


def _cores(values: Mapping[str, str], count: int) -> tuple[Core, ...]:
    online = (
        core_list(values.get("online_cores", ""))
        or frozenset(number for number in range(count) if f"cpu{number}.scaling_governor" in values)
        or frozenset(range(count))
    )
    highest: dict[int, int] = {}
    for number in range(count):
        max_khz = _integer(values.get(f"cpu{number}.cpuinfo_max_freq", ""))
        if max_khz:
            # Offline cores have no frequency files, but their siblings on the same clock name them.
            siblings = core_list(values.get(f"cpu{number}.related_cpus", ""))
            highest = {**dict.fromkeys(siblings, max_khz), **highest, number: max_khz}
    return tuple(
        Core(number, highest.get(number), values.get(f"cpu{number}.scaling_governor", ""), number in online)
        for number in range(count)
    )


def core_list(text: str) -> frozenset[int]:
    """The kernel's lists of cores: '0-3,7' or '0 1 2 3'. Empty for anything else."""
    found: set[int] = set()
    for part in re.split(r"[,\s]+", text.strip()):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part)
        if match is None:
            return frozenset()
        found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return frozenset(found)


def _integer(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None


def _seconds(text: str) -> float | None:
    first = text.split()[0] if text else ""
    return float(first) if re.fullmatch(r"[0-9]+(\.[0-9]*)?", first) else None
