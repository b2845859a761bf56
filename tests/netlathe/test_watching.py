"""`netlathe report --watch`: a page of what goes on, until nothing does."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from report_pages import profile_file, small_run
from test_cli import refusal
from test_report_pages import Notes, headings

import netlathe as nl
from netlathe.archspace.errors import FormatError, NetlatheError
from netlathe.archspace.pools import UNIT, pool_of
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Setup
from netlathe.events import Listener
from netlathe.pooling import PoolPace
from netlathe.profiler.pool import MemberState
from netlathe.profiler.testing import SETUP
from netlathe.progress_files import ProgressFile, beside
from netlathe.report.serving import serving
from netlathe.report.watch_content import Finished, look, read_units

NOW_S = 1_700_000_000.0


def working(folder: Path, *, kind: str = "search") -> ProgressFile:
    """A run that goes on in this process."""
    folder.mkdir(parents=True, exist_ok=True)
    listener = Listener()
    listener.command = f"netlathe {kind} --output {folder.name}"
    return ProgressFile(listener, folder / "progress.json", kind, folder.name, clock=lambda: NOW_S)


class Sleeper:
    """Does something at each wait, and nothing else; the last wait is a Ctrl-C where nothing is left to do."""

    def __init__(self, *acts: Callable[[], object]) -> None:
        self.acts = list(acts)

    def __call__(self, seconds: float) -> None:
        if not self.acts:
            raise KeyboardInterrupt
        self.acts.pop(0)()


def refreshes(page: Path) -> list[str]:
    return re.findall(r'<meta http-equiv="refresh" content="(\d+)">', page.read_text())


def test_a_run_is_followed_to_its_end_and_the_page_becomes_its_report(tmp_path: Path) -> None:
    folder, told, seen = tmp_path / "mine", Notes(), []
    work = working(folder).__enter__()
    work.phase("search", is_done=False)
    with work.progress("searching", "steps") as update:
        update(0, 400, "")
        update(100, 400, "loss <1>")
        work.scalar("search/loss", 0.25, 100)
        work.warn(["a doubt & more"])
        work.phase("search", is_done=True)  # which writes

        def ends() -> None:
            seen.append((folder / "watch.html").read_text())
            assert refreshes(folder / "watch.html") == ["3"]
            small_run(tmp_path / "made")
            for file in (tmp_path / "made").iterdir():
                file.rename(folder / file.name)
            work.__exit__(None, None, None)

        found = nl.watch(folder, every_s=2.5, progress=told, sleep=Sleeper(ends), clock=lambda: NOW_S + 5)
    assert found.is_finished
    for words in ("Searching: 100 of 400 steps", "25 %", "loss &lt;1&gt;", "search/loss 0.25", "a doubt &amp; more",
                  "netlathe search --output mine"):  # fmt: skip
        assert words in seen[0]
    assert refreshes(found.output) == []
    assert "below its target" in found.output.read_text()
    assert next(note for note in told.notes if "mine:" in note).startswith("  mine: Searching: 100 of 400 steps")
    assert "below its target" in told.notes[-1]


def test_the_whole_runs_time_left_is_told_beside_the_steps(tmp_path: Path) -> None:
    times, folder = [NOW_S], tmp_path / "mine"
    folder.mkdir()
    work = ProgressFile(Listener(), folder / "progress.json", "search", "mine", clock=lambda: times[-1])
    with work, work.progress("searching", "steps") as update:
        work.plan({"search": 100.0, "choice": None, "training": 50.0, "run": None})
        work.phase("search", is_done=False)
        update(0, 400, "")
        times.append(NOW_S + 60)
        update(100, 400, "")
        with pytest.raises(KeyboardInterrupt):
            nl.watch(folder, sleep=Sleeper(), clock=lambda: NOW_S + 60)
        text = (folder / "watch.html").read_text()
    told = "about 3 min left; about 5 min of the whole run, without choice and report, whose time nothing tells"
    assert told in text
    assert re.search(r"Left of all.*?5 min.*?about, without choice and report", text, re.DOTALL)
    assert text.count(">to come<") == 3


def test_ctrl_c_leaves_a_whole_page_that_no_longer_loads_itself(tmp_path: Path) -> None:
    with working(tmp_path / "mine") as work:
        work.phase("search", is_done=False)
        with pytest.raises(KeyboardInterrupt):
            nl.watch(tmp_path / "mine", sleep=Sleeper(), clock=lambda: NOW_S)
        page = tmp_path / "mine" / "watch.html"
        assert refreshes(page) == []
        assert page.read_text().rstrip().endswith("</html>")


def dead(folder: Path) -> None:
    """Leaves the progress of a process that is gone."""
    with working(folder) as work:
        work.phase("search", is_done=False)
        content = json.loads((folder / "progress.json").read_text())
    (folder / "progress.json").write_text(json.dumps({**content, "born": "0", "at": NOW_S}))


def test_a_dead_run_is_told_so_and_watching_ends(tmp_path: Path) -> None:
    dead(tmp_path / "mine")
    told = Notes()
    found = nl.watch(tmp_path / "mine", progress=told, clock=lambda: NOW_S + 125, sleep=Sleeper())
    assert not found.is_finished
    ((_, state, sentence),) = found.states
    assert state == "dead"
    assert re.match(r"Not running since \S+ \S+ \(2 min 5 s ago\)", sentence)
    assert sentence.endswith("the same command goes on: netlathe search --output mine")
    text = found.output.read_text()
    assert 'class="verdict bad"' in text
    assert headings(found.output)[0] == "So far"
    assert ">begun<" in text
    assert ">now<" not in text


def test_several_runs_and_profiles_stand_side_by_side(tmp_path: Path) -> None:
    small_run(tmp_path / "done")
    dead(tmp_path / "dead")
    profile_file(tmp_path / "p.sqlite")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    with working(tmp_path / "curve"), working(tmp_path / "deep" / "small", kind="compression") as compression:
        compression.phase("widths", is_done=False)
        (tmp_path / "curve" / "0.3ms").mkdir()
        found = look(tmp_path, Finished())
    standings = {one.name: (one.kind, one.standing) for one in found}
    assert standings == {
        "curve": ("search", "working"),
        "dead": ("search", "dead"),
        "deep/small": ("compression", "working"),
        "done": ("run", "finished"),
        "p.sqlite": ("profile", "finished"),
    }
    again = nl.watch(tmp_path, clock=lambda: NOW_S, sleep=Sleeper())
    assert "1 not running, 2 finished." in again.output.read_text()
    assert headings(again.output)[0] == "All"


def test_a_profile_tells_its_devices_leases_and_temperatures_while_it_is_written(tmp_path: Path) -> None:
    path = profile_file(tmp_path / "p.sqlite")
    unit = Setup.from_json({**SETUP.to_json(), "details": {**dict(SETUP.details), UNIT: "serial-7"}})
    with ProfileFile(path, create=True) as file:  # the campaign
        key = next(iter(file.outcomes(SETUP)))
        pool = pool_of(unit)
        file.set_pool(pool, {unit: 1.0})
        file.add_round(unit, {key: [1.0]}, started_at=NOW_S, drift=1.02, conditions={"battery_c": 36.5})
        file.lease(pool, [key], unit.key, now=time.time(), until=time.time() + 600)
        before = sorted(os.listdir(tmp_path))
        units = {one.name: one for one in read_units(path)}
        assert sorted(os.listdir(tmp_path)) == before
        file.add_round(unit, {key: [1.0]}, started_at=NOW_S + 9, conditions={"battery_c": 37.5})  # the writer goes on
        with (
            ProgressFile(Listener(), beside(path), "profile", path.name) as work,
            work.following(["device", "state", ""]) as follow,
        ):
            follow([["usb", "quarantined", "for 60 s: <too warm>"]], "0 of 1 measure", 0.4, 60.0)
            work.phase("measuring", is_done=False)
            with pytest.raises(KeyboardInterrupt):
                nl.watch(tmp_path, sleep=Sleeper())
    found = units[f"{unit.device} serial-7"]
    assert (found.rounds, found.leased, found.temperatures) == (1, 1, {"battery": 36.5})
    text = (tmp_path / "watch.html").read_text()
    for words in (
        "quarantined", "&lt;too warm&gt;", "battery 37.5 °C", "serial-7", "Measuring, 40 % done, about",
        f"Drift and temperatures of {unit.device} serial-7, its latest 2 rounds", "battery 36.5 to 37.5 °C",
    ):  # fmt: skip
        assert words in text
    assert refreshes(tmp_path / "watch.html") == []


def test_a_pools_time_left_follows_from_what_is_still_open() -> None:
    now_s = 100.0
    pace = PoolPace(clock=lambda: now_s)
    first, second = (
        Setup.from_json({**SETUP.to_json(), "details": {**dict(SETUP.details), UNIT: unit}}) for unit in "ab"
    )
    assert pace([MemberState("a")]) == (None, None)
    assert pace([MemberState("a", setup=first, open=20), MemberState("b")]) == (0.0, None)
    now_s += 30
    seen = [MemberState("a", setup=first, open=15), MemberState("b", setup=second, open=10)]
    assert pace(seen) == (0.5, 30.0)
    seen[0] = MemberState("a", setup=first, open=0)
    assert pace(seen) == (1.0, 0.0)


def test_a_profile_that_nobody_writes_is_read_without_a_trace(tmp_path: Path) -> None:
    path = profile_file(tmp_path / "p.sqlite")
    before = path.read_bytes()
    assert read_units(path)[0].rounds == 20
    assert os.listdir(tmp_path) == ["p.sqlite"]
    assert path.read_bytes() == before
    with ProfileFile(path, only_reads=True) as file, pytest.raises(FormatError):
        file.add_setup(SETUP)


def test_what_cannot_be_watched_is_one_clear_line(tmp_path: Path) -> None:
    assert "there is nothing of that name to watch" in refusal("report", tmp_path / "gone", "--watch")
    assert "nothing to watch is there" in refusal("report", tmp_path, "--watch")
    small_run(tmp_path / "run")
    assert "add --watch" in refusal("report", tmp_path / "run", "--serve")
    assert "follows one folder" in refusal("report", tmp_path, tmp_path / "run", "--watch")
    assert "is not a duration" in refusal("report", tmp_path, "--watch", "--every", "soon")
    (tmp_path / "watch.html").write_text("mine")
    assert "not a page of `netlathe report`" in refusal("report", tmp_path, "--watch")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"--port {port}: cannot be listened on" in refusal(
            "report", tmp_path, "--watch", "--port", port, "--force"
        )
    with working(tmp_path / "other") as work:
        work.phase("search", is_done=False)
        page = tmp_path / "place" / "x.html"
        page.parent.mkdir()

        def replaced() -> None:
            page.unlink()
            page.mkdir()

        with pytest.raises(NetlatheError, match=r"x\.html: cannot be written"):
            nl.watch(tmp_path / "other", page, sleep=Sleeper(replaced))


def test_a_folder_that_is_removed_meanwhile_is_told_after_some_looks(tmp_path: Path) -> None:
    folder, page = tmp_path / "mine", tmp_path / "x.html"
    work = working(folder).__enter__()
    with pytest.raises(FormatError, match="has ended, and left nothing"):
        nl.watch(
            folder, page, clock=lambda: NOW_S, sleep=Sleeper(lambda: work.__exit__(None, None, None), *[lambda: 0] * 5)
        )
    assert page.read_text().rstrip().endswith("</html>")


def fetch(url: str, *, host: str = "") -> tuple[int, str]:
    request = urllib.request.Request(url, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def raw(port: int, path: str) -> str:
    """First line of the answer to a path that no client would send as it is."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return connection.makefile().readline()


