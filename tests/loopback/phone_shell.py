"""Commands in the loopback phone, without ADB, for the tests."""

import subprocess

from .phone import LoopbackPhone

TIMEOUT_S = 60


def shell(phone: LoopbackPhone, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        phone.shell_argv(command), env=phone.environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def output(phone: LoopbackPhone, command: str) -> str:
    result = shell(phone, command)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.rstrip("\n")
