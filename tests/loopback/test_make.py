"""What a fresh machine lacks is said before anything is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TOOLS = ("make", "sh", "bash", "env", "unshare", "nsenter", "mount", "chroot", "setpriv", "mksh", "toybox", "true")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is missing")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with the programs of a machine, for PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        if found := shutil.which(tool):
            (folder / tool).symlink_to(found)
    return folder


def refusal(machine: Path, goal: str, python: Path | str = sys.executable) -> str:
    """What make says as it fails, with nothing installed."""
    venv = machine.with_name("venv")
    environment = {**os.environ, "PATH": str(machine), "MAKEFLAGS": ""}
    words = ["make", goal, f"VENV={venv}", f"PYTHON={python}", "PIP_ARGS=--no-index"]
    done = subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert not venv.exists()
    return done.stdout + done.stderr


def python_that(machine: Path, script: str) -> Path:
    """A Python that behaves otherwise for some arguments."""
    path = machine.with_name("python")
    path.write_text(f"#!/bin/sh\n{script}\nexec '{sys.executable}' \"$@\"\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("missing", [["mksh"], ["toybox"], ["mksh", "toybox"]])
def test_a_phone_s_demo_without_its_shell_names_the_command_that_brings_it(machine: Path, missing: list[str]) -> None:
    for tool in missing:
        (machine / tool).unlink(missing_ok=True)
    if not all((machine / tool).exists() for tool in TOOLS if tool not in missing):
        pytest.skip("more than that is missing here")
    assert f"{', '.join(missing)} is missing; on Debian and Ubuntu: sudo apt install {' '.join(missing)}\n" in refusal(
        machine, "demo-phone"
    )


@pytest.mark.parametrize("goal", ["demo", "demo-phone", "test"])
def test_a_python_without_venv_names_the_package_and_leaves_no_half_environment(machine: Path, goal: str) -> None:
    python = python_that(machine, 'case "$*" in *ensurepip*) exit 1 ;; esac')
    assert "sudo apt install python3-venv" in refusal(machine, goal, python)


@pytest.mark.parametrize("goal", ["demo", "demo-phone", "test"])
def test_an_old_or_missing_python_is_said_with_what_to_try(machine: Path, goal: str) -> None:
    old = 'case "$*" in *version_info*) exit 1 ;; --version) echo Python 3.9.2; exit 0 ;; esac'
    assert f"found: Python 3.9.2. Try: make PYTHON=python3.12 {goal}\n" in refusal(
        machine, goal, python_that(machine, old)
    )
    assert "needs Python 3.11 or newer" in refusal(machine, goal, machine / "nowhere")