def test_the_page_is_served_to_this_machine_and_nothing_else_is(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<p>the page</p>")
    (tmp_path / "secret.txt").write_text("no")
    with serving(tmp_path / "page.html", 0) as served:
        assert fetch(served.url) == (200, "<p>the page</p>")
        assert fetch(f"{served.url}?again") == (200, "<p>the page</p>")
        port = int(served.url.rstrip("/").rpartition(":")[2])
        for path in (
            "/page.html",
            "/secret.txt",
            "/../secret.txt",
            "/%2e%2e/secret.txt",
            "/.",
            "secret.txt",
            "*",
        ):
            assert " 404 " in raw(port, path), path
        assert fetch(served.url, host="elsewhere.example")[0] == 403
        assert fetch(served.url, host=f"localhost:{port + 1}")[0] == 200  # as through a tunnel
        (tmp_path / "page.html").unlink()
        assert fetch(served.url)[0] == 503
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


def test_the_command_ends_with_130_at_ctrl_c_and_tells_where_the_page_is(tmp_path: Path) -> None:
    with working(tmp_path / "mine") as work:
        work.phase("search", is_done=False)
        process = subprocess.Popen(
            [sys.executable, "-m", "netlathe", "report", str(tmp_path / "mine"), "--watch", "--port", "0"],
            stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONWARNINGS": "error"},
        )  # fmt: skip
        assert process.stderr is not None
        lines: list[str] = []
        while "Served at" not in (lines or [""])[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        url = re.search(r"http://\S+", lines[-1])
        assert url
        assert fetch(url[0])[0] == 200
        process.send_signal(2)
        rest = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert "a page that is there is whole" in rest
    assert refreshes(tmp_path / "mine" / "watch.html") == []
