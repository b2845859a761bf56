"""What macOS and Windows lack is not needed: the command line runs where those names are gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
MACOS: dict[str, list[str]] = {"modules": [], "signal": [], "os": ["sched_getaffinity", "sched_setaffinity"]}
WINDOWS: dict[str, list[str]] = {
    "modules": ["fcntl", "grp", "pwd", "resource", "termios", "tty", "pty"],
    "signal": ["SIGHUP", "SIGUSR1", "SIGUSR2"],
    "os": [
        "sched_getaffinity", "sched_setaffinity", "getuid", "geteuid", "getloadavg", "killpg", "setsid", "mkfifo",
        "O_CLOEXEC",
    ],
}  # fmt: skip
WITHOUT = """
import json, os, signal, sys, warnings
missing = {missing!r}
for module in missing["modules"]:
    sys.modules[module] = None
for place in (os, signal):
    for name in missing[place.__name__]:
        delattr(place, name)
warnings.filterwarnings("ignore", category=UserWarning)  # that locks are weaker without fcntl, which is true here
from netlathe.cli import main
codes = []
for words in json.loads(sys.argv[1]):
    sys.argv = ["netlathe", *words]
    try:
        main()
    except SystemExit as end:
        codes.append(end.code or 0)
    else:
        codes.append(0)
print(json.dumps(codes))
"""


def run(missing: dict[str, list[str]], commands: Sequence[Sequence[object]]) -> tuple[list[int], str]:
    """Exit codes of commands, one after the other in a process where that is missing, and what it said to stderr."""
    words = json.dumps([[str(word) for word in command] for command in commands])
    environment = {name: value for name, value in os.environ.items() if name not in ("USER", "LOGNAME")}
    command = [sys.executable, "-c", WITHOUT.format(missing=missing), words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="takes away what Linux has")
@pytest.mark.parametrize("missing", [MACOS, WINDOWS], ids=["macOS", "Windows"])
def test_the_command_line_runs_without_what_other_systems_lack(missing: dict[str, list[str]], tmp_path: Path) -> None:
    profile, predictor = tmp_path / "p.sqlite", tmp_path / "m.json"
    block = "mbconv_k3_e6_s1_c24-24_8x8_relu6"
    commands = (
        ["--help"],
        ["devices"],
        ["profile", "--space", "tiny", "--resolution", "8", "--rounds", "3", "--networks", "2", "--output", profile],
        ["fit", profile, "--residual", "none", "--splits", "configuration", "--output", predictor],
        ["predict", block, "--predictor", predictor],
    )
    without_phone = commands if missing is WINDOWS else commands[2:3]
    phone = ["profile", "--device", "tcp:127.0.0.1:1", "--output", tmp_path / "phone.sqlite"]
    codes, said = run(missing, [*without_phone, phone])
    assert codes == [0] * len(without_phone) + [1], said
    assert {path.name for path in tmp_path.iterdir()} <= {"p.sqlite", "m.json", "phone.sqlite"}
    assert "nothing answers at tcp:127.0.0.1:1" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("platform", "wanted"), [("linux", "cpu"), ("win32", "cpu"), ("darwin", "plain")])
def test_each_system_gets_the_one_xgboost_that_there_is_for_it(platform: str, wanted: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [Requirement(text) for text in project["dependencies"]]
    chosen = {r.name for r in requirements if not r.marker or r.marker.evaluate({"sys_platform": platform})}
    assert chosen & {"xgboost", "xgboost-cpu"} == {{"cpu": "xgboost-cpu", "plain": "xgboost"}[wanted]}


def test_every_dependency_has_its_tested_version_in_the_constraints() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pinned = {name.lower(): Version(version) for name, version in (line.split("==") for line in lines)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(t for texts in project["optional-dependencies"].values() for t in texts)]
    for requirement in map(Requirement, texts):
        if requirement.name in ("torch", "setuptools", "netlathe", *pinned):  # `all` names extras of its own
            version = pinned.get(requirement.name)
            assert version is None or requirement.specifier.contains(version), requirement
        else:
            pytest.fail(f"{requirement.name} is not in constraints.txt")
