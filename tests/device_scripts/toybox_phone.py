"""A folder that looks like a phone to the device scripts: toybox, stand-ins for Android's own tools, /sys and /proc.

The stand-ins log each call. The scripts run in a POSIX shell of the host with no other PATH; they see $SYSFS and $PROC.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from netlathe.archspace.resources import device_script_path

SHELLS = ("mksh", "dash")
DUMPS = Path(__file__).with_name("dumpsys")
APPLETS = (
    "cat", "chmod", "cut", "date", "df", "env", "expr", "false", "flock", "grep", "head", "kill", "ln", "ls", "mkdir",
    "mv", "pgrep", "pkill", "printf", "rm", "sed", "seq", "setsid", "sha256sum", "sleep", "sync", "tail", "tar",
    "taskset", "timeout", "touch", "true", "uname", "wc",
)  # fmt: skip

# Whole or not at all, whenever the stand-in is killed.
KEEP = 'keep() { echo "$1" >"$STATE/$2.$$" && mv -f "$STATE/$2.$$" "$STATE/$2"; }'

# As on a phone: getprop knows everything, settings say null, a missing service is said on stderr with status 0.
STUBS = {
    "getprop": '[ ! -f "$STATE/prop.$1" ] || cat "$STATE/prop.$1"',
    "dumpsys": """
        [ ! -f "$STATE/hang.$1" ] || sleep 60
        if [ "$1" = power ]; then
            printf 'POWER MANAGER (dumpsys power)\\n\\nPower Manager State:\\n  mDirty=0x0\\n'
            sed "s/STATE/$(cat "$STATE/wakefulness")/" "$STATE/power_form"
            printf '  mWakefulnessChanging=false\\n  mIsPowered=true\\n'
        elif [ -f "$STATE/dumpsys.$1" ]; then
            cat "$STATE/dumpsys.$1"
        else
            echo "Can't find service: $1" >&2
        fi""",
    "settings": """
        file=$STATE/setting.$3
        case $1 in
            get) if [ -f "$file" ]; then cat "$file"; else echo null; fi ;;
            put) if [ -f "$STATE/deny.settings" ]; then echo 'Permission denial: writing to settings'; exit 255; fi
                 keep "$4" "setting.$3" ;;
            delete) rm -f "$file"; echo 'Deleted 1 rows' ;;
        esac""",
    "svc": """
        [ ! -f "$STATE/deny.svc" ] || exit 0
        keep 15 setting.stay_on_while_plugged_in
        read -r awake asleep <"$STATE/power_words"
        keep "$awake" wakefulness""",
    "input": """
        [ ! -f "$STATE/deny.input" ] || exit 0
        read -r awake asleep <"$STATE/power_words"
        case $2 in KEYCODE_WAKEUP) keep "$awake" wakefulness ;; KEYCODE_SLEEP) keep "$asleep" wakefulness ;; esac""",
    "cmd": """
        cat >/dev/null # reads standard input, as the real one does
        if [ -f "$STATE/deny.cmd" ]; then echo 'Failed to set FIXED_PERFORMANCE mode' >&2; exit 255; fi
        keep "$3" fixed_performance""",
}


class ToyboxPhone:
    """The folder; `directory` is the work directory, with a name that needs quoting."""

    def __init__(self, root: Path) -> None:
        if not shutil.which("toybox") or not all(map(shutil.which, SHELLS)):
            pytest.skip("toybox, mksh and dash are not all installed")
        self.root = root
        self.directory = root / 'it\'s a "dir" (1) [x]+'
        self.tools, self.state, self.sysfs, self.proc = (root / name for name in ("bin", "state", "sys", "proc"))
        for folder in (self.directory / "models", self.tools, self.state, self.proc / "self"):
            folder.mkdir(parents=True)
        for applet in APPLETS:
            (self.tools / applet).symlink_to(str(shutil.which("toybox")))
        (self.tools / "sh").symlink_to(str(shutil.which("dash")))
        for name, body in STUBS.items():
            self.tool(name, f'{KEEP}\necho "{name} $*" >>"$STATE/calls"\n{body}')
        (self.state / "wakefulness").write_text("Awake\n")
        (self.state / "power_form").write_text("  mWakefulness=STATE\n")
        (self.state / "power_words").write_text("Awake Asleep\n")
        self.set_property("ro.build.version.sdk", "34")
        self.set_uptime(1000.25, "11111111-aaaa")
        (self.proc / "loadavg").write_text("0.53 0.40 0.30 1/900 4242\n")
        (self.proc / "self/status").write_text("Name:\tsh\nCpus_allowed:\tff\nCpus_allowed_list:\t0-7\n")

    def tool(self, name: str, body: str) -> None:
        """Puts a shell script among the tools, in place of an applet or another script."""
        path = self.tools / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!{shutil.which('dash')}\n{body}\n")
        path.chmod(0o755)

    def set_property(self, key: str, value: str) -> None:
        (self.state / f"prop.{key}").write_text(value + "\n")

    def set_uptime(self, uptime_s: float, boot_id: str | None = None) -> None:
        (self.proc / "uptime").write_text(f"{uptime_s:.2f} 99.00\n")
        if boot_id is not None:
            path = self.proc / "sys/kernel/random/boot_id"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(boot_id + "\n")

    def core(self, number: int, **fields: int | str) -> None:
        """A core's cpufreq files; none for one that is offline."""
        folder = self.sysfs / f"devices/system/cpu/cpu{number}/cpufreq"
        (folder if fields else folder.parent).mkdir(parents=True, exist_ok=True)
        for name, value in fields.items():
            (folder / name).write_text(f"{value}\n")

    def zone(self, number: int, kind: str, temperature: str) -> None:
        folder = self.sysfs / f"class/thermal/thermal_zone{number}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "type").write_text(kind + "\n")
        (folder / "temp").write_text(temperature + "\n")

    def dumps(self, service: str, golden: str) -> None:
        """Lets `dumpsys SERVICE` say what a real phone said."""
        shutil.copy(DUMPS / golden, self.state / f"dumpsys.{service}")

    def benchmark(self, body: str) -> None:
        """What benchmark_model does; $STATE and the arguments are there.

        It takes 10 ms: for programs that end within a millisecond, `timeout` of toybox 0.8 says 127 now and then.
        """
        path = self.directory / "benchmark_model"
        path.write_text(f"#!{shutil.which('dash')}\nsleep 0.01\n{body}\n")
        path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """Calls of Android's tools so far."""
        path = self.state / "calls"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def environment(self) -> Mapping[str, str]:
        return {"PATH": str(self.tools), "STATE": str(self.state), "SYSFS": str(self.sysfs), "PROC": str(self.proc)}

    def argv(self, shell: str, script: str, *arguments: object) -> list[str]:
        return [str(shutil.which(shell)), str(device_script_path(script)), *map(str, arguments)]

    def run(self, shell: str, script: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
        """Runs a device script to its end."""
        return subprocess.run(
            self.argv(shell, script, *arguments),
            env=dict(self.environment), capture_output=True, timeout=60, stdin=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip

    def text(self, shell: str, script: str, *arguments: object) -> str:
        """Standard output of a run that must succeed and say nothing on standard error."""
        done = self.run(shell, script, *arguments)
        assert (done.returncode, done.stderr) == (0, b""), done
        return done.stdout.decode()


def processes_with(text: str) -> list[int]:
    """Ids of the processes whose command line has this text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if text.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def hang_up(job: subprocess.Popen[bytes]) -> None:
    """Hangs up a process that leads a session of its own, with its whole group, as a terminal does."""
    if job.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGHUP)
