from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netlathe.archspace.files import cache_directory
from netlathe.profiler.errors import DeviceError
from netlathe.profiler.phone import download, provision
from netlathe.profiler.phone.elf import Elf, read_elf
from netlathe.profiler.phone.provision import OFFICIAL, find_binary

PHONE = ("arm64-v8a", "armeabi-v7a", "armeabi")
OLD_PHONE = ("armeabi-v7a", "armeabi")
NAME = OFFICIAL["arm64-v8a"]
LINKER = {"arm64-v8a": b"/system/bin/linker64", "armeabi-v7a": b"/system/bin/linker"}
TEXTS = b"Inference timings in us: \0"


def elf(bits=64, machine=183, kind=3, interpreter=b"/system/bin/linker64", texts=TEXTS):
    """The headers of a program with one segment for the dynamic linker's path, and some texts."""
    wide = bits == 64
    header_bytes, part_bytes = (64, 56) if wide else (52, 32)
    at = header_bytes + part_bytes
    path = interpreter + b"\0" if interpreter else b""
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    header = struct.pack(
        "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH",
        kind, machine, 1, at, header_bytes, 0, 0, header_bytes, part_bytes, 1, 0, 0, 0,
    )  # fmt: skip
    part_kind = 3 if interpreter else 1
    fields = (part_kind, 4, at, 0, 0, len(path), len(path), 1) if wide else (part_kind, at, 0, 0, len(path), 0, 4, 1)
    return ident + header + struct.pack("<IIQQQQQQ" if wide else "<IIIIIIII", *fields) + path + texts


ARM64 = elf()
ARM32 = elf(bits=32, machine=40, interpreter=LINKER["armeabi-v7a"])


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


class Server:
    """Answers with `content`, or as `answer(handler)` does; counts what it is asked for."""

    def __init__(self):
        self.content, self.answer, self.paths = ARM64, None, []

    def handle(self, handler):
        self.paths.append(handler.path)
        if self.answer is not None:
            self.answer(handler)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(self.content)))
        handler.end_headers()
        handler.wfile.write(self.content)


@contextmanager
def serving(server):
    class Handler(BaseHTTPRequestHandler):
        timeout = 20

        def do_GET(self):
            try:
                server.handle(self)
            except ConnectionError:
                self.close_connection = True

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}/latest/"
        finally:
            http.shutdown()
            thread.join(20)


@pytest.fixture
def server():
    one = Server()
    with serving(one) as url:
        one.url = url
        yield one


def refused(tmp_path, content, abis=PHONE, name="benchmark_model"):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DeviceError) as caught:
        find_binary(path, abis)
    assert str(path) in str(caught.value)
    return str(caught.value)


def failing_download(server, tmp_path, **options):
    """The error, after checking that it left nothing behind and says what to fetch and where to put it."""
    with pytest.raises(DeviceError) as caught:
        find_binary(None, PHONE, cache_dir=tmp_path, base_url=server.url, **options)
    text = str(caught.value)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []
    assert server.url + NAME in text
    return text


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("content", "abi"),
    [
        (ARM64, "arm64-v8a"),
        (ARM32, "armeabi-v7a"),
        (elf(machine=62), "x86_64"),
        (elf(bits=32, machine=3, interpreter=b"/system/bin/linker"), "x86"),
        (elf(kind=2, interpreter=None), "arm64-v8a"),
    ],
)
def test_a_program_for_the_phone_s_abi_is_accepted(tmp_path, content, abi):
    path = tmp_path / "benchmark_model"
    path.write_bytes(content)
    binary = find_binary(path, ["mips", abi])
    assert (binary.path, binary.kind, binary.abi, binary.source) == (path, "benchmark_model", abi, "given")
    assert (binary.content, binary.sha256) == (content, sha256(content))
    assert len(repr(binary)) < 500


def test_a_script_runs_on_any_phone(tmp_path):
    path = tmp_path / "benchmark_model"
    path.write_bytes(b"#!/system/bin/sh\n")
    binary = find_binary(path, PHONE)
    assert (binary.kind, binary.abi) == ("script", "script")


