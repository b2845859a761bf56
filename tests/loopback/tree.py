"""The files of a phone: /system/bin with mksh, toybox and the phone's own tools, cores in /sys, folders in /data."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TOOLS = Path(__file__).parent / "tools"
# Android's toybox has these, Debian's does not: the host's own serve.
FROM_HOST = ("dd", "tr", "expr")
# No phone without root has it.
NOT_ON_ANDROID = ("su",)
DEVICES = ("null", "zero", "full", "random", "urandom")
FOLDERS = (
    "apex", "data/local/tmp", "dev", "loopback/state", "mnt", "proc", "sdcard", "sys/class/thermal",
    "sys/devices/system/cpu", "system/bin", "system/etc", "tmp", "usr", "vendor",
)  # fmt: skip

LITTLE_KHZ, MID_KHZ, BIG_KHZ = 1_704_000, 2_367_000, 2_914_000


def pixel_8_cores(count: int) -> tuple[int, ...]:
    """Maximum frequency of each core, kHz: a Pixel 8 (four little, four mid, one big), shrunk to `count` cores."""
    mids = (count - 1) // 2
    return (LITTLE_KHZ,) * (count - 1 - mids) + (MID_KHZ,) * mids + (BIG_KHZ,)


def build(tree: Path, cores_khz: Sequence[int]) -> None:
    """Writes all files of a new phone into the empty folder `tree`."""
    for folder in FOLDERS:
        (tree / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("data", "data/local", "data/local/tmp"):
        (tree / folder).chmod(0o771)
    for device in DEVICES:
        (tree / "dev" / device).touch()
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (tree / "dev" / name).symlink_to(target)
    for link in ("bin", "etc"):
        (tree / link).symlink_to(f"system/{link}")
    (tree / "etc/passwd").write_text("shell:x:0:0::/:/system/bin/sh\n")
    (tree / "etc/group").write_text("shell:x:0:\n")
    _build_bin(tree / "system/bin")
    _build_cores(tree / "sys/devices/system/cpu", cores_khz)
    (tree / "loopback/python").symlink_to(os.path.realpath(sys.executable))
    for folder in ("/lib", "/lib64", str(python_home())):
        _mirror(tree, Path(folder))


def python_home() -> Path:
    """The folder of the Python that runs this, without any virtual environment."""
    return Path(os.path.realpath(sys.base_prefix))


def mounts(tree: Path, data_mb: int | None, data_options: str = "mode=0771") -> list[str]:
    """Shell lines, run in the tree, that show the host's libraries and devices there."""
    # Root of a user namespace may not change the flags of a foreign mount, and has no rights on it anyway.
    bind = "mount -o bind,ro" if os.geteuid() == 0 else "mount --bind"
    shown = {"/usr", *(path for path in ("/lib", "/lib64", str(python_home())) if (tree / path[1:]).is_dir())}
    shown = {path for path in shown if not (tree / path[1:]).is_symlink()}
    lines = [f"{bind} '{path}' '.{path}'" for path in sorted(shown) if path == "/usr" or not path.startswith("/usr/")]
    lines += [f"mount --bind /dev/{device} ./dev/{device}" for device in DEVICES]
    lines.append("mount -o bind,noexec ./sdcard ./sdcard")
    if data_mb is not None:
        lines.append(f"mount -t tmpfs -o size={data_mb}m,{data_options} tmpfs ./data")
        lines.append("mkdir ./data/local ./data/local/tmp && chmod 0771 ./data/local ./data/local/tmp")
    return lines


def boot_mounts() -> list[str]:
    """Shell lines, run in the tree at each boot: /proc, with the load and the boot's name from the phone's state."""
    lines = ["mount -t proc proc ./proc"]
    if os.geteuid() == 0:
        lines.append("mount -o bind,ro ./proc/sys ./proc/sys")
    lines.append("mount --bind ./loopback/state/loadavg ./proc/loadavg")
    lines.append("mount --bind ./loopback/state/boot_id ./proc/sys/kernel/random/boot_id")
    return lines


def _mirror(tree: Path, folder: Path) -> None:
    inside = tree / str(folder)[1:]
    if folder.is_symlink():
        inside.symlink_to(os.readlink(folder))
    elif folder.is_dir() and not folder.is_relative_to("/usr"):
        inside.mkdir(parents=True, exist_ok=True)


def _build_bin(folder: Path) -> None:
    shell = shutil.which("mksh")  # not mksh-static: its C library words signals unlike Android
    toybox = shutil.which("toybox")
    assert shell is not None
    assert toybox is not None
    shutil.copy(shell, folder / "mksh")
    shutil.copy(toybox, folder / "toybox")
    (folder / "sh").symlink_to("mksh")
    for tool in TOOLS.iterdir():
        shutil.copy(tool, folder / tool.name)
        (folder / tool.name).chmod(0o755)
    for name in FROM_HOST:
        host = shutil.which(name)
        if host is not None:
            shutil.copy(host, folder / name)
    applets = subprocess.run([toybox], capture_output=True, text=True, check=True, timeout=30).stdout.split()
    for applet in applets:
        if applet not in NOT_ON_ANDROID and not (folder / applet).exists():
            (folder / applet).symlink_to("toybox")


def _build_cores(folder: Path, cores_khz: Sequence[int]) -> None:
    for name in ("online", "possible", "present"):
        write_sysfs(folder / name, f"0-{len(cores_khz) - 1}")
    for core, khz in enumerate(cores_khz):
        cpufreq = folder / f"cpu{core}" / "cpufreq"
        cpufreq.mkdir(parents=True)
        group = [str(other) for other, other_khz in enumerate(cores_khz) if other_khz == khz]
        write_sysfs(folder / f"cpu{core}" / "online", "1")
        for name, value in {
            "cpuinfo_max_freq": khz,
            "cpuinfo_min_freq": 324_000,
            "scaling_cur_freq": khz,
            "scaling_max_freq": khz,
            "scaling_governor": "sched_pixel",
            "related_cpus": " ".join(group),
        }.items():
            write_sysfs(cpufreq / name, str(value))


def write_sysfs(path: Path, text: str) -> None:
    """Puts a file in place in one step, readable and, as on a phone without root, not writable."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    part.write_text(text + "\n")
    part.chmod(0o444)
    part.replace(path)
