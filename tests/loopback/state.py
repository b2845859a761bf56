"""What tests steer on a loopback phone: heat, frequencies, battery, settings, faults. All of it is plain files."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from . import tree
from .faults import Fault

SENSOR_TYPES = {"CPU": 0, "GPU": 1, "BATTERY": 2, "SKIN": 3, "TPU": 9}
COOL = {"CPU": 38.4, "GPU": 36.1, "BATTERY": 28.5, "SKIN": 31.2}
DELEGATES = ("gpu", "nnapi", "npu")
TOOL_STYLES = ("2026", "2023", "2021")


class FileMap(MutableMapping[str, str]):
    """Keys are the names of a folder's files, values their text."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def __getitem__(self, key: str) -> str:
        try:
            return (self._folder / key).read_text().removesuffix("\n")
        except FileNotFoundError:
            raise KeyError(key) from None

    def __setitem__(self, key: str, value: str) -> None:
        part = self._folder / f".{key}.part"
        part.write_text(f"{value}\n")
        part.replace(self._folder / key)

    def __delitem__(self, key: str) -> None:
        try:
            (self._folder / key).unlink()
        except FileNotFoundError:
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(path.name for path in self._folder.iterdir() if not path.name.startswith(".")))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class PhoneState:
    """The files behind the phone's own tools, written here and by the phone.

    Args:
        folder: the phone's / on the host, built by `tree.build`.
        properties: what getprop says.
        cores_khz: maximum frequency of each core.
    """

    def __init__(self, folder: Path, properties: Mapping[str, str], cores_khz: Sequence[int]) -> None:
        self.tree = folder
        self.cores_khz = tuple(cores_khz)
        self._first_properties = dict(properties)
        self.state = folder / "loopback" / "state"
        self.properties = FileMap(self.state / "properties")
        self.settings = FileMap(self.state / "settings" / "global")
        self.battery = FileMap(self.state / "battery")
        self.power = FileMap(self.state / "power")
        self.services = FileMap(self.state / "services")
        self._first_state()

    def _first_state(self) -> None:
        sdk = int(self._first_properties.get("ro.build.version.sdk", "0"))
        self.services.update(dict.fromkeys(("battery", "power", *(["thermalservice"] if sdk >= 29 else [])), "running"))
        self.power["fixed_performance_supported"] = "true" if sdk >= 30 else "unknown"
        self.battery.update({"level": "87", "temperature": "285", "powered": "usb"})
        self.set_thermal(0, COOL)
        shutil.copy(self.state / "thermal/current", self.state / "thermal/cached")
        self.set_load(0.53, 0.61, 0.58)
        self.set_tool_style("2026")
        for name in DELEGATES:
            self.refuse_on_delegate(name)
        self.reset_volatile()

    def reset_volatile(self) -> None:
        """Does what a reboot does to properties, modes, the screen and boot_id."""
        kept = {key: value for key, value in self.properties.items() if key.startswith("persist.")}
        self.properties.clear()
        self.properties.update(self._first_properties | kept)
        self.power.update({"fixed_performance": "false", "wakefulness": "Awake"})
        _overwrite(self.state / "boot_id", f"{uuid.uuid4()}\n")

    @property
    def boot_id(self) -> str:
        return (self.state / "boot_id").read_text().strip()

    def set_thermal(self, status: int = 0, temperatures: Mapping[str, float] | None = None) -> None:
        """Sets the thermal status (0 none ... 6 shutdown) and the sensors' temperatures, in degC, given by name."""
        write_thermal(self.tree, status, temperatures)

    def cap_frequency(self, core: int, khz: int | None) -> None:
        """Lowers scaling_max_freq of a core's whole group, as a governor does in heat; None takes the cap away."""
        cap_frequency(self.tree, core, khz)

    def cpufreq(self, core: int) -> Path:
        """The folder of a core's frequency files, for the host."""
        return self.tree / f"sys/devices/system/cpu/cpu{core}/cpufreq"

    def make_unreadable(self, path: str) -> None:
        """Takes away the right to read a file or folder outside /data, as phones do with single files of /sys."""
        (self.tree / path.lstrip("/")).chmod(0)

    def set_core_offline(self, core: int) -> None:
        """Takes a core's cpufreq away, as Linux does with offline cores."""
        shutil.rmtree(self.cpufreq(core), ignore_errors=True)
        tree.write_sysfs(self.cpufreq(core).with_name("online"), "0")

    def set_battery(self, *, level: int = 87, celsius: float = 28.5, powered: str = "usb") -> None:
        """Sets the battery: percent, temperature, and what powers it (usb, ac, wireless or none)."""
        self.battery.update({"level": str(level), "temperature": str(round(celsius * 10)), "powered": powered})

    def set_load(self, one: float, five: float, fifteen: float) -> None:
        """Sets the averages in /proc/loadavg over 1, 5 and 15 minutes."""
        _overwrite(self.state / "loadavg", f"{one:.2f} {five:.2f} {fifteen:.2f} 2/2345 12345\n")

    def remove_tools(self, *names: str) -> None:
        """Takes commands away from /system/bin, as older or leaner phones lack them."""
        for name in names:
            (self.tree / "system/bin" / name).unlink()

    def refuse_on_delegate(self, name: str, *operations: str) -> None:
        """Lets the gpu, nnapi or npu delegate of benchmark_model refuse ops, given by builtin name (HARD_SWISH)."""
        if name not in DELEGATES:
            raise ValueError(f"no delegate {name!r}; there are {', '.join(DELEGATES)}")
        _replace(self.state / f"{name}_refuses", "\n".join(operations))

    def set_tool_style(self, style: str) -> None:
        """Lets benchmark_model print as it did in 2021 (no prefix), 2023 (no percentiles) or 2026 (the default)."""
        if style not in TOOL_STYLES:
            raise ValueError(f"no style {style!r}; there are {', '.join(TOOL_STYLES)}")
        _replace(self.state / "tool_style", f"{style}\n")

    def refuse_fixed_performance(self) -> None:
        """Lets `cmd power set-fixed-performance-mode-enabled` fail, as on most phones that are no Pixels."""
        self.power["fixed_performance_supported"] = "false"

    def fault(self, kind: str, *, when: int | Sequence[int] | None = None, key: str | None = None, **more: Any) -> None:
        """Makes benchmark_model go wrong; see `faults.Fault` for the kinds and what else they take.

        Args:
            kind: "crash", "hang", ...
            when: number or numbers of the calls, counted from 1 per key (over all models where key is None);
                None: every call.
            key: stem of the model's file name; None: any model.
            more: arguments of the kind.
        """
        calls = None if when is None else [when] if isinstance(when, int) else list(when)
        faults = [*self._faults(), Fault(kind, calls, key, more).to_json()]
        _replace(self.state / "faults.json", json.dumps(faults))

    def clear_faults(self) -> None:
        """Makes benchmark_model well again; calls are still counted from the phone's start."""
        (self.state / "faults.json").unlink(missing_ok=True)

    def _faults(self) -> list[dict[str, Any]]:
        path = self.state / "faults.json"
        return list(json.loads(path.read_text())) if path.exists() else []


