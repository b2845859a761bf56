"""File transfers, message by message."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlathe.profiler.adb import sync
from netlathe.profiler.adb.sync import DATA_BYTES, HEADER, RefusedError
from netlathe.profiler.errors import ConnectionLostError


class ScriptedPipe:
    """Answers with these pieces; keeps what is written. `after` bytes were taken, the phone has something to say."""

    def __init__(self, answers: Iterable[bytes], *, after: float = float("inf"), hangs_up: bool = False) -> None:
        self.answers = list(answers)
        self.written = b""
        self._after = after
        self._hangs_up = hangs_up

    def read(self, timeout_s: float) -> bytes:
        assert timeout_s > 0
        return self.answers.pop(0) if self.answers else b""

    def write(self, data: bytes, timeout_s: float) -> None:
        assert timeout_s > 0
        if self._hangs_up and len(self.written) >= self._after:
            raise ConnectionLostError("hung up")
        self.written += data

    def has_input(self) -> bool:
        return not self._hangs_up and len(self.written) >= self._after

    def close(self) -> None:
        pass


def message(kind: bytes, content: bytes) -> bytes:
    return HEADER.pack(kind, len(content)) + content


OKAY = HEADER.pack(b"OKAY", 0)
FULL = message(b"FAIL", b"write failed: No space left on device")


def messages(data: bytes) -> list[tuple[bytes, bytes]]:
    """What was written, taken apart; DONE carries a time and no content."""
    found = []
    while data:
        kind, length = HEADER.unpack_from(data)
        length = 0 if kind == b"DONE" else length
        found.append((kind, data[HEADER.size :][:length]))
        data = data[HEADER.size + length :]
    return found


@given(size=st.integers(0, 5 * DATA_BYTES))
def test_a_file_goes_out_in_chunks_that_a_phone_accepts(size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    pipe = ScriptedPipe([OKAY])
    counts: list[int] = []
    sync.send(pipe, content, "/data/a b", 0o640, counts.append)
    (first, path), *data, (last, _) = messages(pipe.written)
    assert (first, path, last) == (b"SEND", f"/data/a b,{0o100640}".encode(), b"DONE")
    assert {kind for kind, _ in data} <= {b"DATA"}
    assert all(0 < len(piece) <= DATA_BYTES for _, piece in data)
    assert b"".join(piece for _, piece in data) == content
    assert sum(counts) == len(content)


def test_a_phone_that_refuses_early_is_not_sent_the_rest() -> None:
    pipe = ScriptedPipe([FULL], after=1)
    with pytest.raises(RefusedError, match="No space left"):
        sync.send(pipe, bytes(10 * 2**20), "/data/x", 0o644)
    assert len(pipe.written) < 2**20


def test_a_phone_that_refuses_and_hangs_up_is_heard() -> None:
    pipe = ScriptedPipe([FULL[:5], FULL[5:]], after=1, hangs_up=True)
    with pytest.raises(RefusedError, match="No space left"):
        sync.send(pipe, bytes(10 * 2**20), "/data/x", 0o644)


def test_a_phone_that_only_hangs_up_is_lost() -> None:
    with pytest.raises(ConnectionLostError):
        sync.send(ScriptedPipe([], after=1, hangs_up=True), bytes(10 * 2**20), "/data/x", 0o644)


@given(contents=st.lists(st.binary(max_size=50)), cuts=st.lists(st.integers(0, 300), max_size=8))
def test_a_file_comes_in_however_it_is_cut(contents: list[bytes], cuts: list[int]) -> None:
    answer = b"".join(message(b"DATA", content) for content in contents) + HEADER.pack(b"DONE", 0)
    places = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})
    parts = [answer[start:end] for start, end in itertools.pairwise(places)]
    pipe = ScriptedPipe(parts)
    assert sync.receive(pipe, "/data/ö") == b"".join(contents)
    assert messages(pipe.written) == [(b"RECV", "/data/ö".encode())]


def test_a_file_that_is_cut_off_is_no_file() -> None:
    answer = message(b"DATA", b"half") + HEADER.pack(b"DONE", 0)
    for size in range(len(answer)):
        with pytest.raises(ConnectionLostError, match="halfway"):
            sync.receive(ScriptedPipe([answer[:size]] if size else []), "/data/x")


def test_reasons_and_nonsense_are_errors() -> None:
    with pytest.raises(RefusedError, match="No such file"):
        sync.receive(ScriptedPipe([message(b"DATA", b"x"), message(b"FAIL", b"No such file")]), "/data/x")
    with pytest.raises(RefusedError, match="unknown answer"):
        sync.receive(ScriptedPipe([message(b"HTTP", b"")]), "/data/x")
    with pytest.raises(RefusedError, match="unexpected"):
        sync.send(ScriptedPipe([HEADER.pack(b"DONE", 0)]), b"x", "/data/x", 0o644)
