"""Namespaces that make a folder the root of a small computer: its own mounts, process numbers and uptime.

One holder process per boot keeps the process numbers; it is their process 1, so all die with it. Its standard input is
a pipe from here: when this program ends, however it ends, the pipe closes, the holder leaves and nothing stays behind.
"""

import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PACKAGES = {
    "unshare": "util-linux", "nsenter": "util-linux", "mount": "mount", "chroot": "coreutils", "setpriv": "util-linux",
    "mksh": "mksh", "toybox": "toybox",
}  # fmt: skip
"""Program -> the Debian package that holds it."""

BOOT_TIMEOUT_S = 30.0

# The shell's own /proc is still the host's here, so that the first number of its stat is the host's process id. It is
# told after chroot: from then on /proc/PID/root is the phone. SIGCHLD stays ignored through exec: the kernel then reaps
# the orphans of process 1.
BOOT_SCRIPT = """
read -r pid rest </proc/self/stat
cd "$1"
{mounts}
exec chroot . /system/bin/sh -c 'trap "" CHLD; echo "$0"; exec /system/bin/toybox cat >/dev/null 2>&1' "$pid"
"""


@functools.cache
def loopback_unavailable() -> str | None:
    """Why no loopback phone can run here, None where it can."""
    if sys.platform != "linux":
        return f"it needs Linux, this is {sys.platform}"
    missing = [tool for tool in PACKAGES if shutil.which(tool) is None]
    if missing:
        packages = " ".join(sorted({PACKAGES[tool] for tool in missing}))
        return f"{', '.join(missing)} is missing; on Debian and Ubuntu: sudo apt install {packages}"
    probe = subprocess.run([*_unshare(first=True, boottime_s=0), "true"], capture_output=True, text=True, timeout=30)
    if probe.returncode:
        return f"this system allows no namespaces here ({probe.stderr.strip()}); try it as root, outside a container"
    return None


def _unshare(*, first: bool, boottime_s: int) -> list[str]:
    words = ["unshare", "--pid", "--time", "--boottime", str(boottime_s), "--fork", "--kill-child"]
    if first:
        words.append("--mount")
        if os.geteuid() != 0:
            words.append("--map-root-user")
    return words


class Namespace:
    """Processes whose root is a folder. Mounts last until `close`, processes until the next `boot`.

    Args:
        tree: the folder that becomes /.
        mounts: shell lines run once, in the folder, before anything else.
        boot_mounts: shell lines run at each boot, in the folder; /proc is mounted new.
    """

    def __init__(self, tree: Path, mounts: Sequence[str], boot_mounts: Sequence[str]) -> None:
        self.tree = tree
        self._mounts, self._boot_mounts = mounts, boot_mounts
        self._holder: subprocess.Popen[str] | None = None
        self._pins: list[int] = []
        self.pid = 0

    def boot(self, uptime_s: float) -> None:
        """Ends what runs, and starts again with an uptime of `uptime_s` seconds."""
        self.stop()
        first = not self._pins
        lines = [*self._mounts, *self._boot_mounts] if first else ["umount -l ./proc", *self._boot_mounts]
        script = BOOT_SCRIPT.format(mounts="\n".join(lines))
        host_uptime_s = float(Path("/proc/uptime").read_text().split()[0])
        # Towards zero: the kernel refuses an uptime below zero.
        unshare = _unshare(first=first, boottime_s=int(uptime_s - host_uptime_s))
        self._holder = subprocess.Popen(
            [*self._enter_pins(), *unshare, "/bin/sh", "-euc", script, "sh", str(self.tree)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=self._pins,
            start_new_session=True,  # a Ctrl-C in the terminal is for this program alone
        )
        assert self._holder.stdout is not None
        line = self._holder.stdout.readline()
        if not line:
            _, stderr = self._holder.communicate(timeout=BOOT_TIMEOUT_S)
            self._holder = None
            raise RuntimeError(f"the phone does not boot: {stderr.strip()}")
        self.pid = int(line)
        if first:
            kinds = ["mnt"] if os.geteuid() == 0 else ["user", "mnt"]
            # An open descriptor keeps the mounts, and so a tmpfs at /data, while no process is left.
            self._pins = [os.open(f"/proc/{self.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]

    def _enter_pins(self) -> list[str]:
        if not self._pins:
            return []
        options = [f"--mount=/proc/self/fd/{self._pins[-1]}"]
        if len(self._pins) > 1:
            options += [f"--user=/proc/self/fd/{self._pins[0]}", "--preserve-credentials"]
        return ["nsenter", *options, "--"]

    def argv(self, words: Sequence[str]) -> list[str]:
        """The command line that runs `words` in here, without privileges: files deny themselves by their mode."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        enter = [str(shutil.which("nsenter")), "-t", str(self.pid), *user, "-m", "-p", "-T", "-r", "-w", "--"]
        return [*enter, str(shutil.which("setpriv")), "--bounding-set=-all", "--inh-caps=-all", "--", *words]

    def stop(self) -> None:
        """Ends all processes in here; mounts stay."""
        if self._holder is None:
            return
        if self._holder.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self._holder.communicate(timeout=BOOT_TIMEOUT_S)
        self._holder = None

    def close(self) -> None:
        """Ends all processes and gives the mounts up."""
        self.stop()
        for pin in self._pins:
            os.close(pin)
        self._pins = []


if __name__ == "__main__":
    if reason := loopback_unavailable():
        sys.exit(f"A phone cannot run on this computer: {reason}")