def test_this_computer_s_shell_is_read_as_a_program_but_is_no_benchmark_model(tmp_path):
    real = Path(shutil.which("sh")).resolve()
    abi = read_elf(real.read_bytes(), "sh", "").abi
    with pytest.raises(DeviceError, match=r"not TFLite's benchmark_model|built for Linux"):
        find_binary(real, [abi])


def test_a_wrong_abi_is_refused_with_the_right_file_s_address(tmp_path):
    text = refused(tmp_path, elf(machine=62))
    assert "built for x86_64" in text
    assert "arm64-v8a, armeabi-v7a" in text
    assert text.endswith("nightly/latest/android_aarch64_benchmark_model")
    assert refused(tmp_path, ARM64, OLD_PHONE).endswith("android_arm_benchmark_model")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"PK\x03\x04" + bytes(100), ".apk"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "web page"),
        (b"MZ\x90", "neither a program"),
        (elf(machine=8), "machine 8"),
        (b"\x7fELF\x02\x02" + bytes(60), "unknown kind"),
        (elf(kind=1), "library or an object file"),
        (elf(interpreter=None), "library or an object file"),
        (ARM64[:130], "cut off"),
        (ARM64[:40], "cut off"),
        (ARM64[:4], "cut off"),
        (ARM64[:39] + b"\x80" + ARM64[40:], "cut off or damaged"),
        (elf(interpreter=b"/lib/ld-linux-aarch64.so.1"), "built for Linux"),
        (elf(texts=b"usage: ls"), "not TFLite's benchmark_model"),
    ],
)
def test_anything_else_than_a_benchmark_model_is_refused_and_named(tmp_path, content, reason):
    assert reason in refused(tmp_path, content)


def test_litert_s_newer_tool_is_taken_and_known_by_what_it_prints(tmp_path):
    for texts in (b"", TEXTS):
        path = tmp_path / "tool"
        path.write_bytes(elf(texts=texts + b"========== BENCHMARK RESULTS =========="))
        assert find_binary(path, PHONE).kind == "benchmark_litert_model"


def test_what_is_no_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing", Path("/dev/zero")):
        with pytest.raises(DeviceError, match="there is no such file"):
            find_binary(path, PHONE)


def test_a_phone_that_names_no_abi_is_an_error(tmp_path):
    with pytest.raises(DeviceError, match="abilist"):
        find_binary(tmp_path, [])


def test_a_phone_with_x86_needs_a_file_of_the_user_s():
    with pytest.raises(DeviceError, match="--benchmark-binary"):
        find_binary(None, ["x86_64", "arm64-v8a"])


@settings(deadline=None)
@given(
    content=st.binary(max_size=200).map(lambda tail: b"\x7fELF" + tail)
    | st.tuples(st.integers(4, 170), st.binary(min_size=1, max_size=8)).map(
        lambda change: ARM64[: change[0]] + change[1] + ARM64[change[0] + len(change[1]) :]
    )
)
def test_damaged_headers_are_read_or_refused(content):
    with suppress(DeviceError):
        assert isinstance(read_elf(content, "x", "y"), Elf)


def test_the_official_file_for_the_phone_s_first_abi_is_downloaded_and_pinned(server, tmp_path):
    binary = find_binary(None, PHONE, cache_dir=tmp_path / "new", base_url=server.url)
    assert server.paths == ["/latest/" + NAME]
    assert (binary.source, binary.abi, binary.content) == ("downloaded", "arm64-v8a", ARM64)
    assert binary.path.read_bytes() == ARM64
    pin = json.loads((tmp_path / "new" / f"{NAME}.json").read_text())
    assert pin == {
        "schema": "netlathe.benchmark-binary/1", "url": server.url + NAME, "sha256": sha256(ARM64), "bytes": len(ARM64),
    }  # fmt: skip
    assert not list(tmp_path.rglob("*.part-*"))


def test_an_older_phone_gets_the_32_bit_file(server, tmp_path):
    server.content = ARM32
    assert find_binary(None, OLD_PHONE, cache_dir=tmp_path, base_url=server.url).abi == "armeabi-v7a"
    assert server.paths == ["/latest/android_arm_benchmark_model"]


