"""Progress files: what work that goes on leaves for whoever watches it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from netlathe.archspace.errors import FormatError, NetlatheError
from netlathe.events import Listener, Relay
from netlathe.progress_files import EVERY_S, MOST_POINTS, ProgressFile, beside, files_beside, read_work, with_point


class Clock:
    """Seconds that pass only where they are told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Kept(Listener):
    """What is handed on."""

    command = "netlathe search --output mine"

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[object] = []

    def phase(self, name: str, *, is_done: bool) -> None:
        self.heard.append((name, is_done))

    def scalar(self, name: str, value: float, step: int) -> None:
        self.heard.append((name, value, step))


def kept(path: Path, clock: Clock, inner: Listener | None = None) -> ProgressFile:
    return ProgressFile(inner or Kept(), path, "search", "mine", clock=clock)


def test_a_step_is_told_with_the_time_that_is_left_and_everything_is_handed_on(tmp_path: Path) -> None:
    path, clock, inner = tmp_path / "progress.json", Clock(), Kept()
    with kept(path, clock, inner) as work:
        work.phase("search", is_done=False)
        with work.progress("searching", "steps") as update:
            update(100, 400, "goes on")
            clock.now += 30
            update(160, 400, "loss 1")
            work.scalar("search/loss", 0.5, 160)
            found = read_work(path)
        assert found.step is not None
        assert (found.step.done, found.step.total, found.step.note) == (160, 400, "loss 1")
        assert found.step.left_s(found.at) == pytest.approx(120)  # 60 steps in 30 s
        assert found.command == "netlathe search --output mine"
        work.phase("search", is_done=True)
        (phase,) = read_work(path).phases
        assert (phase.name, phase.until) == ("search", clock.now)
    assert inner.heard == [("search", False), ("search/loss", 0.5, 160), ("search", True)]
    assert not path.exists()  # finished


def test_the_time_left_of_a_whole_run_is_that_of_its_steps_so_far(tmp_path: Path) -> None:
    path, clock = tmp_path / "progress.json", Clock()
    with kept(path, clock) as work:
        work.plan({"search": 300.0, "choice": None, "training": 100.0, "export": None})
        work.phase("search", is_done=False)
        with work.progress("searching", "steps") as update:
            update(0, 400, "")
            assert read_work(path).left() == (None, ("search", "choice", "training", "export"))  # nothing is known yet
            clock.now += 30
            update(100, 400, "")  # a quarter of 300 in 30 s
            found = read_work(path)
            assert found.left() == (pytest.approx(90 + 40), ("choice", "export"))
            clock.now += 90
        work.phase("search", is_done=True)
        work.phase("choice", is_done=False)
        found = read_work(path)
        assert found.left() == (pytest.approx(40), ("choice", "export"))  # nothing of what goes on at this moment
        work.plan({"training": 50.0})  # the network that was found is a small one
        with work.progress("comparing", "networks") as update:
            update(0, 8, "")
            clock.now += 10
            update(2, 8, "")
            found = read_work(path)
            assert found.left() == (pytest.approx(30 + 20), ("choice", "export"))
        work.phase("choice", is_done=True)
        work.phase("training", is_done=False)
        clock.now += 8
        work.note("writes")
        assert read_work(path).left() == (pytest.approx(20 - 8), ("export",))  # it has told no step yet


def test_a_phase_that_an_earlier_process_did_tells_no_speed(tmp_path: Path) -> None:
    path, clock = tmp_path / "progress.json", Clock()
    with kept(path, clock) as work:
        work.plan({"search": 300.0, "training": 100.0})
        work.phase("search", is_done=True)
        work.phase("training", is_done=False)
        with work.progress("training", "steps") as update:
            update(50, 100, "goes on")
            clock.now += 5
            update(60, 100, "")
            assert read_work(path).left() == (pytest.approx(20), ())
        del work.work.plan["search"]
        work.plan({"training": None, "report": 10.0})
        assert work.work.left() == (None, ("training", "report"))


def test_the_time_left_of_devices_is_the_longest_and_unknown_where_one_is(tmp_path: Path) -> None:
    path, clock = tmp_path / "progress.json", Clock()
    with kept(path, clock) as work, work.watching(["usb:A", "usb:B"]) as (first, second):
        first(0.5, 40.0, "")
        second(0.1, None, "")
        assert work.work.left() == (None, ())
        second(0.2, 90.0, "")
        assert work.work.left() == (90.0, ())
        second(1.0, 0.0, "")
        assert work.work.left() == (40.0, ())
        work.plan({"choice": None, "training": 5.0})  # a search, whose network is being timed
        work.phase("choice", is_done=False)
        assert work.work.left() == (40.0, ("choice", "training"))


