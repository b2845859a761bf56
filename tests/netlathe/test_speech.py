"""--quiet, --verbose and --log-file, for every command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner, Result

from netlathe.archspace.presets import tiny
from netlathe.archspace.profile_file import ProfileFile
from netlathe.cli.app import make_app
from netlathe.cli.console import Terminal
from netlathe.cli.speech import SPEECH, Speech, speaking

PREDICT = ("predict", "mobilenet_v2", "--predictor", "pixel4-cpu-networks")
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d (.*)")


def netlathe(*arguments: object, whole: bool = False) -> Result:
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(make_app(only="" if whole else words[0]), words)


def kept(path: Path) -> list[str]:
    """The lines of a log without their times, which each must have."""
    return [STAMP.fullmatch(line)[1] for line in path.read_text().splitlines()]  # type: ignore[index]


def test_every_command_has_the_three() -> None:
    group: Any = typer.main.get_command(make_app())
    commands = {**group.commands, **group.commands["device"].commands}
    del commands["device"]
    for command in commands.values():
        assert {"quiet", "verbose", "log_file"} <= {one.name for one in command.params}, command.name


def test_quiet_leaves_the_result_alone() -> None:
    usual, quiet = netlathe(*PREDICT), netlathe(*PREDICT, "-q")
    assert quiet.stdout == usual.stdout
    assert "25.5" in quiet.stdout
    assert "Pixel 4" in usual.stderr
    assert quiet.stderr == ""


def test_quiet_json_is_one_object_and_no_word() -> None:
    quiet = netlathe(*PREDICT, "--quiet", "--json")
    assert quiet.stdout.startswith("{")
    assert quiet.stdout.count("\n") == 1
    assert quiet.stderr == ""


def test_quiet_tells_errors_doubts_and_what_has_no_result() -> None:
    assert "unknown network" in netlathe("show", "alexnet", "-q").stderr
    several = netlathe("predict", "mobilenet_v2", "alexnet", "--predictor", "pixel4-cpu-networks", "-q")
    assert "unknown network 'alexnet'" in several.stderr
    assert several.exit_code == 1
    doubted = netlathe("predict", "mobilenet_v2", "--predictor", "pixel4-cpu", "--unknown", "price", "-q")
    assert "Warning: " in doubted.stderr


def test_the_options_may_stand_before_the_command(tmp_path: Path) -> None:
    log = tmp_path / "new" / "x.log"
    quiet = netlathe("--log-file", log, "-q", *PREDICT, whole=True)
    assert quiet.stderr == ""
    assert kept(log)


def test_verbose_tells_versions_and_how_it_went() -> None:
    said = netlathe(*PREDICT, "-v").stderr.splitlines()
    assert re.fullmatch(r"  netlathe \d+\.\d+\.\d+, Python [\d.]+.*", said[0])
    assert re.match(r"  done after \d+\.\d s, \d+\.\d s of processor time", said[-1])


def test_a_log_keeps_what_is_shown_and_what_is_not(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    shown = netlathe(*PREDICT, "--log-file", log)
    netlathe(*PREDICT, "--log-file", log, "-q")
    lines = kept(log)
    assert len(lines) % 2 == 0
    first, second = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    assert first[1:-1] == second[1:-1]
    for line in (*shown.stdout.splitlines(), *shown.stderr.splitlines()):
        assert line.rstrip() in first
    assert first[0].startswith("netlathe ")
    assert first[-1].startswith("done after ")


def test_a_log_keeps_where_an_error_came_from(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert "Traceback" not in netlathe("show", "alexnet", "--log-file", log).stderr
    text = "\n".join(kept(log))
    assert "SpaceError: unknown network 'alexnet'" in text
    assert "subjects.py" in text
    assert "failed: SpaceError after" in text


def test_a_log_replaces_nothing_of_the_users_own(tmp_path: Path) -> None:
    mine, profile = tmp_path / "notes.txt", tmp_path / "p.sqlite"
    mine.write_text("mine")
    ProfileFile(profile, create=True).close()
    for path in (mine, profile):
        before = path.read_bytes()
        refused = netlathe(*PREDICT, "--log-file", path)
        assert refused.exit_code == 1
        assert "is there already, and is" in refused.stderr
        assert path.read_bytes() == before
    assert "is a folder" in netlathe(*PREDICT, "--log-file", tmp_path).stderr
    assert not netlathe(*PREDICT, "--log-file", tmp_path / "empty").exit_code


def test_a_log_is_no_output_of_the_command(tmp_path: Path) -> None:
    tiny(8).architecture([0] * 10).save(tmp_path / "a.json")
    log = tmp_path / "same.csv"
    refused = netlathe(*PREDICT, "--csv", log, "--log-file", log)
    assert refused.exit_code == 1
    assert "the log of a command" in refused.stderr


def test_progress_is_kept_by_tenths_and_words_once(tmp_path: Path) -> None:
    with speaking(is_quiet=True, is_verbose=False, log_file=tmp_path / "x.log", command="netlathe"):
        terminal = Terminal()
        tell_progress(terminal)
    tenths = [f"  searching: {10 * tenth}/100 steps" for tenth in range(11)]
    assert kept(tmp_path / "x.log")[1:-1] == [*tenths, "A step"]
    assert not terminal.can_ask


def tell_progress(terminal: Terminal) -> None:
    with terminal.progress("searching", "steps") as update:
        for done in range(101):
            update(done, 100, "")
    terminal.step("A step")


def test_speech_ends_with_its_command() -> None:
    netlathe(*PREDICT, "-q")
    assert SPEECH.get() == Speech()