def test_what_is_cached_is_not_asked_for_again(server, tmp_path):
    first, second = (find_binary(None, PHONE, cache_dir=tmp_path, base_url=server.url) for _ in range(2))
    assert first == second
    assert len(server.paths) == 1


def test_a_refresh_that_brings_the_same_is_harmless(server, tmp_path):
    for refresh in (False, True):
        find_binary(None, PHONE, cache_dir=tmp_path, base_url=server.url, refresh=refresh)
    assert len(server.paths) == 2


def test_another_build_on_the_server_is_refused_with_both_hashes_and_the_old_one_stays(server, tmp_path):
    old = find_binary(None, PHONE, cache_dir=tmp_path, base_url=server.url)
    server.content = new = ARM64 + b"newer"
    for missing in (False, True):
        if missing:
            old.path.unlink()
        with pytest.raises(DeviceError, match=f"{sha256(new)}.*{sha256(ARM64)}.*delete.*--benchmark-binary"):
            find_binary(None, PHONE, cache_dir=tmp_path, base_url=server.url, refresh=True)
        assert old.path.exists() != missing
    old.path.with_name(f"{NAME}.json").unlink()  # as the message says
    assert find_binary(None, PHONE, cache_dir=tmp_path, base_url=server.url).content == new


@pytest.mark.parametrize("damaged", [ARM64 + b"x", ARM64[:100], b""])
def test_a_cached_file_that_changed_is_refused_with_both_hashes(server, tmp_path, damaged):
    path = find_binary(None, PHONE, cache_dir=tmp_path, base_url=server.url).path
    path.write_bytes(damaged)
    with pytest.raises(DeviceError, match=f"{sha256(ARM64)} then, {sha256(damaged)} now.*[Dd]elete"):
        find_binary(None, PHONE, cache_dir=tmp_path, base_url=server.url)
    path.unlink()  # as the message says
    assert find_binary(None, PHONE, cache_dir=tmp_path, base_url=server.url).content == ARM64


@pytest.mark.parametrize("content", ["{", "{}", '{"schema": "netlathe.benchmark-binary/1"}'])
def test_a_damaged_record_of_the_hash_is_an_error(server, tmp_path, content):
    find_binary(None, PHONE, cache_dir=tmp_path, base_url=server.url)
    (tmp_path / f"{NAME}.json").write_text(content)
    with pytest.raises(DeviceError, match="start afresh"):
        find_binary(None, PHONE, cache_dir=tmp_path, base_url=server.url)