def test_a_relay_hands_on_whatever_a_listener_can_hear() -> None:
    heard = {name for name, value in vars(Listener).items() if callable(value) and not name.startswith("__")}
    assert heard <= vars(Relay).keys()
    relay = Relay(Kept())
    assert (relay.command, relay.undone) == (Kept.command, relay.inner.undone)


def test_numbers_alone_are_written_now_and_then(tmp_path: Path) -> None:
    path, clock = tmp_path / "progress.json", Clock()
    with kept(path, clock) as work:
        work.scalar("train/loss", 1.0, 1)
        assert read_work(path).numbers == {}
        clock.now += EVERY_S
        work.scalar("train/loss", 0.5, 2)
        assert read_work(path).numbers == {"train/loss": [(1, 1.0), (2, 0.5)]}
        work.scalar("train/loss", float("nan"), 3)
        clock.now += EVERY_S
        work.note("a line")
        assert read_work(path).numbers["train/loss"][-1] == (2, 0.5)


def test_what_was_stopped_or_failed_says_so_and_the_same_command_goes_on_with_its_curves(tmp_path: Path) -> None:
    path, clock = tmp_path / "progress.json", Clock()

    def run(error: BaseException, step: int) -> None:
        with kept(path, clock) as work:
            work.phase("search", is_done=False)
            work.scalar("search/loss", float(step), step)
            raise error

    with pytest.raises(KeyboardInterrupt):
        run(KeyboardInterrupt(), 7)
    assert read_work(path).standing() == "stopped"
    with pytest.raises(NetlatheError):
        run(NetlatheError("the disk is full"), 9)
    found = read_work(path)
    assert (found.standing(), found.message) == ("failed", "the disk is full")
    assert found.numbers == {"search/loss": [(7, 7.0), (9, 9.0)]}


def refused(work: ProgressFile) -> None:
    with work:
        work.step("Searching")
        raise NetlatheError("no network meets the target")


def test_a_run_that_is_refused_before_it_begins_leaves_what_was_there(tmp_path: Path) -> None:
    path, clock = tmp_path / "progress.json", Clock()
    for before in (None, "{}"):
        if before is not None:
            path.write_text(before)
        with pytest.raises(NetlatheError):
            refused(kept(path, clock))
        assert path.exists() == (before is not None)
    assert path.read_text() == "{}"


def test_a_process_that_was_killed_is_known_to_be_gone(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    code = (
        "import sys, pathlib, time\n"
        "from netlathe.events import Listener\n"
        "from netlathe.progress_files import ProgressFile\n"
        "with ProgressFile(Listener(), pathlib.Path(sys.argv[1]), 'search', 'mine') as work:\n"
        "    work.phase('search', is_done=False)\n"
        "    print('begun', flush=True)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    assert read_work(path).standing() == "working"
    process.kill()
    process.wait()
    process.stdout.close()
    assert read_work(path).standing() == "dead"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "host": "another-machine"}))
    assert read_work(path).standing() == "working"  # whom nobody here can ask


def test_two_calls_that_measure_into_one_profile_have_a_file_each(tmp_path: Path) -> None:
    profile, clock = tmp_path / "p[1].sqlite", Clock()
    first = beside(profile)
    assert first.name == "p[1].sqlite.progress.json"
    with kept(first, clock):
        second = beside(profile)
        assert second.name == "p[1].sqlite.progress-2.json"
        with kept(second, clock):
            assert files_beside(profile) == sorted([first, second])
    first.write_text("mine")
    assert beside(profile) == second


def test_a_folder_that_is_gone_stops_nothing(tmp_path: Path) -> None:
    with kept(tmp_path / "gone" / "progress.json", Clock()) as work:
        work.phase("search", is_done=False)
        with work.watching(["a"]) as (watch,), work.following(["device"]) as follow, work.working("x"):
            watch(0.5, None, "")
            follow([["a"]], "", None, None)
    assert not (tmp_path / "gone").exists()


def test_long_curves_keep_their_shape() -> None:
    points: list[tuple[float, float]] = []
    for step in range(1, 5001):
        points = with_point(points, step, 3.0 * step)
    assert MOST_POINTS <= len(points) < 2 * MOST_POINTS
    assert all(value == pytest.approx(3 * step, rel=1e-5) for step, value in points)


@pytest.mark.parametrize(
    "change", [{"phases": 3}, {"outcome": "asleep"}, {"at": float("nan")}, {"numbers": {"a": [1]}}]
)
def test_a_damaged_record_is_one_clear_error(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    with kept(path, Clock()):
        content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **change}))
    with pytest.raises(FormatError, match="progress"):
        read_work(path)
