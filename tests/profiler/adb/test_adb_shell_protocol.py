"""The readers of a shell's answers, on answers cut anywhere."""

import itertools
import subprocess
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlathe.profiler.adb.shell_protocol import EXIT, HEADER, STDERR, STDOUT, MarkedShell, ShellCommand, ShellV2
from netlathe.profiler.errors import DeviceError

cuts = st.lists(st.integers(0, 400), max_size=12)


def pieces(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    """The data, cut at these places."""
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for start, end in itertools.pairwise(places):
        yield data[start:end]


def outputs(shell: ShellCommand, parts: Iterable[bytes]) -> dict[int, bytes]:
    """What each of the three kinds brought, put together."""
    found = {STDOUT: b"", STDERR: b"", EXIT: b""}
    for part in parts:
        for kind, data in shell.feed(part):
            assert not found[EXIT], "something came after the exit"
            found[kind] += data
    return found


@given(
    packets=st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=60))),
    code=st.integers(0, 255),
    cuts=cuts,
)
def test_packets_are_put_together_wherever_they_are_cut(
    packets: list[tuple[int, bytes]], code: int, cuts: list[int]
) -> None:
    everything = b"".join(HEADER.pack(kind, len(data)) + data for kind, data in [*packets, (EXIT, bytes([code]))])
    assert outputs(ShellV2("true"), pieces(everything, cuts)) == {
        STDOUT: b"".join(data for kind, data in packets if kind == STDOUT),
        STDERR: b"".join(data for kind, data in packets if kind == STDERR),
        EXIT: bytes([code]),
    }


@pytest.mark.parametrize("data", [b"hello, I am no packet", HEADER.pack(3, 2) + b"ab", HEADER.pack(0, 1) + b"x"])
def test_what_is_no_packet_is_an_error(data: bytes) -> None:
    with pytest.raises(DeviceError, match="not shell v2"):
        list(ShellV2("true").feed(data))


# letters of the marker itself, so that beginnings of it are likely
noise = st.lists(
    st.sampled_from([b"n", b"netlathe-", b"netlathe-TOKEN", b"netlathe-TOKEN-rc", b"\r", b"\n", b"\r\n", b"\xff", b"x"])
).map(b"".join)


@given(output=noise, code=st.integers(0, 255), cuts=cuts)
def test_the_marker_is_found_wherever_the_output_is_cut(output: bytes, code: int, cuts: list[int]) -> None:
    everything = output + f"netlathe-TOKEN-rc={code}\r\n".encode()
    assert outputs(MarkedShell("true", token="TOKEN"), pieces(everything, cuts)) == {
        STDOUT: output.replace(b"\r\n", b"\n"),
        STDERR: b"",
        EXIT: bytes([code]),
    }


def test_lines_before_the_marker_are_given_at_once() -> None:
    shell = MarkedShell("true")
    assert list(shell.feed(b"a line\n")) == [(STDOUT, b"a line\n")]
    assert list(shell.feed(b"net")) == []
    assert list(shell.feed(b"work\n")) == [(STDOUT, b"network\n")]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("echo out; echo err >&2; exit 3", (b"out\nerr\n", 3)),
        ("printf unfinished", (b"unfinished", 0)),
        ('echo it\\\'s "quoted" # and commented', (b"it's quoted\n", 0)),
        ("cat <<END\nhere\nEND", (b"here\n", 0)),
    ],
)
def test_the_marked_command_means_the_same_to_a_shell(command: str, expected: tuple[bytes, int]) -> None:
    shell = MarkedShell(command)
    script = shell.service.removeprefix("shell:")
    done = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, check=True, timeout=30)
    found = outputs(shell, [done.stdout])
    assert (found[STDOUT], found[EXIT][0]) == expected


def test_a_syntax_error_does_not_swallow_the_marker() -> None:
    shell = MarkedShell("echo 'no closing quote")
    script = shell.service.removeprefix("shell:")
    done = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, check=True, timeout=30)
    found = outputs(shell, [done.stdout])
    assert found[EXIT][0] != 0
    assert found[STDOUT]