def test_offline_the_error_says_what_to_fetch_and_where_to_put_it_and_then_that_file_is_used(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        base_url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(DeviceError, match="refused") as caught:
            find_binary(None, PHONE, cache_dir=tmp_path, base_url=base_url)
        assert f"{base_url}/{NAME}" in str(caught.value)
        assert str(tmp_path / NAME) in str(caught.value)
        (tmp_path / NAME).write_bytes(ARM64)
        binary = find_binary(None, PHONE, cache_dir=tmp_path, base_url=base_url)
        assert (binary.source, binary.content) == ("downloaded", ARM64)
        (tmp_path / NAME).write_bytes(ARM64 + b"x")
        with pytest.raises(DeviceError, match="has changed"):
            find_binary(None, PHONE, cache_dir=tmp_path, base_url=base_url)


@pytest.mark.parametrize("content", [b"<html>Please log in</html>", b"#!/bin/sh\n", b"", ARM32])
def test_an_answer_that_is_no_fitting_program_is_not_kept(server, tmp_path, content):
    server.content = content
    failing_download(server, tmp_path)


def test_a_missing_file_on_the_server_is_an_error(server, tmp_path):
    server.answer = lambda handler: handler.send_error(404)
    assert "404" in failing_download(server, tmp_path)


@pytest.mark.parametrize(
    "place", ["http://localhost:{port}/x", "http://example.org/x", "ftp://127.0.0.1/x", "file:///etc/hostname"]
)
def test_redirects_to_anything_but_https_are_not_followed(server, tmp_path, place):
    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", place.format(port=handler.server.server_port))
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.answer = answer
    failing_download(server, tmp_path)
    assert len(server.paths) == 1


def test_https_may_redirect_to_any_host_but_not_down_to_http():
    redirect = download.OnlyHttps().redirect_request
    with socket.socket() as body:
        request = download.urllib.request.Request("https://one.example/x")
        to = "https://two.example/y"
        assert redirect(request, body, 302, "", {}, to).full_url == to
        with pytest.raises(ValueError, match="only https"):
            redirect(request, body, 302, "", {}, "http://127.0.0.1:1/y")


@pytest.mark.parametrize("url", ["http://example.org", "file:///tmp", "ftp://127.0.0.1"])
def test_only_https_is_asked(tmp_path, url):
    with pytest.raises(DeviceError, match="https only"):
        find_binary(None, PHONE, cache_dir=tmp_path, base_url=url)


def test_a_file_that_is_announced_as_too_large_is_not_read(server, tmp_path, monkeypatch):
    monkeypatch.setattr(provision, "MOST_BYTES", len(ARM64) - 1)
    assert "too many" in failing_download(server, tmp_path)


def test_a_file_that_turns_out_too_large_is_not_read_on(server, tmp_path, monkeypatch):
    monkeypatch.setattr(provision, "MOST_BYTES", 300_000)
    sent = []

    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(2000):
            handler.wfile.write(bytes(100_000))
            sent.append(1)

    server.answer = answer
    assert "more than the 300000 bytes" in failing_download(server, tmp_path)
    assert len(sent) < 2000


@pytest.mark.parametrize("header", [("Content-Length", str(len(ARM64))), ("Transfer-Encoding", "chunked"), None])
def test_a_connection_that_breaks_in_the_middle_is_noticed(server, tmp_path, header):
    def answer(handler):
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        if header:
            handler.send_header(*header)
        handler.end_headers()
        is_chunked = header is not None and header[0] == "Transfer-Encoding"
        handler.wfile.write((b"ff\r\n" if is_chunked else b"") + ARM64[:130])
        handler.close_connection = True

    server.answer = answer
    failing_download(server, tmp_path)


def test_a_server_that_falls_silent_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "SILENCE_S", 0.2)
    over = threading.Event()

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(ARM64)))
        handler.end_headers()
        handler.wfile.write(ARM64[:20])
        over.wait(20)

    server.answer = answer
    assert "timed out" in failing_download(server, tmp_path)
    over.set()


def test_a_server_that_drips_for_ever_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LONGEST_S", 0.2)

    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b"x")
            time.sleep(0.01)

    server.answer = answer
    assert "took longer" in failing_download(server, tmp_path)


def find_in_process(directory, base_url, results):
    results.put(find_binary(None, PHONE, cache_dir=directory, base_url=base_url).sha256)


def test_two_processes_that_start_together_download_once_and_get_the_same(server, tmp_path):
    def answer(handler):
        time.sleep(0.3)  # long enough for both to be waiting
        server.answer = None
        server.paths.pop()
        server.handle(handler)

    server.answer = answer
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=find_in_process, args=(tmp_path, server.url, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        assert {results.get(timeout=60) for _ in workers} == {sha256(ARM64)}
        for worker in workers:
            worker.join(60)
            assert worker.exitcode == 0
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
            worker.close()
        results.close()
        results.join_thread()
    assert len(server.paths) == 1


def test_a_part_that_a_killed_download_left_does_no_harm(server, tmp_path):
    left = tmp_path / f".{NAME[:40]}.part-x1y2"
    left.mkdir()
    (left / "part").write_bytes(ARM64[:50])
    assert find_binary(None, PHONE, cache_dir=tmp_path, base_url=server.url).content == ARM64
    assert not left.exists()


def test_a_cache_that_cannot_be_written_is_an_error_that_says_what_to_set(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="XDG_CACHE_HOME"):
        find_binary(None, PHONE, cache_dir=tmp_path / "file", base_url=server.url)
    (tmp_path / NAME).mkdir()
    with pytest.raises(DeviceError, match="XDG_CACHE_HOME"):
        find_binary(None, PHONE, cache_dir=tmp_path, base_url=server.url)


def test_the_cache_is_where_the_system_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "netlathe"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for unusable in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert cache_directory() == tmp_path / "home" / ".cache" / "netlathe"
