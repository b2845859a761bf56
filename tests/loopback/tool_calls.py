"""Calls of the loopback phone's benchmark_model, for the tests."""

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from netlathe.archspace.blocks import MBConv
from netlathe.archspace.forms.tflite import write_tflite

from .phone import BENCHMARK_MODEL, LoopbackPhone

TIMEOUT_S = 60
FOLDER = "/data/local/tmp/netlathe"
QUICK = "--num_runs=6 --warmup_runs=2 --min_secs=0 --warmup_min_secs=0 --num_threads=1"
GRAPH = MBConv(28, 28, 16, 16, kernel=3, expand=6).graph()


@contextlib.contextmanager
def installed(root: Path, models: Mapping[str, bytes] | None = None) -> Iterator[LoopbackPhone]:
    """A phone with benchmark_model and models (by stem; None: mb) in FOLDER."""
    with LoopbackPhone(root) as phone:
        phone.path(FOLDER).mkdir()
        shutil.copy(BENCHMARK_MODEL, phone.path(FOLDER))
        for stem, content in (models or {"mb": write_tflite(GRAPH)}).items():
            (phone.path(FOLDER) / f"{stem}.tflite").write_bytes(content)
        yield phone


def shell(phone: LoopbackPhone, command: str) -> subprocess.CompletedProcess[bytes]:
    words = phone.shell_argv(f"cd {FOLDER}; {command}")
    return subprocess.run(words, env=phone.environment, capture_output=True, timeout=TIMEOUT_S, check=False)


def tool(phone: LoopbackPhone, flags: str = QUICK, model: str = "mb.tflite") -> tuple[str, int]:
    """Output and errors in one, as they come, and the exit code."""
    result = shell(phone, f"exec 2>&1; ./benchmark_model --graph={model} {flags}; echo rc=$?")
    text, _, code = result.stdout.decode(errors="replace").rpartition("rc=")
    return text, int(code)


def counts(text: str) -> list[dict[str, float]]:
    """The numbers of each count line."""
    lines = re.findall(r"^(?:INFO: )?count=.*$", text, re.MULTILINE)
    return [{key: float(value) for key, value in re.findall(r"(\w+)=([-\d.e+]+)", line)} for line in lines]


def until(condition: Callable[[], object], what: str) -> None:
    end_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end_s, what
        time.sleep(0.01)


def forks(phone: LoopbackPhone) -> list[int]:
    """Process ids of the runs that the server has started and not seen end."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(parent) == phone._server.pid:
            found.append(int(stat.parent.name))
    return found


@contextlib.contextmanager
def long_call(
    phone: LoopbackPhone, prefix: str = "", program: str = "./benchmark_model"
) -> Iterator[subprocess.Popen[bytes]]:
    """A call in its warm-up that would last ten minutes, in a process group of its own."""
    command = f"cd {FOLDER}; exec {prefix} {program} --graph=mb.tflite --warmup_min_secs=600 --max_secs=600"
    words = phone.shell_argv(command)
    with subprocess.Popen(
        words, env=phone.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith(b"INFO: Running"):
            assert process.poll() is None
        try:
            yield process
        finally:
            process.kill()