def write_thermal(folder: Path, status: int = 0, temperatures: Mapping[str, float] | None = None) -> None:
    """`PhoneState.set_thermal` for any process that knows the phone's / on the host."""
    sensors = temperatures or COOL
    state = folder / "loopback/state/thermal"
    state.mkdir(exist_ok=True)
    lines = [
        f"{celsius:.1f} {SENSOR_TYPES.get(name, 0)} {name} {status if name == 'SKIN' else 0}\n"
        for name, celsius in sensors.items()
    ]
    for zone, (name, celsius) in enumerate(sensors.items()):
        sysfs = folder / f"sys/class/thermal/thermal_zone{zone}"
        sysfs.mkdir(exist_ok=True)
        tree.write_sysfs(sysfs / "type", name)
        tree.write_sysfs(sysfs / "temp", str(round(celsius * 1000)))
    _replace(state / "current", "".join(lines))
    _replace(state / "status", f"{status}\n")


def cap_frequency(folder: Path, core: int, khz: int | None = None) -> None:
    """`PhoneState.cap_frequency` for any process that knows the phone's / on the host."""
    cores = folder / "sys/devices/system/cpu"
    for other in (cores / f"cpu{core}/cpufreq/related_cpus").read_text().split():
        cpufreq = cores / f"cpu{other}/cpufreq"
        if cpufreq.is_dir():
            limit = str(khz) if khz else (cpufreq / "cpuinfo_max_freq").read_text().strip()
            tree.write_sysfs(cpufreq / "scaling_max_freq", limit)
            tree.write_sysfs(cpufreq / "scaling_cur_freq", limit)


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.replace(path)


def _overwrite(path: Path, text: str) -> None:
    # These files are mounted over /proc: a mount stays with the old inode, so the text changes in place, in one write.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(descriptor, text.encode(), 0)
        os.ftruncate(descriptor, len(text.encode()))
    finally:
        os.close(descriptor)
